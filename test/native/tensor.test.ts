import { describe, expect, test } from "vitest";
import { CudaTensor } from "../../backends/cuda/index.ts";
import { DTYPES, type DType } from "../../core/dtype/dtype.ts";
import { InvalidArgument, OutOfMemory } from "../../core/errors.ts";
import { bytesOf, tensor } from "../../core/tensor.ts";
import {
  built,
  dataOf,
  expectSame,
  oracleDispatch,
  requestOf,
  uploadAll,
  why,
  withBackend,
  withGroup,
} from "./open.ts";

/** Bytes 0, 1, 2, ... in a tensor of any dtype. */
function counting(dtype: DType, shape: number[]) {
  const made = tensor(dtype, shape);
  bytesOf(made).forEach((_, i, bytes) => (bytes[i] = i % 251));
  return made;
}

describe.skipIf(!built)(`device tensors${why}`, () => {
  test.each(
    DTYPES.flatMap((dtype) => [[3, 5], [0, 4], [7], [2, 3, 4], [1, 1]].map((shape) => [dtype, shape] as const)),
  )("upload and download %s %j", (dtype, shape) =>
    withGroup({ devices: 2, emulation: { poison: 1 } }, 2, async (group) => {
      const host = counting(dtype, shape);
      const device = await group.upload(1, host);
      expect(device).toMatchObject({ dtype, shape, backend: "cuda-emulated", rank: 1, device: 1 });
      const back = await device.download();
      expect(back.shape).toEqual(shape);
      expect(bytesOf(back)).toEqual(bytesOf(host));
    }),
  );

  test("tensors larger than one staging chunk", () =>
    withGroup({ devices: 1 }, 1, async (group) => {
      const host = counting("u8", [3, 3_000_001]);
      const back = await (await group.upload(0, host)).download();
      expect(Buffer.compare(bytesOf(back), bytesOf(host))).toBe(0);
    }));

  test("views and shared memory are taken as they are", () =>
    withGroup({ devices: 1 }, 1, async (group) => {
      const wide = Float32Array.from({ length: 12 }, (_, i) => i);
      const view = await group.upload(0, tensor("fp32", [2, 3], wide.subarray(4, 10)));
      expect([...(await view.download()).data]).toEqual([4, 5, 6, 7, 8, 9]);
      const shared = new Float32Array(new SharedArrayBuffer(16));
      shared.set([1, 2, 3, 4]);
      const device = await group.upload(0, {
        dtype: "fp32",
        shape: [4],
        data: shared as unknown as Float32Array<ArrayBuffer>,
      });
      expect([...(await device.download()).data]).toEqual([1, 2, 3, 4]);
    }));

  test("addresses are aligned and different", () =>
    withGroup({ devices: 1 }, 2, async (group) => {
      const [a, b] = [await group.tensor(0, "bf16", [3, 3]), await group.tensor(1, "bf16", [3, 3])];
      expect(a.pointer % 256n).toBe(0n);
      expect(a.pointer).not.toBe(0n);
      expect(a.pointer).not.toBe(b.pointer);
    }));

  test("fill sets every byte", () =>
    withGroup({ devices: 1 }, 1, async (group) => {
      const made = await group.tensor(0, "i32", [5]);
      await made.fill(0x7f);
      expect([...(await made.download()).data]).toEqual(new Array(5).fill(0x7f7f7f7f));
    }));

  test("an upload of another dtype or shape is refused by name", () =>
    withGroup({ devices: 1 }, 1, async (group) => {
      const made = await group.tensor(0, "fp32", [2, 3]);
      await expect(made.upload(tensor("fp32", [3, 2]))).rejects.toThrow(
        "host: expected fp32 [2, 3], received fp32 [3, 2] at rank 0",
      );
      await expect(made.upload(tensor("i32", [2, 3]) as never)).rejects.toThrow(InvalidArgument);
    }));

  test("a freed tensor is refused wherever it is used", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf();
      const x = await uploadAll(group, data.x);
      x[2].free();
      const freed = /a live tensor, received one that was freed/;
      await expect(x[2].download()).rejects.toThrow(freed);
      await expect(x[2].upload(data.x[2])).rejects.toThrow(freed);
      await expect(x[2].fill(0)).rejects.toThrow(freed);
      expect(() => x[2].pointer).toThrow(freed);
      expect(x[2].isFreed).toBe(true);
      await expect(group.dispatch({ ...requestOf(data), x })).rejects.toThrow(/x\[2\]: expected a live tensor/);
      x[2].free();
      await group.dispatch(requestOf(data));
    }));

  test("a rank that does not live here is refused", () =>
    withGroup({ devices: 1 }, 2, async (group) => {
      await expect(group.tensor(2, "fp32", [1])).rejects.toThrow("rank: expected a local rank (0, 1), received 2");
    }));

  test("more than the device holds is OutOfMemory with the numbers, and the group goes on", () =>
    withGroup({ devices: 1, emulation: { deviceBytes: 64 << 20 } }, 1, async (group) => {
      const failed = group.tensor(0, "u8", [80 << 20]);
      await expect(failed).rejects.toThrow(OutOfMemory);
      await expect(failed).rejects.toThrow(/device memory: expected \d+ bytes on device 0, received \d+ of 67108864/);
      const small = await group.upload(0, tensor("u8", [3], Uint8Array.of(1, 2, 3)));
      expect([...(await small.download()).data]).toEqual([1, 2, 3]);
    }));

  test.each(["fused", "hybrid-ep"] as const)("%s outputs stay where x is, and are the oracle's", (kind) =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf({ topk: 3, dropped: 0.2 });
      const want = await oracleDispatch(data, kind);
      const x = await uploadAll(group, data.x);
      const topkIdx = await uploadAll(group, data.topkIdx);
      const topkWeights = await uploadAll(group, data.topkWeights);
      const got = await group.dispatch({ ...requestOf(data, kind), x, routing: { topkIdx, topkWeights } });
      for (const value of [...got.x, ...(got.topkIdx ?? []), ...(got.probs ?? [])])
        expect(value).toBeInstanceOf(CudaTensor);
      await expectSame("x", got.x, want.x);
      if (kind === "fused") {
        await expectSame("topkIdx", got.topkIdx, want.topkIdx);
        await expectSame("topkWeights", got.topkWeights, want.topkWeights);
      } else {
        await expectSame("probs", got.probs, want.probs);
      }
      expect(await got.handle.data()).toEqual(await want.handle.data());
      const request = { topkWeights: null, probs: null, bias: [] };
      const combined = await group.combine({ ...request, handle: got.handle, x: got.x });
      expect(combined.x[0]).toBeInstanceOf(CudaTensor);
      const wanted = await want.group.combine({ ...request, handle: want.handle, x: want.x });
      await expectSame("combined", combined.x, wanted.x);
    }),
  );

  test("multihot routing on the devices", () =>
    withGroup({ devices: 2 }, 2, async (group) => {
      const map = tensor("bool", [2, 4], Uint8Array.of(1, 0, 1, 0, 0, 0, 0, 1));
      const probs = tensor("fp32", [2, 4], Float32Array.of(0.5, 0, 0.25, 0, 0, 0, 0, 0.125));
      const x = tensor("fp32", [2, 1], Float32Array.of(10, 20));
      const got = await group.dispatch({
        ...requestOf(dataOf(), "hybrid-ep"),
        x: await uploadAll(group, [x, x]),
        routing: { routingMap: await uploadAll(group, [map, map]), probs: await uploadAll(group, [probs, probs]) },
        settings: { numExperts: 4, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null },
      });
      // Expert 0 gets token 0 of both sources, expert 2 (rank 1) likewise, expert 3 token 1; expert 1 none.
      await expectSame("x", got.x, [
        tensor("fp32", [2, 1], Float32Array.of(10, 10)),
        tensor("fp32", [4, 1], Float32Array.of(10, 10, 20, 20)),
      ]);
      await expectSame("probs", got.probs, [
        tensor("fp32", [2], Float32Array.of(0.5, 0.5)),
        tensor("fp32", [4], Float32Array.of(0.25, 0.25, 0.125, 0.125)),
      ]);
    }));

  test("device tensors of the wrong shape or dtype are refused with core's own errors", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf();
      const x = await uploadAll(group, data.x);
      const narrow = await Promise.all(group.localRanks.map((rank) => group.tensor(rank, "i32", [5, 2])));
      const ids = { topkIdx: narrow, topkWeights: null };
      await expect(group.dispatch({ ...requestOf(data), x, routing: ids })).rejects.toThrow(
        "topkIdx: expected 6 rows as x, received 5 at rank 0",
      );
      const wrong = await Promise.all(group.localRanks.map((rank) => group.tensor(rank, "i32", [6, 16])));
      await expect(group.dispatch({ ...requestOf(data), x: wrong })).rejects.toThrow(
        /x: expected .*received i32 \[6, 16\]/,
      );
    }));

  test("tensors of another group are brought over through the host", () =>
    withBackend({ devices: 2 }, async (backend) => {
      const data = dataOf();
      const one = await backend.createGroup({ numRanks: 4 });
      const other = await backend.createGroup({ numRanks: 4 });
      const x = await uploadAll(one, data.x);
      const want = await oracleDispatch(data);
      await expectSame("x", (await other.dispatch({ ...requestOf(data), x })).x, want.x);
    }));

  test("groups that use each other's tensors at once do not wait for each other for ever", () =>
    withBackend({ devices: 2 }, async (backend) => {
      const [one, other] = [await backend.createGroup({ numRanks: 4 }), await backend.createGroup({ numRanks: 4 })];
      const data = dataOf();
      const want = await oracleDispatch(data);
      const [mine, theirs] = [await uploadAll(one, data.x), await uploadAll(other, data.x)];
      const crossing = [1, 2, 3].flatMap(() => [
        one.dispatch({ ...requestOf(data), x: theirs }),
        other.dispatch({ ...requestOf(data), x: mine }),
      ]);
      for (const result of crossing) await expectSame("x", (await result).x, want.x);
    }));

  test("fused dispatch of a multihot routing on the devices has i64 ids, as on the host", () =>
    withGroup({ devices: 2 }, 2, async (group) => {
      const map = tensor("bool", [2, 4], Uint8Array.of(1, 0, 1, 0, 0, 0, 0, 1));
      const x = tensor("fp32", [2, 1], Float32Array.of(10, 20));
      const settings = {
        numExperts: 4,
        expertAlignment: 1,
        numWorstTokens: 0,
        padMultiple: 1,
        numPermutedTokens: null,
      };
      const routing = { routingMap: await uploadAll(group, [map, map]), probs: null };
      const got = await group.dispatch({ kind: "fused", x: [x, x], scales: null, routing, settings });
      await expectSame("topkIdx", got.topkIdx, [
        tensor("i64", [2, 2], BigInt64Array.of(0n, -1n, 0n, -1n)),
        tensor("i64", [4, 2], BigInt64Array.of(-1n, 0n, 1n, -1n, -1n, 0n, 1n, -1n)),
      ]);
    }));
});
