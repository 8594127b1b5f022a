import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createWebGpuBackend, type WebGpuBackend } from "../../backends/webgpu/index.ts";
import { planRows } from "../../backends/webgpu/rows.ts";
import type { OutputChunk } from "../../core/backend.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import { bytesOf, type Tensor, tensor } from "../../core/tensor.ts";
import { compareBackends, expectSameTensors } from "./compare.ts";
import { randomNumbers, randomRouting, randomRows, type Shape } from "./samples.ts";

const oracle = createOracleBackend();
const BUDGET = 2 ** 20;
let backend: WebGpuBackend;

beforeAll(async () => {
  backend = await createWebGpuBackend({ maxBufferBytes: 4096, memoryBudgetBytes: BUDGET });
});
afterAll(() => backend.close());

describe("with buffers of 4 KiB", () => {
  for (let seed = 1; seed <= 4; seed++) {
    it(`fused equals the oracle, seed ${seed}`, () => compareBackends(seed + 50, backend, oracle, "fused"));
    it(`hybrid-ep equals the oracle, seed ${seed}`, () => compareBackends(seed + 60, backend, oracle, "hybrid-ep"));
  }

  it("rows longer than a buffer are done in blocks of columns", async () => {
    const random = randomNumbers(7);
    const shape: Shape = { numRanks: 2, ranksPerNode: 1, numExperts: 4, topk: 3, hidden: 3001, maxTokens: 3 };
    const group = await backend.createGroup(shape);
    const reference = await oracle.createGroup(shape);
    const routing = randomRouting(random, shape, "i32");
    const x = routing.topkIdx.map((ids) => randomRows(random, "fp32", [ids.shape[0], shape.hidden]));
    const settings = { numExperts: 4, expertAlignment: 1, numWorstTokens: 0, padMultiple: 2, numPermutedTokens: null };
    for (const kind of ["fused", "hybrid-ep"] as const) {
      const request = { kind, x, scales: null, routing, settings };
      const received = await group.dispatch(request);
      const expected = await reference.dispatch(request);
      expectSameTensors("x", received.x, expected.x);
      const combine = { handle: expected.handle, x: expected.x, topkWeights: null, probs: null, bias: [] };
      expectSameTensors("sum", (await group.combine(combine)).x, (await reference.combine(combine)).x);
    }
    const cast = await group.castToFp8(x);
    const expectedCast = await reference.castToFp8(x);
    expectSameTensors("fp8", cast.x, expectedCast.x);
    expectSameTensors("scales", cast.scales, expectedCast.scales);
    expectSameTensors("back", await group.castBack(cast.x, cast.scales), await reference.castBack(cast.x, cast.scales));
    const factors = x.map((value) => randomRows(random, "fp32", [value.shape[0]]));
    expectSameTensors("scaled", await group.scaleRows(x, factors), await reference.scaleRows(x, factors));
  });

  it("refuses slots of a token that are longer than a chunk, and stays usable", async () => {
    const shape: Shape = { numRanks: 1, ranksPerNode: 1, numExperts: 600, topk: 600, hidden: 8, maxTokens: 2 };
    const group = await backend.createGroup(shape);
    const x = [randomRows(randomNumbers(1), "bf16", [1, 8])];
    const topkIdx = [
      tensor(
        "i32",
        [1, 600],
        Int32Array.from({ length: 600 }, (_, i) => i),
      ),
    ];
    const settings = {
      numExperts: 600,
      expertAlignment: 1,
      numWorstTokens: 0,
      padMultiple: 1,
      numPermutedTokens: null,
    };
    const request = { x, scales: null, routing: { topkIdx, topkWeights: null }, settings };
    await expect(group.dispatch({ kind: "fused", ...request })).rejects.toThrow(/raise memoryBudgetBytes/);
    expect((await group.dispatch({ kind: "hybrid-ep", ...request })).x[0].shape).toEqual([600, 8]);
  });

  it("keeps its device memory within the budget", () => {
    expect(backend.heldBytes()).toBeGreaterThan(0);
    expect(backend.heldBytes()).toBeLessThanOrEqual(BUDGET);
  });
});

describe("tensors in shared memory", () => {
  // Dawn's Node binding crashes the process when writeBuffer is given shared memory, and the wasm backend's tensors are.
  it("give the same results", async () => {
    const shared = (value: Tensor): Tensor => {
      const bytes = new Uint8Array(new SharedArrayBuffer(value.data.byteLength));
      bytes.set(bytesOf(value));
      const Words = value.data.constructor as unknown as new (buffer: ArrayBufferLike) => Tensor["data"];
      return { ...value, data: new Words(bytes.buffer) };
    };
    const random = randomNumbers(11);
    const shape: Shape = { numRanks: 2, ranksPerNode: 2, numExperts: 4, topk: 2, hidden: 64, maxTokens: 20 };
    const whole = await createWebGpuBackend();
    const settings = { numExperts: 4, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null };
    for (const hidden of [64, 3]) {
      const routing = randomRouting(random, shape, "i32");
      const x = routing.topkIdx.map((ids) => randomRows(random, "bf16", [ids.shape[0], hidden]));
      const both = [
        { x, routing },
        {
          x: x.map(shared),
          routing: {
            topkIdx: routing.topkIdx.map((value) => shared(value as Tensor)),
            topkWeights: (routing.topkWeights ?? []).map((value) => shared(value as Tensor)),
          },
        },
      ];
      for (const backendUnderTest of [whole, backend]) {
        const group = await backendUnderTest.createGroup(shape);
        const results = [];
        for (const input of both) {
          const sent = await group.dispatch({ kind: "hybrid-ep", ...input, scales: null, settings });
          const rows = sent.x.map((value) => (input === both[0] ? (value as Tensor) : shared(value as Tensor)));
          const probs = (sent.probs ?? []).map((value) =>
            input === both[0] ? (value as Tensor) : shared(value as Tensor),
          );
          const sums = await group.combine({ handle: sent.handle, x: rows, topkWeights: null, probs, bias: [] });
          results.push([...sent.x, ...(sent.probs ?? []), ...sums.x, ...(sums.probs ?? [])]);
        }
        expectSameTensors("outputs", results[1], results[0]);
      }
    }
    await whole.close();
  });
});

describe("consume", () => {
  it("shows every row once, ascending per rank, and returns no tensors", async () => {
    const random = randomNumbers(3);
    const shape: Shape = { numRanks: 3, ranksPerNode: 3, numExperts: 6, topk: 2, hidden: 130, maxTokens: 40 };
    const group = await backend.createGroup(shape);
    const routing = randomRouting(random, shape, "i64");
    const x = routing.topkIdx.map((ids) => randomRows(random, "bf16", [ids.shape[0], shape.hidden]));
    const scales = x.map((value) => randomRows(random, "fp32", [value.shape[0], 2]));
    const settings = { numExperts: 6, expertAlignment: 1, numWorstTokens: 0, padMultiple: 4, numPermutedTokens: null };
    for (const kind of ["fused", "hybrid-ep"] as const) {
      const whole = await group.dispatch({ kind, x, scales, routing, settings });
      const seen = { x: whole.x.map(() => [] as number[]), scales: whole.x.map(() => [] as number[]) };
      const next = { x: [0, 0, 0], scales: [0, 0, 0] };
      const fractions: number[] = [];
      const consume = (chunk: OutputChunk) => {
        const name = chunk.name as "x" | "scales";
        expect(chunk.firstRow).toBe(next[name][chunk.rank]);
        next[name][chunk.rank] += chunk.numRows;
        seen[name][chunk.rank].push(...chunk.bytes);
      };
      const progress = (fraction: number) => fractions.push(fraction);
      const streamed = await group.dispatch({ kind, x, scales, routing, settings, consume, progress });
      expect(streamed.x).toEqual([]);
      expect(streamed.scales).toEqual([]);
      whole.x.forEach((value, i) => expect(Buffer.from(seen.x[i]).equals(bytesOf(value as Tensor))).toBe(true));
      whole.scales?.forEach((value, i) =>
        expect(Buffer.from(seen.scales[i]).equals(bytesOf(value as Tensor))).toBe(true),
      );
      expect(fractions.at(-1)).toBe(1);
      expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
    }
  });
});

describe("planRows", () => {
  it("packs whole rows while they fit", () => {
    expect(planRows(24, 16, 2, 640)).toEqual({
      rowBytes: 24,
      numRows: 10,
      blocks: [{ first: 0, bytes: 24, stride: 32 }],
    });
  });

  it("cuts rows that do not fit into blocks of columns", () => {
    expect(planRows(100, 16, 3, 96)).toEqual({
      rowBytes: 100,
      numRows: 1,
      blocks: [
        { first: 0, bytes: 32, stride: 32 },
        { first: 32, bytes: 32, stride: 32 },
        { first: 64, bytes: 32, stride: 32 },
        { first: 96, bytes: 4, stride: 16 },
      ],
    });
  });
});
