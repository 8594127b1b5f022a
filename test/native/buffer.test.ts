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

  test("an operation takes exactly what fa2a_buffer_size says, once", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf({ hidden: 4096, numTokens: [20, 10, 5, 0], topk: 3 });
      const { handle, x } = await group.dispatch(requestOf(data));
      await group.combine({ handle, x, topkWeights: null, probs: null, bias: [] });
      const addon = findAddon("emulated").addon as NativeAddon;
      const { total } = addon.bufferSize({
        ...{ numTokens: 20, rowBytes: 8192, topk: 3, numExperts: 8, numRanks: 4, ranksPerNode: 4 },
        ...{ numRows: 0, combinePath: 0, weights: 0 },
      });
      const before = await group.memory();
      for (const { reserved } of before) expect(reserved).toBe(total);
      await group.combine({ handle, x, topkWeights: null, probs: null, bias: [] });
      expect(await group.memory()).toMatchObject(
        before.map(({ reserved, reallocations }) => ({ reserved, reallocations })),
      );
    }));

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
});
