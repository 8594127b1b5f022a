import { describe, expect, test } from "vitest";
import { conservationOf, type RankTally, tally } from "../../../core/layout/conservation.ts";
import { rankRouting } from "../../../core/layout/routing.ts";
import { createOracleBackend } from "../../../core/oracle/index.ts";
import { tensor } from "../../../core/tensor.ts";

const SHAPE = { numRanks: 2, ranksPerNode: 2, numExperts: 4 };
const LAWS = [
  "rows sent = rows received",
  "each chosen (token, slot) arrives once, or is cut",
  "each expert's count = the bincount of the ids",
];

// Experts 0, 1 on rank 0 and 2, 3 on rank 1.
const topkIdx = [tensor("i32", [2, 2], Int32Array.of(0, 2, 1, 0)), tensor("i32", [1, 2], Int32Array.of(3, -1))];
const routings = topkIdx.map((ids, rank) => rankRouting(rank, ids, null, SHAPE.numExperts));

// Rank 0 sends its token 0 to both ranks and its token 1 to itself, rank 1 its token to itself.
const uncut = { numCutPerExpert: [0, 0], numCut: 0 };
const right: RankTally[] = [
  { rank: 0, numSent: 3, numReceived: 2, numTokensPerExpert: [2, 1], ...uncut },
  { rank: 1, numSent: 1, numReceived: 2, numTokensPerExpert: [1, 1], ...uncut },
];

const broken = (first: Partial<RankTally>) =>
  conservationOf([{ ...right[0], ...first }, right[1]], routings, SHAPE)
    .filter(({ ok }) => !ok)
    .map(({ law, expected, received, first }) => [law, expected, received, ...(first ? [first] : [])]);

describe("conservation over a group, by hand", () => {
  test("the tallies of a handle", async () => {
    const group = await createOracleBackend().createGroup({ numRanks: 2 });
    const x = topkIdx.map(({ shape }) => tensor("bf16", [shape[0], 8]));
    const routing = { topkIdx, topkWeights: null };
    const settings = { numExperts: 4, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null };
    const { handle } = await group.dispatch({ kind: "fused", x, scales: null, routing, settings });
    expect(tally(await handle.data())).toEqual(right);
  });

  test("all laws hold", () => {
    expect(conservationOf(right, routings, SHAPE)).toEqual([
      { law: LAWS[0], ok: true, expected: 4, received: 4 },
      { law: LAWS[1], ok: true, expected: 5, received: 5 },
      { law: LAWS[2], ok: true, expected: 5, received: 5 },
    ]);
  });

  test("a row that got lost", () => expect(broken({ numReceived: 1 })).toEqual([[LAWS[0], 4, 3]]));

  test("a slot that came to another expert of its rank", () => {
    expect(broken({ numTokensPerExpert: [1, 2] })).toEqual([
      [LAWS[2], 5, 5, { where: "expert 0 on rank 0", expected: 2, received: 1 }],
    ]);
  });

  test("a slot that never came", () => {
    expect(broken({ numTokensPerExpert: [1, 1] })).toEqual([
      [LAWS[1], 5, 4],
      [LAWS[2], 5, 4, { where: "expert 0 on rank 0", expected: 2, received: 1 }],
    ]);
  });

  test("a slot that was cut is accounted for", () => {
    expect(broken({ numTokensPerExpert: [1, 1], numCutPerExpert: [1, 0], numCut: 1 })).toEqual([]);
  });

  test("a slot that was cut and came all the same", () => {
    expect(broken({ numCutPerExpert: [1, 0], numCut: 1 })).toEqual([
      [LAWS[1], 5, 6],
      [LAWS[2], 5, 6, { where: "expert 0 on rank 0", expected: 2, received: 3 }],
    ]);
  });
});
