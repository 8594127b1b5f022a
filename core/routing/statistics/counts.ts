import { checkShape, type GroupShape, numLocalExperts, numNodes } from "../../layout/routing.ts";

/** Which rank holds which tokens and experts: tokens [firstToken[r], firstToken[r + 1]) are rank r's. */
export interface Placement extends GroupShape {
  /** [numRanks + 1], ascending, from 0 to the number of tokens. */
  readonly firstToken: ArrayLike<number>;
}

/** Rank r gets tokens [r T / R, (r + 1) T / R), rounded down. */
export function splitEvenly(numTokens: number, numRanks: number): Float64Array {
  return Float64Array.from({ length: numRanks + 1 }, (_, rank) => Math.floor((rank * numTokens) / numRanks));
}

/** What one pass over a layer's routing counts. A row is a (token, destination rank) pair: a token is sent there once. */
export interface RoutingCounts {
  readonly numTokens: number;
  /** Slots with an expert. */
  readonly numSlots: number;
  /** Slots of -1. */
  readonly numDroppedSlots: number;
  /** Tokens without any expert. */
  readonly numEmptyTokens: number;
  /** Slots whose id is neither -1 nor an expert: in no other count. */
  readonly numInvalidSlots: number;
  /** [E] slots per expert (Float64Array when they come from a file of loads). */
  readonly slotsPerExpert: Int32Array | Float64Array;
  /** [R] slots per destination rank. */
  readonly slotsPerRank: Int32Array | Float64Array;
  /** [nodes] slots per destination node. */
  readonly slotsPerNode: Int32Array | Float64Array;
  /** [R] tokens per source rank. */
  readonly tokensPerRank: Int32Array;
  /** [R] rows that each destination rank receives. */
  readonly rowsPerRank: Int32Array;
  /** [R] rows that each source rank sends. */
  readonly sentRowsPerRank: Int32Array;
  /** [nodes] (token, destination node) pairs per node. */
  readonly rowsPerNode: Int32Array;
  readonly numRows: number;
  /** Rows whose destination is not the source. */
  readonly numRemoteRows: number;
  /** (token, destination node) pairs. */
  readonly numNodeRows: number;
  /** (token, destination node) pairs that leave the source's node: what crosses the network once per node. */
  readonly numRemoteNodeRows: number;
}

/** What each number of RoutingCounts is. */
export const COUNT_FORMULAS: Readonly<Record<keyof RoutingCounts, string>> = {
  numTokens: "tokens of all ranks",
  numSlots: "(token, k) with an expert",
  numDroppedSlots: "(token, k) of -1",
  numEmptyTokens: "tokens without an expert",
  numInvalidSlots: "(token, k) that are neither -1 nor an expert; in no other count",
  slotsPerExpert: "(token, k) that chose the expert",
  slotsPerRank: "sum of slotsPerExpert over the rank's experts",
  slotsPerNode: "sum of slotsPerRank over the node's ranks",
  tokensPerRank: "tokens that the rank holds",
  rowsPerRank: "tokens with at least one slot on the rank",
  sentRowsPerRank: "(token, destination rank) pairs of the rank's tokens",
  rowsPerNode: "tokens with at least one slot on the node",
  numRows: "sum of rowsPerRank",
  numRemoteRows: "(token, destination rank) pairs whose destination is not the token's rank",
  numNodeRows: "sum of rowsPerNode",
  numRemoteNodeRows: "(token, destination node) pairs whose destination is not the token's node",
};

/**
 * Counts one layer: [tokens, topk] ids under a placement. One pass, linear in slots (a few ns each). Ids that are no expert
 * are counted and skipped, so that damaged files can be inspected. Throws InvalidArgument when the sizes do not fit (E not
 * divisible by R).
 */
export function countRouting(topkIdx: Int32Array, topk: number, placement: Placement): RoutingCounts {
  checkShape(placement);
  const { numRanks, ranksPerNode, numExperts, firstToken } = placement;
  const nodes = numNodes(placement);
  const slotsPerExpert = new Int32Array(numExperts);
  const slotsPerRank = new Int32Array(numRanks);
  const slotsPerNode = new Int32Array(nodes);
  const rowsPerRank = new Int32Array(numRanks);
  const rowsPerNode = new Int32Array(nodes);
  const sentRowsPerRank = new Int32Array(numRanks);
  const tokensPerRank = new Int32Array(numRanks);
  const rankOfExpert = Int32Array.from({ length: numExperts }, (_, e) => Math.floor(e / numLocalExperts(placement)));
  const nodeOfRank = Int32Array.from({ length: numRanks }, (_, r) => Math.floor(r / ranksPerNode));
  const lastTokenOfRank = new Int32Array(numRanks).fill(-1);
  const lastTokenOfNode = new Int32Array(nodes).fill(-1);
  let numDroppedSlots = 0;
  let numInvalidSlots = 0;
  let numEmptyTokens = 0;
  let numRemoteRows = 0;
  let numRemoteNodeRows = 0;
  for (let src = 0; src < numRanks; src++) {
    const srcNode = nodeOfRank[src];
    // Whole numbers below 2^31, and said so: an index that is a double costs conversions in the loop.
    const begin = firstToken[src] | 0;
    const end = firstToken[src + 1] | 0;
    tokensPerRank[src] = end - begin;
    let sent = 0;
    let local = 0;
    for (let token = begin, i = begin * topk; token < end; token++) {
      let used = 0;
      for (const rowEnd = i + topk; i < rowEnd; i++) {
        const expert = topkIdx[i];
        if (expert < 0 || expert >= numExperts) {
          if (expert === -1) numDroppedSlots++;
          else numInvalidSlots++;
          continue;
        }
        used++;
        slotsPerExpert[expert]++;
        const dst = rankOfExpert[expert];
        if (lastTokenOfRank[dst] === token) continue;
        lastTokenOfRank[dst] = token;
        rowsPerRank[dst]++;
        sent++;
        if (dst === src) local++;
        const node = nodeOfRank[dst];
        if (lastTokenOfNode[node] === token) continue;
        lastTokenOfNode[node] = token;
        rowsPerNode[node]++;
        if (node !== srcNode) numRemoteNodeRows++;
      }
      if (used === 0) numEmptyTokens++;
    }
    sentRowsPerRank[src] = sent;
    numRemoteRows += sent - local;
  }
  for (let e = 0; e < numExperts; e++) slotsPerRank[rankOfExpert[e]] += slotsPerExpert[e];
  for (let r = 0; r < numRanks; r++) slotsPerNode[nodeOfRank[r]] += slotsPerRank[r];
  return {
    numTokens: sum(tokensPerRank),
    numSlots: sum(slotsPerExpert),
    numDroppedSlots,
    numEmptyTokens,
    numInvalidSlots,
    slotsPerExpert,
    slotsPerRank,
    slotsPerNode,
    tokensPerRank,
    rowsPerRank,
    sentRowsPerRank,
    rowsPerNode,
    numRows: sum(rowsPerRank),
    numRemoteRows,
    numNodeRows: sum(rowsPerNode),
    numRemoteNodeRows,
  };
}

function sum(values: Int32Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
