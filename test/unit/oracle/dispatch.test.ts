import { expect, test } from "vitest";
import { InvalidArgument } from "../../../core/errors.ts";
import { createOracleBackend } from "../../../core/oracle/group.ts";
import { type Tensor, tensor } from "../../../core/tensor.ts";

const SETTINGS = { numExperts: 2, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null };
const oracle = createOracleBackend();
const one = (dtype: "bf16" | "fp32", codes: number[]): Tensor =>
  dtype === "bf16"
    ? tensor("bf16", [1, codes.length], Uint16Array.from(codes))
    : tensor("fp32", [1, codes.length], new Float32Array(Uint32Array.from(codes).buffer));

test("rows and weights move as bytes: NaN payloads, subnormals and -0 included", async () => {
  const group = await oracle.createGroup({ numRanks: 1 });
  const x = one("bf16", [0x7f81, 0xffff, 0x0001, 0x8000]);
  const scales = one("fp32", [0x7f800001, 0x80000001]);
  const topkWeights = one("fp32", [0xffa00001, 0x80000000]);
  const topkIdx = [tensor("i32", [1, 2], Int32Array.of(1, 0))];
  const routing = { topkIdx, topkWeights: [topkWeights] };
  const fused = await group.dispatch({ kind: "fused", x: [x], scales: [scales], routing, settings: SETTINGS });
  const u32 = (value: unknown) => [...new Uint32Array((value as Tensor).data.buffer)];
  expect([...((fused.x[0] as Tensor).data as Uint16Array)]).toEqual([0x7f81, 0xffff, 0x0001, 0x8000]);
  expect(u32(fused.scales?.[0])).toEqual([0x7f800001, 0x80000001]);
  expect(u32(fused.topkWeights?.[0])).toEqual([0xffa00001, 0x80000000]);
  const hybrid = await group.dispatch({ kind: "hybrid-ep", x: [x], scales: null, routing, settings: SETTINGS });
  expect(u32(hybrid.probs?.[0])).toEqual([0x80000000, 0xffa00001]);
  // Probs come back as bits too: they are moved, not summed (docs/numerics.md).
  const bits = one("fp32", [0x7f800001, 0x80000000]);
  const probs = [tensor("fp32", [2], bits.data as Float32Array)];
  const x2 = hybrid.x;
  const back = await group.combine({ handle: hybrid.handle, x: x2, topkWeights: null, probs, bias: [] });
  expect(u32(back.probs?.[0])).toEqual([0x7f800001, 0x80000000]);
});

test("ids come back in the routing's dtype; without weights there are none", async () => {
  const group = await oracle.createGroup({ numRanks: 1 });
  for (const dtype of ["i32", "i64"] as const) {
    const topkIdx = [tensor(dtype, [1, 1])];
    const request = { kind: "fused", x: [one("bf16", [0])], scales: null, settings: SETTINGS } as const;
    const out = await group.dispatch({ ...request, routing: { topkIdx, topkWeights: null } });
    expect([out.topkIdx?.[0].dtype, out.topkWeights]).toEqual([dtype, null]);
  }
});

test("inputs are not modified", async () => {
  const group = await oracle.createGroup({ numRanks: 1 });
  const x = one("bf16", [0x7f81, 0x0001]);
  const topkIdx = [tensor("i64", [1, 2], BigInt64Array.of(1n, 0n))];
  const routing = { topkIdx, topkWeights: null };
  const { handle } = await group.dispatch({ kind: "fused", x: [x], scales: null, routing, settings: SETTINGS });
  await group.combine({ handle, x: [x], topkWeights: null, probs: null, bias: [[x]] });
  expect([...(x.data as Uint16Array)]).toEqual([0x7f81, 0x0001]);
  expect([...topkIdx[0].data]).toEqual([1n, 0n]);
});

test.each([
  [{ numRanks: 0 }, "numRanks"],
  [{ numRanks: 4, ranksPerNode: 3 }, "ranksPerNode"],
  [{ numRanks: 2, localRanks: [0] }, "localRanks"],
  [{ numRanks: 2, localRanks: [1, 0] }, "localRanks"],
  [{ numRanks: 2, localRanks: [] }, "localRanks"],
])("a group of %o is refused", async (options, name) => {
  const error = await oracle.createGroup(options).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(InvalidArgument);
  expect((error as InvalidArgument).problem?.name).toBe(name);
});

test("allocateBuffer holds exactly the bytes asked for", async () => {
  const group = await oracle.createGroup({ numRanks: 2 });
  const memory = await group.allocateBuffer(1000);
  expect(memory.bytes).toBe(1000);
  memory.free();
});
