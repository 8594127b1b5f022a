/** Handles to take apart: made from routings by hand and at random. */
import fc from "fast-check";
import type { HandleData, RankHandle } from "../../../core/handle/handle.ts";
import { fusedHandle, hybridEpHandle } from "../../../core/layout/positions.ts";
import { rankRouting } from "../../../core/layout/routing.ts";
import { tensor } from "../../../core/tensor.ts";

export interface HandleCase {
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly numExperts: number;
  /** Per rank, per token: experts, -1 = none. */
  readonly topkIdx: readonly (readonly number[])[][];
  /** 1 = exact; else a row budget of that many rows per rank. */
  readonly budget: number;
  readonly multiple: number;
}

/** Routings of up to 4 ranks, 3 experts each, uneven and empty ranks, dropped slots. */
export const handleCase: fc.Arbitrary<HandleCase> = fc
  .record({
    ranksPerNode: fc.constantFrom(1, 2),
    nodes: fc.constantFrom(1, 2),
    perRank: fc.constantFrom(1, 2, 3),
    topk: fc.integer({ min: 1, max: 4 }),
    multiple: fc.constantFrom(1, 1, 2, 4),
    budget: fc.constantFrom(0, 0, 1, 3),
  })
  .chain(({ ranksPerNode, nodes, perRank, topk, multiple, budget }) => {
    const numRanks = ranksPerNode * nodes;
    const numExperts = numRanks * perRank;
    const width = Math.min(topk, numExperts);
    const experts = Array.from({ length: numExperts }, (_, expert) => expert);
    const token = fc
      .tuple(
        fc.shuffledSubarray(experts, { minLength: width, maxLength: width }),
        fc.array(fc.constantFrom(true, true, true, false), { minLength: width, maxLength: width }),
      )
      .map(([ids, chosen]) => ids.map((expert, slot) => (chosen[slot] ? expert : -1)));
    const tokens = fc.array(token, { maxLength: 5 });
    return fc.array(tokens, { minLength: numRanks, maxLength: numRanks }).map((topkIdx) => ({
      numRanks,
      ranksPerNode,
      numExperts,
      topkIdx: topkIdx.map((rank) => (rank.length > 0 ? rank : [])),
      budget: budget * multiple,
      multiple,
    }));
  });

export function makeHandle(kind: "fused" | "hybrid-ep", c: HandleCase): HandleData {
  const topk = c.topkIdx.flat()[0]?.length ?? 1;
  const routings = c.topkIdx.map((tokens, rank) =>
    rankRouting(rank, tensor("i32", [tokens.length, topk], Int32Array.from(tokens.flat())), null, c.numExperts),
  );
  if (kind === "fused") return fusedHandle(routings, c, { expertAlignment: c.multiple, numWorstTokens: c.budget });
  return hybridEpHandle(routings, c, { padMultiple: c.multiple, numPermutedTokens: c.budget || null });
}

export type ArrayName = {
  [K in keyof RankHandle]: RankHandle[K] extends Int32Array | null ? K : never;
}[keyof RankHandle];

/** The handle with one array of one rank replaced. */
export function withArray(data: HandleData, rank: number, name: ArrayName, values: Int32Array): HandleData {
  return { ...data, ranks: data.ranks.map((one) => (one.rank === rank ? { ...one, [name]: values } : one)) };
}
