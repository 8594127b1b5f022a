import { describe, expect, test } from "vitest";
import { InvalidArgument } from "../../../core/errors.ts";
import { maxTopk, toIndexForm, toMultihotForm } from "../../../core/layout/multihot.ts";
import { checkShape, rankRouting } from "../../../core/layout/routing.ts";
import { type Tensor, tensor } from "../../../core/tensor.ts";

function refusal(run: () => unknown): InvalidArgument {
  try {
    run();
  } catch (error) {
    if (error instanceof InvalidArgument) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

const ids32 = (shape: number[], values: number[]): Tensor => tensor("i32", shape, Int32Array.from(values));
const ids64 = (shape: number[], values: bigint[]): Tensor => tensor("i64", shape, BigInt64Array.from(values));

describe("rankRouting refuses, naming rank, token, slot and value", () => {
  test.each([
    ["expert id E", ids32([2, 2], [0, 1, 2, 8]), "8", { rank: 5, token: 1, slot: 1 }],
    ["expert id -2", ids32([2, 2], [0, -2, 2, 3]), "-2", { rank: 5, token: 0, slot: 1 }],
    ["an id beyond 32 bits", ids64([1, 2], [1n, 1n + (1n << 32n)]), "4294967297", { rank: 5, token: 0, slot: 1 }],
    ["a negative id beyond 32 bits", ids64([1, 1], [-(1n << 40n)]), `${-(1n << 40n)}`, { rank: 5, token: 0, slot: 0 }],
    ["int64 -2", ids64([1, 1], [-2n]), "-2", { rank: 5, token: 0, slot: 0 }],
    [
      "the same expert twice",
      ids32([2, 3], [0, 1, 2, 3, -1, 3]),
      "expert 3 a second time",
      { rank: 5, token: 1, slot: 2 },
    ],
  ])("%s", (_, ids, received, where) => {
    const error = refusal(() => rankRouting(5, ids, null, 8));
    expect(error.code).toBe("INVALID_ARGUMENT");
    expect(error.problem).toMatchObject({ name: "topkIdx", received, where });
    expect(error.message).toContain(`at rank 5, token ${where.token}, slot ${where.slot}`);
    expect(error.message).not.toContain("\n");
  });

  test("the range is named for 32-bit and 64-bit ids alike", () => {
    for (const ids of [ids32([1, 1], [99]), ids64([1, 1], [1n << 35n])]) {
      expect(refusal(() => rankRouting(0, ids, null, 8)).problem?.expected).toBe("-1..7");
    }
  });

  test.each<[string, Tensor, Tensor | null, string]>([
    ["float ids", tensor("fp32", [1, 2]), null, "fp32 [1, 2]"],
    ["one dimension", ids32([2], [0, 1]), null, "i32 [2]"],
    ["topk 0", tensor("i32", [4, 0]), null, "0"],
    ["topk above E", ids32([1, 9], [0, 1, 2, 3, 4, 5, 6, 7, -1]), null, "9"],
    ["weights of another shape", ids32([1, 2], [0, 1]), tensor("fp32", [2, 1]), "[2, 1]"],
    ["weights of another dtype", ids32([1, 2], [0, 1]), tensor("bf16", [1, 2]), "bf16 [1, 2]"],
  ])("%s", (_, ids, weights, received) => {
    expect(refusal(() => rankRouting(2, ids, weights, 8)).problem).toMatchObject({ received, where: { rank: 2 } });
  });

  test("-1 anywhere, any order, NaN weights and topk = E are fine", () => {
    const weights = tensor("fp32", [2, 4], new Float32Array(8).fill(Number.NaN));
    const routing = rankRouting(0, ids64([2, 4], [-1n, 3n, -1n, 0n, 3n, 2n, 1n, 0n]), weights, 4);
    expect([...routing.topkIdx]).toEqual([-1, 3, -1, 0, 3, 2, 1, 0]);
  });
});

describe("checkShape", () => {
  test.each([
    [{ numRanks: 0, ranksPerNode: 1, numExperts: 8 }, "numRanks"],
    [{ numRanks: 2.5, ranksPerNode: 1, numExperts: 8 }, "numRanks"],
    [{ numRanks: 4, ranksPerNode: 3, numExperts: 8 }, "ranksPerNode"],
    [{ numRanks: 4, ranksPerNode: 8, numExperts: 8 }, "ranksPerNode"],
    [{ numRanks: 4, ranksPerNode: 4, numExperts: 0 }, "numExperts"],
    [{ numRanks: 512, ranksPerNode: 8, numExperts: 256 }, "numExperts"],
    [{ numRanks: 3, ranksPerNode: 3, numExperts: Number.NaN }, "numExperts"],
  ])("%o is refused by %s", (shape, name) => {
    expect(refusal(() => checkShape(shape)).problem?.name).toBe(name);
  });

  test("the remedy names the nearest legal number of experts", () => {
    const error = refusal(() => checkShape({ numRanks: 512, ranksPerNode: 8, numExperts: 256 }));
    expect(error.message).toContain("multiple of numRanks 512, received 256");
    expect(error.message).toContain("use 512 experts");
  });

  test.each([1, 7, 160, 2048])("%i ranks are fine", (numRanks) => {
    expect(() => checkShape({ numRanks, ranksPerNode: numRanks, numExperts: numRanks * 3 })).not.toThrow();
  });
});

describe("index form and multihot form", () => {
  const map = tensor("bool", [3, 4], Uint8Array.of(0, 1, 0, 1, 0, 0, 0, 0, 1, 1, 1, 0));
  const probs = tensor(
    "fp32",
    [3, 4],
    Float32Array.from({ length: 12 }, (_, i) => i / 2),
  );

  test("multihot to index: ids ascend, -1 fills, weights follow", () => {
    expect(maxTopk(map)).toBe(3);
    const { topkIdx, topkWeights } = toIndexForm(0, map, probs, 3);
    expect([...topkIdx.data]).toEqual([1, 3, -1, -1, -1, -1, 0, 1, 2]);
    expect([...(topkWeights?.data ?? [])]).toEqual([0.5, 1.5, 0, 0, 0, 0, 4, 4.5, 5]);
  });

  test("back again: the chosen probs, 0 elsewhere", () => {
    const { topkIdx, topkWeights } = toIndexForm(0, map, probs, 3);
    const back = toMultihotForm(topkIdx, topkWeights, 4);
    expect([...back.routingMap.data]).toEqual([...map.data]);
    expect([...back.probs.data]).toEqual([...probs.data].map((value, i) => (map.data[i] ? value : 0)));
  });

  test("NaN weights keep their bits both ways", () => {
    const odd = tensor("fp32", [1, 2]);
    new Uint32Array(odd.data.buffer).set([0x7f800001, 0xffabcdef]);
    const form = toIndexForm(0, tensor("bool", [1, 2], Uint8Array.of(1, 1)), odd, 2);
    const back = toMultihotForm(form.topkIdx, form.topkWeights, 2);
    expect([...new Uint32Array(back.probs.data.buffer)]).toEqual([0x7f800001, 0xffabcdef]);
  });

  test("an empty map has topk 1", () => expect(maxTopk(tensor("bool", [0, 4]))).toBe(1));

  test("a token with more experts than topk is refused, not written over its neighbour", () => {
    const error = refusal(() => toIndexForm(6, map, null, 2));
    expect(error.problem).toMatchObject({ name: "routingMap", where: { rank: 6, token: 2 } });
  });

  test("an id out of range is refused", () => {
    expect(refusal(() => toMultihotForm(ids32([1, 2], [0, 4]), null, 4)).problem).toMatchObject({
      received: "4",
      where: { token: 0, slot: 1 },
    });
  });
});
