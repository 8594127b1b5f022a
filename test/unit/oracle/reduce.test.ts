/** The one order of sums (design 2.4, 2.5), with numbers for which every other order or rounding gives something else. */
import { describe, expect, test } from "vitest";
import { bf16FromNumber, bf16ToNumber } from "../../../core/dtype/bf16.ts";
import type { HandleKind } from "../../../core/handle/handle.ts";
import { createOracleBackend } from "../../../core/oracle/group.ts";
import { type Tensor, tensor } from "../../../core/tensor.ts";

/** One token on rank 0 that goes to `experts`; `rows[d]` are the values that come back from rank d, in expert order. */
async function combine(
  kind: HandleKind,
  [numRanks, ranksPerNode, numExperts]: [number, number, number],
  experts: number[],
  rows: number[][],
  bias: number[] = [],
): Promise<number> {
  const group = await createOracleBackend().createGroup({ numRanks, ranksPerNode });
  const empty = (dtype: "bf16" | "i32", width: number) => tensor(dtype, [0, width]) as Tensor;
  const others = Array.from({ length: numRanks - 1 }, () => null);
  const { handle } = await group.dispatch({
    kind,
    x: [tensor("bf16", [1, 1]), ...others.map(() => empty("bf16", 1))],
    scales: null,
    routing: {
      topkIdx: [
        tensor("i32", [1, experts.length], Int32Array.from(experts)),
        ...others.map(() => empty("i32", experts.length)),
      ],
      topkWeights: null,
    },
    settings: { numExperts, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null },
  });
  const codes = (values: number[]) => Uint16Array.from(values, bf16FromNumber);
  const x = rows.map((values) => tensor("bf16", [values.length, 1], codes(values)));
  const biases = bias.map((value) => [tensor("bf16", [1, 1], codes([value])), ...others.map(() => empty("bf16", 1))]);
  const result = await group.combine({ handle, x, topkWeights: null, probs: null, bias: biases });
  return bf16ToNumber((result.x[0] as Tensor).data[0] as number);
}

// bf16 has 8 bits of mantissa: 256 + 1 is a tie that falls back to 256, 256 + 2 is exact, 257 + 2 = 259 rounds to 260.
describe("fused, one node: rows in ascending rank order, in float32, rounded once", () => {
  test("256 + 1 + 1 = 258: float32 between the terms", async () => {
    expect(await combine("fused", [3, 3, 3], [2, 0, 1], [[256], [1], [1]])).toBe(258);
  });

  test("the order is the ranks', not the slots'", async () => {
    // (2^30 - 2^30) + 1 = 1; any order that adds 1 to 2^30 first loses it.
    const rows = [[2 ** 30], [-(2 ** 30)], [1]];
    for (const experts of [
      [0, 1, 2],
      [2, 0, 1],
      [1, 2, 0],
    ]) {
      expect(await combine("fused", [3, 3, 3], experts, rows)).toBe(1);
    }
    expect(await combine("fused", [3, 3, 3], [0, 1, 2], [[1], [2 ** 30], [-(2 ** 30)]])).toBe(0);
  });

  test("biases come first: (b0 + b1) + rows", async () => {
    expect(await combine("fused", [1, 1, 1], [0], [[1]], [2 ** 30, -(2 ** 30)])).toBe(1);
    expect(await combine("fused", [2, 2, 2], [0, 1], [[2 ** 30], [-(2 ** 30)]], [1])).toBe(0);
    expect(await combine("fused", [2, 2, 2], [-1], [[], []], [3, 4])).toBe(7);
  });
});

describe("fused, more nodes: each node is summed and rounded, then the nodes ascending", () => {
  test("256 | 1 + 1 + 1: a node's row is 3, the total 259 -> 260", async () => {
    expect(await combine("fused", [4, 2, 4], [0, 1, 2, 3], [[256], [0], [1], [2]])).toBe(260);
  });

  test("(256 + 1) | 2: the node's row rounds to 256, so 258; flat it is 259 -> 260", async () => {
    const rows = [[256], [1], [2], [0]];
    expect(await combine("fused", [4, 2, 4], [0, 1, 2, 3], rows)).toBe(258);
    expect(await combine("fused", [4, 4, 4], [0, 1, 2, 3], rows)).toBe(260);
  });

  test("a bias is added to the first node's row, not inside the node", async () => {
    // (bias 2) + round(256 + 1) = 258; inside the node it would be 259 -> 260.
    expect(await combine("fused", [4, 2, 4], [0, 1], [[256], [1], [], []], [2])).toBe(258);
  });

  test("one rank per node: every row is a node's row", async () => {
    expect(await combine("fused", [3, 1, 3], [0, 1, 2], [[256], [1], [2]])).toBe(260);
  });
});

describe("hybrid-ep: a rank's rows are summed ascending by expert and rounded before they cross", () => {
  test("rank 0: 256 + 1 -> 256; rank 1: 2; total 258, not 260", async () => {
    expect(await combine("hybrid-ep", [2, 2, 4], [2, 1, 0], [[256, 1], [2]])).toBe(258);
  });

  test("three experts of one rank are one sum with one rounding", async () => {
    expect(await combine("hybrid-ep", [1, 1, 3], [2, 1, 0], [[256, 1, 1]])).toBe(258);
  });

  test("ascending by expert", async () => {
    expect(await combine("hybrid-ep", [1, 1, 3], [0, 1, 2], [[2 ** 30, -(2 ** 30), 1]])).toBe(1);
    expect(await combine("hybrid-ep", [1, 1, 3], [2, 1, 0], [[1, 2 ** 30, -(2 ** 30)]])).toBe(0);
  });

  test("two nodes: rank, then node, then total, each rounded", async () => {
    // Node 0: rank 0 = round(256 + 1) = 256, rank 1 = 2: round(258) = 258. Node 1: 1. Total 259 -> 260.
    expect(await combine("hybrid-ep", [4, 2, 8], [0, 1, 2, 4], [[256, 1], [2], [1], []])).toBe(260);
  });
});

test("a token that went nowhere is +0", async () => {
  const zero = await combine("fused", [2, 2, 2], [-1], [[], []]);
  expect(Object.is(zero, 0)).toBe(true);
});
