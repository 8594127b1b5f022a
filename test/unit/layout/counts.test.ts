import { describe, expect, test } from "vitest";
import { rankLayout, roundUp } from "../../../core/layout/counts.ts";
import { rankRouting } from "../../../core/layout/routing.ts";
import { tensor } from "../../../core/tensor.ts";

const routing = (rows: number[][], numExperts: number, rank = 0) =>
  rankRouting(rank, tensor("i32", [rows.length, rows[0]?.length ?? 1], Int32Array.from(rows.flat())), null, numExperts);

describe("rankLayout (design 2.2), by hand", () => {
  // 8 experts on 4 ranks in 2 nodes: experts 0,1 | 2,3 || 4,5 | 6,7
  const rows = [
    [0, 1, 2], // ranks 0, 1; node 0
    [7, -1, 0], // ranks 0, 3; both nodes
    [-1, -1, -1],
    [4, 5, 6], // ranks 2, 3; node 1
  ];
  const layout = rankLayout(routing(rows, 8, 3), { numRanks: 4, ranksPerNode: 2, numExperts: 8 });

  test("a token counts once per rank, per node, and each slot once per expert", () => {
    expect(layout.rank).toBe(3);
    expect(layout.numTokens).toBe(4);
    expect([...layout.numTokensPerRank]).toEqual([2, 1, 1, 2]);
    expect([...(layout.numTokensPerNode ?? [])]).toEqual([2, 2]);
    expect([...layout.numTokensPerExpert]).toEqual([2, 1, 1, 0, 1, 1, 1, 1]);
  });

  test("isTokenInRank is [tokens, ranks]", () => {
    expect([...layout.isTokenInRank()]).toEqual([1, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1]);
  });

  test("numTokensPerNode is null on one node", () => {
    expect(rankLayout(routing(rows, 8), { numRanks: 4, ranksPerNode: 4, numExperts: 8 }).numTokensPerNode).toBeNull();
  });

  test("a rank without tokens counts nothing", () => {
    const empty = rankRouting(0, tensor("i64", [0, 3]), null, 8);
    const counts = rankLayout(empty, { numRanks: 4, ranksPerNode: 2, numExperts: 8 });
    expect([...counts.numTokensPerRank, ...counts.numTokensPerExpert]).toEqual(new Array(12).fill(0));
    expect(counts.isTokenInRank()).toHaveLength(0);
  });

  test.each([1, 2, 3, 17, 160, 2048])("%i ranks, one expert each: token t goes to expert t", (numRanks) => {
    const ids = Int32Array.from({ length: numRanks }, (_, token) => token);
    const shape = { numRanks, ranksPerNode: 1, numExperts: numRanks };
    const counts = rankLayout(rankRouting(0, tensor("i32", [numRanks, 1], ids), null, numRanks), shape);
    expect(counts.numTokensPerRank.every((count) => count === 1)).toBe(true);
    expect(counts.numTokensPerRank).toHaveLength(numRanks);
  });
});

test.each([
  [0, 8, 0],
  [1, 8, 8],
  [8, 8, 8],
  [9, 8, 16],
  [7, 0, 7],
  [7, 1, 7],
  [7, 3, 9],
])("roundUp(%i, %i) = %i", (count, multiple, want) => expect(roundUp(count, multiple)).toBe(want));
