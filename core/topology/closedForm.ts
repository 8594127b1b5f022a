import { emptyTraffic, type Traffic } from "./traffic.ts";

/** Uniform routing of one shape: the check of the counting code, and the default where there is no routing. */
export interface UniformShape {
  readonly numRanks: number;
  readonly ranksPerNode: number;
  /** Tokens per rank. */
  readonly numTokens: number;
  readonly topk: number;
  readonly numExperts: number;
  /** Group-limited routing: each token's experts come from this many nodes (DeepSeek-V3: 4); absent = all. */
  readonly nodeLimit?: number;
}

/**
 * P(a token with k distinct uniform experts of E hits a given set of n experts) = 1 - C(E-n, k) / C(E, k), as a product
 * of k factors, so that E need not be divisible: n may be a fraction.
 */
export function hitProbability(n: number, numExperts: number, topk: number): number {
  let miss = 1;
  for (let i = 0; i < topk; i++) miss *= Math.max(0, numExperts - n - i) / (numExperts - i);
  return 1 - miss;
}

/** P(exactly one of a token's k experts lies in a given set of n): k n/E times the chance that the others miss. */
export function singleHitProbability(n: number, numExperts: number, topk: number): number {
  let others = 1;
  for (let i = 0; i < topk - 1; i++) others *= Math.max(0, numExperts - n - i) / (numExperts - 1 - i);
  return ((topk * n) / numExperts) * others;
}

/** E[groups hit] = G (1 - C(E - E/G, k) / C(E, k)) for G equal groups (ranks or nodes). */
export function expectedGroupsHit(numGroups: number, numExperts: number, topk: number): number {
  return numGroups * hitProbability(numExperts / numGroups, numExperts, topk);
}

/** Expected counts per rank for uniform routing: arrays of one entry that stands for every rank. */
export function uniformTraffic(shape: UniformShape): Traffic {
  const { numRanks, ranksPerNode, numTokens, topk, numExperts } = shape;
  const nodes = numRanks / ranksPerNode;
  const limit = Math.min(shape.nodeLimit ?? nodes, nodes);
  // Within the `limit` nodes that a token may use, its experts are uniform over their experts.
  const eligible = (numExperts * limit) / nodes;
  const perRank = numExperts / numRanks;
  const ranksHit = limit * ranksPerNode * hitProbability(perRank, eligible, topk);
  const nodesHit = limit * hitProbability(numExperts / nodes, eligible, topk);
  const single = limit * ranksPerNode * singleHitProbability(perRank, eligible, topk);
  const traffic = emptyTraffic(numRanks, ranksPerNode, 1);
  const set = (array: Float64Array, perToken: number) => {
    array[0] = numTokens * perToken;
  };
  const otherNodes = (nodes - 1) / nodes;
  const inNode = (ranksPerNode - 1) / ranksPerNode;
  set(traffic.numTokens, 1);
  for (const array of [traffic.sendRows, traffic.recvRows, traffic.railWrites]) set(array, ranksHit);
  for (const array of [traffic.nodeRows, traffic.railReads]) set(array, nodesHit);
  for (const array of [traffic.railNicOut, traffic.railNicIn]) set(array, nodesHit * otherNodes);
  for (const array of [traffic.railNvlinkOut, traffic.railNvlinkIn]) set(array, ranksHit * inNode);
  for (const array of [traffic.directNicOut, traffic.directNicIn]) set(array, ranksHit * otherNodes);
  const localShare = (ranksPerNode - 1) / numRanks;
  for (const array of [traffic.directNvlinkOut, traffic.directNvlinkIn]) set(array, ranksHit * localShare);
  for (const array of [traffic.sendSlots, traffic.recvSlots]) set(array, topk);
  for (const array of [traffic.slotNicOut, traffic.slotNicIn]) set(array, topk * otherNodes);
  for (const array of [traffic.slotNvlinkOut, traffic.slotNvlinkIn]) set(array, topk * localShare);
  set(traffic.multiRows, ranksHit - single);
  return traffic;
}
