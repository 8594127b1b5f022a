import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { findAddon } from "../../backends/cuda/loader.ts";
import type { NativeAddon } from "../../backends/cuda/native.ts";
import { OutOfMemory } from "../../core/errors.ts";
import { fusedBufferBytes, hybridEpBufferBytes } from "../../core/functions/bufferSize.ts";
import {
  cachedBuffer,
  getBuffer,
  initHybridEpBuffer,
  resetBuffer,
  resetHybridEpBuffer,
} from "../../core/functions/buffers.ts";
import { cudaBufferBytes } from "../../core/functions/cudaMemory.ts";
import { tensor } from "../../core/tensor.ts";
import { built, dataOf, expectSame, oracleDispatch, requestOf, why, withBackend, withGroup } from "./open.ts";

describe.skipIf(!built)(`communication memory${why}`, () => {
  test("getBuffer holds exactly what the calculator prints", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const { numNvlBytes, numRdmaBytes } = fusedBufferBytes(group, 7168 * 2);
      const buffer = await getBuffer(group, 7168 * 2);
      expect(buffer.memory.bytes).toBe(numNvlBytes + numRdmaBytes);
      for (const { reserved } of await group.memory()) expect(reserved).toBe(numNvlBytes + numRdmaBytes);
      expect(await getBuffer(group, 100)).toBe(buffer);
      resetBuffer();
      expect(cachedBuffer()).toBe(null);
      for (const { reserved } of await group.memory()) expect(reserved).toBe(0);
    }));

  test("initHybridEpBuffer holds exactly what the calculator prints", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const buffer = await initHybridEpBuffer(group, 64, 32, 2);
      const sizes = { numRanks: 4, ranksPerNode: 4, hiddenDim: 64, seqLen: 32, numLocalExperts: 2, fp8Dispatch: false };
      const { numNvlBytes, numRdmaBytes } = hybridEpBufferBytes(sizes);
      for (const { reserved } of await group.memory()) expect(reserved).toBe(numNvlBytes + numRdmaBytes);
      expect(buffer.memory.bytes).toBe(numNvlBytes + numRdmaBytes);
      resetHybridEpBuffer();
      for (const { reserved } of await group.memory()) expect(reserved).toBe(0);
    }));

  test("cudaBufferBytes is the library's own arithmetic", () => {
    const addon = findAddon("emulated").addon as NativeAddon;
    const shapes = fc.record({
      numTokens: fc.nat(5000),
      rowBytes: fc.nat(40_000),
      topk: fc.integer({ min: 1, max: 64 }),
      localExperts: fc.integer({ min: 1, max: 64 }),
      ranksPerNode: fc.integer({ min: 1, max: 8 }),
      numNodes: fc.integer({ min: 1, max: 4 }),
      pulledRows: fc.option(fc.nat(9000), { nil: undefined }),
      weights: fc.boolean(),
    });
    fc.assert(
      fc.property(shapes, ({ localExperts, numNodes, ...shape }) => {
        const numRanks = shape.ranksPerNode * numNodes;
        const sizes = { ...shape, numRanks, numExperts: localExperts * numRanks };
        const native = addon.bufferSize({
          ...sizes,
          numRows: sizes.pulledRows ?? 0,
          combinePath: sizes.pulledRows === undefined ? 0 : 1,
          weights: Number(sizes.weights),
        });
        expect(cudaBufferBytes(sizes)).toEqual(native);
      }),
    );
  });

  test.each([false, true])("an operation takes exactly cudaBufferBytes, once (weights: %s)", (weights) =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf({ hidden: 4096, numTokens: [20, 10, 5, 0], topk: 3 });
      const shape = { numTokens: 20, topk: 3, numExperts: 8, numRanks: 4, ranksPerNode: 4 };
      const { handle, x, topkWeights } = await group.dispatch(requestOf(data));
      const dispatch = cudaBufferBytes({ ...shape, rowBytes: 0, weights: false }).total;
      for (const { reserved } of await group.memory()) expect(reserved).toBe(dispatch);
      const request = { handle, x, topkWeights: weights ? topkWeights : null, probs: null, bias: [] };
      await group.combine(request);
      const combine = cudaBufferBytes({ ...shape, rowBytes: 8192, weights }).total;
      const before = await group.memory();
      for (const { reserved } of before) expect(reserved).toBe(combine);
      await group.combine(request);
      expect(await group.memory()).toMatchObject(
        before.map(({ reserved, reallocations }) => ({ reserved, reallocations })),
      );
    }),
  );

  test.each([
    ["bf16", 2, 64],
    ["bf16", 8, 7],
    ["fp32", 8, 5],
    ["fp8e4m3", 4, 384],
  ] as const)("what initHybridEpBuffer allocates ahead is enough: %s, top-%i, hidden %i", (dtype, topk, hidden) =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf({ dtype, topk, hidden, numTokens: [64, 64, 64, 64] });
      const fp8 = dtype === "fp8e4m3";
      await initHybridEpBuffer(group, dtype === "fp32" ? 2 * hidden : hidden, 64, 2, null, null, fp8);
      const reserved = (await group.memory()).map((memory) => memory.reserved);
      const { handle, x, probs } = await group.dispatch(requestOf(data, "hybrid-ep"));
      const y = fp8 ? x.map((value) => tensor("bf16", value.shape)) : x;
      await group.combine({ handle, x: y, topkWeights: null, probs, bias: [] });
      expect((await group.memory()).map((memory) => memory.reserved)).toEqual(reserved);
      for (const { reallocations } of await group.memory()) expect(reallocations).toBe(0);
      resetHybridEpBuffer();
    }),
  );

  test("a group with enough reserved never grows it", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const memory = await group.allocateBuffer(1 << 20);
      const data = dataOf();
      const { handle, x } = await group.dispatch(requestOf(data));
      await group.combine({ handle, x, topkWeights: null, probs: null, bias: [] });
      for (const { reserved, reallocations } of await group.memory()) {
        expect([reserved, reallocations]).toEqual([1 << 20, 0]);
      }
      memory.free();
      memory.free();
      for (const { reserved } of await group.memory()) expect(reserved).toBe(0);
      await expectSame("x", (await group.dispatch(requestOf(data))).x, (await oracleDispatch(data)).x);
    }));

  test("more than the device holds is OutOfMemory, and the group goes on", () =>
    withBackend({ devices: 1, emulation: { deviceBytes: 16 << 20 } }, async (backend) => {
      const group = await backend.createGroup({ numRanks: 4 });
      await expect(group.allocateBuffer(32 << 20)).rejects.toThrow(OutOfMemory);
      await expectSame("x", (await group.dispatch(requestOf(dataOf()))).x, (await oracleDispatch(dataOf())).x);
    }));

  test("no room for a stream is OutOfMemory that names it, and leaves the device as it was", async () => {
    // On a device that no other test here uses. A rank takes a table of two addresses, so one fills the device.
    const make = (deviceBytes: number) =>
      withBackend({ devices: [7, 7], emulation: { deviceBytes } }, (backend) => backend.createGroup({ numRanks: 2 }));
    await expect(make(16)).rejects.toThrow(OutOfMemory);
    await expect(make(16)).rejects.toThrow(/^cudaStreamCreate: expected room on device 7 for a stream, .*MPS/);
    await make(32);
  });
});
