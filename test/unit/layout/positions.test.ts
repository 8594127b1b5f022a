import { describe, expect, test } from "vitest";
import { InvalidArgument } from "../../../core/errors.ts";
import { checkHandleData } from "../../../core/handle/check.ts";
import type { HandleData } from "../../../core/handle/handle.ts";
import { fusedHandle, hybridEpHandle } from "../../../core/layout/positions.ts";
import { rankRouting } from "../../../core/layout/routing.ts";
import { tensor } from "../../../core/tensor.ts";

// Two ranks, experts 0,1 on rank 0 and 2,3 on rank 1.
const SHAPE = { numRanks: 2, ranksPerNode: 2, numExperts: 4 };
const ROUTING = [
  [
    [3, 0],
    [1, 0],
    [-1, -1],
  ],
  [
    [2, 3],
    [-1, 1],
  ],
];

const routings = (ranks: number[][][], numExperts: number) =>
  ranks.map((rows, rank) => {
    const ids = tensor("i32", [rows.length, rows[0]?.length ?? 1], Int32Array.from(rows.flat()));
    return rankRouting(rank, ids, null, numExperts);
  });

const lists = (data: HandleData, rank: number) => ({
  sendRank: [...data.ranks[rank].sendRank],
  sendRow: [...data.ranks[rank].sendRow],
});
const rows = (data: HandleData, rank: number) =>
  Array.from(data.ranks[rank].rowSrcRank, (src, row) => [src, data.ranks[rank].rowSrcToken[row]]);

describe("fusedHandle, by hand", () => {
  const fused = (numWorstTokens = 0, expertAlignment = 1) =>
    fusedHandle(routings(ROUTING, 4), SHAPE, { expertAlignment, numWorstTokens });

  test("one row per (token, destination), by (source rank, source token); entries ascend by rank, then -1", () => {
    const data = fused();
    expect(rows(data, 0)).toEqual([
      [0, 0],
      [0, 1],
      [1, 1],
    ]);
    expect(rows(data, 1)).toEqual([
      [0, 0],
      [1, 0],
    ]);
    expect(lists(data, 0)).toEqual({ sendRank: [0, 1, 0, -1, -1, -1], sendRow: [0, 0, 1, -1, -1, -1] });
    expect(lists(data, 1)).toEqual({ sendRank: [1, -1, 0, -1], sendRow: [1, -1, 2, -1] });
    expect(data.ranks.map((rank) => [...rank.tokensPerExpert])).toEqual([
      [2, 2],
      [1, 2],
    ]);
    expect(data.ranks.map((rank) => rank.overflow.flag)).toEqual([false, false]);
  });

  test("expertAlignment rounds the counts only", () => {
    const data = fused(0, 4);
    expect(data.ranks.map((rank) => [...rank.tokensPerExpert])).toEqual([
      [4, 4],
      [4, 4],
    ]);
    expect(data.ranks.map((rank) => [...rank.numTokensPerExpert])).toEqual([
      [2, 2],
      [1, 2],
    ]);
    expect(data.ranks.map((rank) => rank.numRows)).toEqual([3, 2]);
  });

  test("numWorstTokens: a tail of -1, no counts, and what does not fit is cut and named", () => {
    const data = fused(2);
    expect(rows(data, 0)).toEqual([
      [0, 0],
      [0, 1],
    ]);
    expect(rows(data, 1)).toEqual([
      [0, 0],
      [1, 0],
    ]);
    expect(lists(data, 1)).toEqual({ sendRank: [1, -1, -1, -1], sendRow: [1, -1, -1, -1] });
    expect(data.ranks[0].overflow).toEqual({ flag: true, numCut: 1, cut: Int32Array.of(1, 1, 1, 1) });
    expect(data.ranks[1].overflow.flag).toBe(false);
    expect(data.ranks.map((rank) => rank.tokensPerExpert.length)).toEqual([0, 0]);
    expect(data.ranks.map((rank) => [...rank.numTokensPerExpert])).toEqual([
      [2, 1],
      [1, 2],
    ]);
    expect(rows(fused(4), 0)).toEqual([
      [0, 0],
      [0, 1],
      [1, 1],
      [-1, -1],
    ]);
  });
});

describe("hybridEpHandle, by hand", () => {
  const hybrid = (padMultiple = 1, numPermutedTokens: number | null = null) =>
    hybridEpHandle(routings(ROUTING, 4), SHAPE, { padMultiple, numPermutedTokens });

  test("expert-major rows by (source rank, source token); entries ascend by expert", () => {
    const data = hybrid();
    // rank 0: expert 0 = (0,0) (0,1); expert 1 = (0,1) (1,1). rank 1: expert 2 = (1,0); expert 3 = (0,0) (1,0).
    expect(rows(data, 0)).toEqual([
      [0, 0],
      [0, 1],
      [0, 1],
      [1, 1],
    ]);
    expect(rows(data, 1)).toEqual([
      [1, 0],
      [0, 0],
      [1, 0],
    ]);
    expect(lists(data, 0)).toEqual({ sendRank: [0, 1, 0, 0, -1, -1], sendRow: [0, 1, 1, 2, -1, -1] });
    expect([...(data.ranks[0].sendExpert ?? [])]).toEqual([0, 3, 0, 1, -1, -1]);
    expect([...(data.ranks[0].sendSlot ?? [])]).toEqual([1, 0, 1, 0, -1, -1]);
    expect(lists(data, 1)).toEqual({ sendRank: [1, 1, 0, -1], sendRow: [0, 2, 3, -1] });
  });

  test("blocks are padded, an expert without tokens gets no row", () => {
    const data = hybridEpHandle(
      routings([[[0], [0], [0], [3]]], 4),
      { numRanks: 1, ranksPerNode: 1, numExperts: 4 },
      {
        padMultiple: 2,
        numPermutedTokens: null,
      },
    );
    expect([...data.ranks[0].tokensPerExpert]).toEqual([4, 0, 0, 2]);
    expect([...data.ranks[0].numTokensPerExpert]).toEqual([3, 0, 0, 1]);
    expect([...data.ranks[0].rowSrcToken]).toEqual([0, 1, 2, -1, 3, -1]);
  });

  test("padMultiple 0 and 1 mean none", () => {
    expect(hybrid(0)).toEqual(hybrid(1));
  });

  test("a budget cuts by position, padding included; counts are trimmed, then padded again", () => {
    // Padded to 2 on rank 0: expert 0 rows 0,1; expert 1 rows 2,3. On rank 1: expert 2 rows 0,1; expert 3 rows 2,3.
    const data = hybrid(2, 2);
    expect(data.ranks.map((rank) => rank.numRows)).toEqual([2, 2]);
    expect(rows(data, 0)).toEqual([
      [0, 0],
      [0, 1],
    ]);
    expect(rows(data, 1)).toEqual([
      [1, 0],
      [-1, -1],
    ]);
    expect(data.ranks.map((rank) => [...rank.tokensPerExpert])).toEqual([
      [2, 0],
      [2, 0],
    ]);
    expect(data.ranks.map((rank) => [...rank.numTokensPerExpert])).toEqual([
      [2, 0],
      [1, 0],
    ]);
    expect([...data.ranks[0].overflow.cut]).toEqual([0, 1, 0, 1, 1, 1, 1, 1]);
    expect([...data.ranks[1].overflow.cut]).toEqual([0, 0, 0, 3, 1, 0, 1, 3]);
  });

  test("a budget of 0 cuts everything; a large one leaves a tail", () => {
    expect(hybrid(1, 0).ranks.map((rank) => [rank.numRows, rank.overflow.numCut])).toEqual([
      [0, 4],
      [0, 3],
    ]);
    expect(rows(hybrid(1, 5), 1)).toEqual([
      [1, 0],
      [0, 0],
      [1, 0],
      [-1, -1],
      [-1, -1],
    ]);
  });

  test("padding beyond 32-bit row positions is refused before anything is allocated", () => {
    expect(() => hybrid(2 ** 31 - 1)).toThrow(InvalidArgument);
  });
});

describe("any sizes", () => {
  test.each([
    [1, 1, 1],
    [1, 22, 64],
    [3, 22, 66],
    [5, 7, 10],
    [64, 8, 64],
    [2048, 2, 2048],
  ])("%i ranks, top-%i of %i: the invariants hold", (numRanks, topk, numExperts) => {
    let state = 1;
    const next = (below: number) => {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
      return (state >>> 8) % below;
    };
    const ranks = Array.from({ length: numRanks }, (_, rank) =>
      Array.from({ length: rank % 4 }, () => {
        const chosen = new Set<number>();
        while (chosen.size < topk) chosen.add(next(numExperts));
        return [...chosen].map((expert) => (next(5) === 0 ? -1 : expert));
      }),
    );
    const routed = ranks.map((tokens, rank) =>
      rankRouting(rank, tensor("i32", [tokens.length, topk], Int32Array.from(tokens.flat())), null, numExperts),
    );
    const shape = { numRanks, ranksPerNode: 1, numExperts };
    for (const budget of [0, 3]) {
      checkHandleData(fusedHandle(routed, shape, { expertAlignment: 1, numWorstTokens: budget }));
      checkHandleData(hybridEpHandle(routed, shape, { padMultiple: 3, numPermutedTokens: budget || null }));
    }
  });
});
