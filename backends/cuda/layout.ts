import type { RankLayout } from "../../core/layout/counts.ts";
import type { Context } from "./context.ts";
import type { RoutingArrays } from "./routing.ts";

/** Counts of each local rank (design 2.2), made on the devices in one call. */
export async function deviceLayout(
  { self, owner, group }: Context,
  routing: RoutingArrays,
  numTokens: readonly number[],
  numExperts: number,
): Promise<readonly RankLayout[]> {
  const { numRanks } = self;
  const numNodes = numRanks / self.ranksPerNode;
  const perRank = numTokens.map(() => new Int32Array(numRanks));
  const perNode = numNodes > 1 ? numTokens.map(() => new Int32Array(numNodes)) : null;
  const perExpert = numTokens.map(() => new Int32Array(numExperts));
  const tokenInRank = numTokens.map((tokens) => new Uint8Array(tokens * numRanks));
  const { topkIdx } = routing;
  try {
    await owner.addon.layout(group, {
      topkIdx,
      numExperts,
      numRanks,
      numNodes,
      perRank,
      perNode,
      perExpert,
      tokenInRank,
    });
  } finally {
    routing.free();
  }
  return numTokens.map((tokens, i) => ({
    rank: self.localRanks[i],
    numTokens: tokens,
    numTokensPerRank: perRank[i],
    numTokensPerNode: perNode?.[i] ?? null,
    numTokensPerExpert: perExpert[i],
    isTokenInRank: () => tokenInRank[i],
  }));
}
