import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createWebGpuBackend, type WebGpuBackend } from "../../backends/webgpu/index.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import { compareBackends, expectSameTensors } from "./compare.ts";
import { randomNumbers, randomRouting, randomRows, randomShape } from "./samples.ts";

const oracle = createOracleBackend();
const uncaught: string[] = [];
let backend: WebGpuBackend;

beforeAll(async () => {
  backend = await createWebGpuBackend({ onUncapturedError: (message) => uncaught.push(message) });
});
afterAll(async () => {
  await backend.close();
  expect(uncaught).toEqual([]);
});

describe("webgpu equals the oracle bit for bit over random bits", () => {
  for (let seed = 1; seed <= 12; seed++) {
    it(`fused, seed ${seed}`, () => compareBackends(seed, backend, oracle, "fused"));
    it(`hybrid-ep, seed ${seed}`, () => compareBackends(seed + 1000, backend, oracle, "hybrid-ep"));
  }
});

describe("layout", () => {
  for (let seed = 1; seed <= 5; seed++) {
    it(`counts as the oracle, seed ${seed}`, async () => {
      const random = randomNumbers(seed);
      const shape = randomShape(random);
      const routing = randomRouting(random, shape, "i32");
      const received = await (await backend.createGroup(shape)).layout(routing, shape.numExperts);
      const expected = await (await oracle.createGroup(shape)).layout(routing, shape.numExperts);
      const plain = (layouts: typeof received) =>
        layouts.map((rank) => ({ ...rank, isTokenInRank: rank.isTokenInRank() }));
      expect(plain(received)).toEqual(plain(expected));
    });
  }
});

describe("casts and scaleRows", () => {
  for (const dtype of ["bf16", "fp16", "fp32"] as const) {
    it.each([1, 5, 127, 129, 300])(`${dtype} [9, %i]`, async (hidden) => {
      const random = randomNumbers(hidden);
      const x = Array.from({ length: 6 }, () => randomRows(random, dtype, [9, hidden]));
      const shape = { numRanks: 6 };
      const group = await backend.createGroup(shape);
      const reference = await oracle.createGroup(shape);
      const cast = await group.castToFp8(x);
      const expected = await reference.castToFp8(x);
      expectSameTensors("scales", cast.scales, expected.scales);
      expectSameTensors("fp8", cast.x, expected.x);
      const codes = x.map(() => randomRows(random, "fp8e4m3", [9, hidden]));
      const scales = x.map(() => randomRows(random, "fp32", [9, Math.ceil(hidden / 128)]));
      expectSameTensors("back", await group.castBack(codes, scales), await reference.castBack(codes, scales));
      const factors = x.map(() => randomRows(random, "fp32", [9]));
      expectSameTensors("scaled", await group.scaleRows(x, factors), await reference.scaleRows(x, factors));
    });
  }
});
