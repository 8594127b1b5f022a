import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InvalidArgument } from "../../../core/errors.ts";
import { checkHandleData } from "../../../core/handle/check.ts";
import type { HandleData, HandleMeta, RankHandle } from "../../../core/handle/handle.ts";
import { type ArrayName, type HandleCase, handleCase, makeHandle, withArray } from "./handles.ts";

const CASE: HandleCase = {
  numRanks: 2,
  ranksPerNode: 2,
  numExperts: 4,
  topkIdx: [
    [
      [3, 0],
      [1, 0],
      [-1, -1],
    ],
    [
      [2, 3],
      [-1, 1],
    ],
  ],
  budget: 0,
  multiple: 1,
};

function refusal(data: HandleData): InvalidArgument {
  try {
    checkHandleData(data);
  } catch (error) {
    if (error instanceof InvalidArgument) return error;
    throw error;
  }
  throw new Error("the handle was accepted");
}

const withMeta = (data: HandleData, change: Partial<HandleMeta>): HandleData => ({
  ...data,
  meta: { ...data.meta, ...change },
});
const withRank = (data: HandleData, rank: number, change: Partial<RankHandle>): HandleData => ({
  ...data,
  ranks: data.ranks.map((one) => (one.rank === rank ? { ...one, ...change } : one)),
});

const KINDS = ["fused", "hybrid-ep"] as const;
/** Arrays every element of which follows from the others; sendSlot alone carries information of its own. */
const ARRAYS: Record<(typeof KINDS)[number], ArrayName[]> = {
  fused: ["sendRank", "sendRow", "rowSrcRank", "rowSrcToken"],
  "hybrid-ep": [
    "sendRank",
    "sendRow",
    "sendExpert",
    "rowSrcRank",
    "rowSrcToken",
    "numTokensPerExpert",
    "tokensPerExpert",
  ],
};

describe.each(KINDS)("%s handles", (kind) => {
  const base = makeHandle(kind, CASE);

  test("those of any routing pass", () => {
    fc.assert(
      fc.property(handleCase, (c) => checkHandleData(makeHandle(kind, c))),
      { seed: 1, numRuns: 300 },
    );
  });

  test("any change of any element of an array is refused", () => {
    fc.assert(
      fc.property(
        handleCase,
        fc.constantFrom(...ARRAYS[kind]),
        fc.nat(),
        fc.nat(),
        fc.oneof(fc.integer({ min: -3, max: 8 }), fc.constantFrom(2 ** 31 - 1, -(2 ** 31))),
        (c, name, rankPick, indexPick, value) => {
          const data = makeHandle(kind, c);
          const rank = data.ranks[rankPick % data.ranks.length];
          const array = rank[name];
          if (array === null || array.length === 0) return;
          const index = indexPick % array.length;
          if (array[index] === value) return;
          const changed = array.slice();
          changed[index] = value;
          const error = refusal(withArray(data, rank.rank, name, changed));
          expect(error.problem?.where?.rank).toBeTypeOf("number");
        },
      ),
      { seed: 2, numRuns: 1500 },
    );
  });

  test("two elements that trade places are refused", () => {
    fc.assert(
      fc.property(handleCase, fc.constantFrom(...ARRAYS[kind]), fc.nat(), fc.nat(), fc.nat(), (c, name, r, a, b) => {
        const data = makeHandle(kind, c);
        const rank = data.ranks[r % data.ranks.length];
        const array = rank[name];
        if (array === null || array.length === 0) return;
        const [i, j] = [a % array.length, b % array.length];
        if (array[i] === array[j]) return;
        const changed = array.slice();
        [changed[i], changed[j]] = [array[j], array[i]];
        refusal(withArray(data, rank.rank, name, changed));
      }),
      { seed: 3, numRuns: 1000 },
    );
  });

  test("an array that is longer, shorter, missing or too many is refused", () => {
    for (const name of ARRAYS[kind]) {
      const array = base.ranks[0][name] as Int32Array;
      for (const length of [0, array.length - 1, array.length + 1]) {
        refusal(withArray(base, 0, name, new Int32Array(length)));
      }
    }
    refusal(withRank(base, 0, kind === "fused" ? { sendSlot: new Int32Array(6) } : { sendSlot: null }));
  });

  test.each<[string, Partial<HandleMeta>]>([
    ["numRanks", { numRanks: 4 }],
    ["numRanks", { numRanks: 0 }],
    ["numExperts", { numExperts: 6 }],
    ["numExperts", { numExperts: 2 ** 60 }],
    ["ranksPerNode", { ranksPerNode: 3 }],
    ["topk", { topk: 1 }],
    ["topk", { topk: 0 }],
    ["topk", { topk: 5 }],
    ["expertAlignment", { expertAlignment: 0 }],
    ["expertAlignment", { expertAlignment: 4 }],
    ["numWorstTokens", { numWorstTokens: -1 }],
    ["numWorstTokens", { numWorstTokens: 7 }],
    ["padMultiple", { padMultiple: 4 }],
    ["numPermutedTokens", { numPermutedTokens: 2 }],
    ["numPermutedTokens", { numPermutedTokens: -4 }],
    ["localRanks", { localRanks: [1, 0] }],
    ["localRanks", { localRanks: [0] }],
    ["kind", { kind: kind === "fused" ? "hybrid-ep" : "fused" }],
    ["kind", { kind: "other" as "fused" }],
  ])("wrong settings are refused: %s %o", (_, change) => {
    expect(refusal(withMeta(base, change)).code).toBe("INVALID_ARGUMENT");
  });

  test.each<[string, Partial<RankHandle>]>([
    ["numTokens", { numTokens: 4 }],
    ["both negative, with a product that fits", { numTokens: -3, numEntries: -2 }],
    ["numEntries and numTokens traded", { numTokens: 2, numEntries: 3 }],
    ["numRows", { numRows: 1 }],
    ["numRows", { numRows: Number.NaN }],
    ["overflow without a budget", { overflow: { flag: true, numCut: 1, cut: Int32Array.of(0, 0, 0, 0) } }],
    ["a flag without a cut", { overflow: { flag: true, numCut: 0, cut: new Int32Array(0) } }],
    ["a foreign rank", { rank: 7 }],
  ])("wrong sizes are refused: %s", (_, change) => {
    refusal(withRank(base, 0, change));
  });

  test.each([
    ["source", [9, 0, 0, 0]],
    ["token", [0, 99, 0, 0]],
    ["slot", [0, 0, 9, 0]],
    ["expert of another rank", [0, 0, 0, 3]],
    ["negative", [0, -1, 0, 0]],
  ])("a cut slot that cannot be is refused: %s", (_, cut) => {
    const data = makeHandle(kind, { ...CASE, budget: 2 });
    checkHandleData(data);
    refusal(withRank(data, 0, { overflow: { flag: true, numCut: 1, cut: Int32Array.from(cut) } }));
  });
});

test("a tail row that names a token which is not sent there is refused", () => {
  const data = makeHandle("fused", { ...CASE, budget: 4 });
  checkHandleData(data);
  // Rank 1's token 1 goes to rank 0 only; as a third row of rank 1 it would even be in order.
  const [rowSrcRank, rowSrcToken] = [data.ranks[1].rowSrcRank.slice(), data.ranks[1].rowSrcToken.slice()];
  rowSrcRank[2] = 1;
  rowSrcToken[2] = 1;
  expect(refusal(withRank(data, 1, { rowSrcRank, rowSrcToken })).message).toBe(
    "handle.row_src_token: expected a token that is sent to row 2, received token 1 at rank 1, row 2; use the handle tensors of one dispatch, unchanged",
  );
});

test("cut slots out of order are refused", () => {
  const data = makeHandle("hybrid-ep", { ...CASE, budget: 1 });
  const { cut, numCut } = data.ranks[1].overflow;
  expect([...cut]).toEqual([0, 0, 0, 3, 1, 0, 1, 3]);
  const swapped = Int32Array.of(...cut.subarray(4), ...cut.subarray(0, 4));
  refusal(withRank(data, 1, { overflow: { flag: true, numCut, cut: swapped } }));
});

test("a row budget that is no multiple of the padding is refused", () => {
  const data = makeHandle("hybrid-ep", { ...CASE, budget: 8, multiple: 2 });
  checkHandleData(data);
  const shorter = (values: Int32Array) => values.slice(0, 7);
  const ranks = data.ranks.map((rank) => ({
    ...rank,
    numRows: 7,
    rowSrcRank: shorter(rank.rowSrcRank),
    rowSrcToken: shorter(rank.rowSrcToken),
  }));
  expect(refusal({ meta: { ...data.meta, numPermutedTokens: 7 }, ranks }).message).toContain(
    "multiple of padMultiple 2",
  );
});

test("a slot twice in a token, or outside topk, is refused", () => {
  const data = makeHandle("hybrid-ep", CASE);
  for (const [entry, slot] of [
    [0, 0],
    [0, 2],
    [0, -1],
    [4, 0],
  ]) {
    const slots = (data.ranks[0].sendSlot as Int32Array).slice();
    slots[entry] = slot;
    refusal(withArray(data, 0, "sendSlot", slots));
  }
});

test("the message names where: rank, token and entry, or rank and row", () => {
  const data = makeHandle("fused", CASE);
  const rows = data.ranks[1].sendRow.slice();
  rows[2] = 9;
  expect(refusal(withArray(data, 1, "sendRow", rows)).message).toBe(
    "handle.send_row: expected 0..2, received 9 at rank 1, token 1, slot 0; use the handle tensors of one dispatch, unchanged",
  );
});
