import { type GroupShape, numLocalExperts, numNodes, type RankRouting } from "./routing.ts";

/** What one rank sends, counted from its routing alone (design 2.2; DeepEP's get_dispatch_layout). */
export interface RankLayout {
  readonly rank: number;
  readonly numTokens: number;
  /** [numRanks]: tokens with at least one slot on that rank. */
  readonly numTokensPerRank: Int32Array;
  /** [numNodes]: likewise per node; null when there is one node. */
  readonly numTokensPerNode: Int32Array | null;
  /** [numExperts]: slots per expert. */
  readonly numTokensPerExpert: Int32Array;
  /** Makes [numTokens, numRanks] bool bytes: dense, so made on request only (512 ranks x 2 million tokens is 1 GiB). */
  isTokenInRank(): Uint8Array;
}

/** Counts one rank's tokens per rank, node and expert: one pass over its slots. */
export function rankLayout(routing: RankRouting, shape: GroupShape): RankLayout {
  const { topkIdx, topk, numTokens } = routing;
  const expertsPerRank = numLocalExperts(shape);
  const expertsPerNode = expertsPerRank * shape.ranksPerNode;
  const nodes = numNodes(shape);
  const numTokensPerRank = new Int32Array(shape.numRanks);
  const numTokensPerNode = new Int32Array(nodes);
  const numTokensPerExpert = new Int32Array(shape.numExperts);
  const lastTokenOfRank = new Int32Array(shape.numRanks).fill(-1);
  const lastTokenOfNode = new Int32Array(nodes).fill(-1);
  for (let token = 0, i = 0; token < numTokens; token++) {
    for (const end = i + topk; i < end; i++) {
      const expert = topkIdx[i];
      if (expert < 0) continue;
      numTokensPerExpert[expert]++;
      const dst = Math.floor(expert / expertsPerRank);
      if (lastTokenOfRank[dst] !== token) {
        lastTokenOfRank[dst] = token;
        numTokensPerRank[dst]++;
      }
      const node = Math.floor(expert / expertsPerNode);
      if (lastTokenOfNode[node] !== token) {
        lastTokenOfNode[node] = token;
        numTokensPerNode[node]++;
      }
    }
  }
  return {
    rank: routing.rank,
    numTokens,
    numTokensPerRank,
    numTokensPerNode: nodes > 1 ? numTokensPerNode : null,
    numTokensPerExpert,
    isTokenInRank: () => tokenInRank(routing, shape),
  };
}

function tokenInRank(routing: RankRouting, shape: GroupShape): Uint8Array {
  const expertsPerRank = numLocalExperts(shape);
  const result = new Uint8Array(routing.numTokens * shape.numRanks);
  for (let i = 0; i < routing.topkIdx.length; i++) {
    const expert = routing.topkIdx[i];
    if (expert < 0) continue;
    const token = Math.floor(i / routing.topk);
    result[token * shape.numRanks + Math.floor(expert / expertsPerRank)] = 1;
  }
  return result;
}

/** `count` rounded up to a multiple of `multiple`; 0 and 1 mean no rounding (design 2.3, 2.5). */
export function roundUp(count: number, multiple: number): number {
  return multiple > 1 ? Math.ceil(count / multiple) * multiple : count;
}
