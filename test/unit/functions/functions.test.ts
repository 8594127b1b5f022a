import { afterEach, describe, expect, test } from "vitest";
import { InvalidArgument } from "../../../core/errors.ts";
import { EventOverlap } from "../../../core/event.ts";
import { cachedHybridEpBuffer, resetBuffer, resetHybridEpBuffer } from "../../../core/functions/buffers.ts";
import { FunctionContext } from "../../../core/functions/context.ts";
import { FusedCombine, FusedDispatch } from "../../../core/functions/fused.ts";
import { HybridEPCombine, HybridEPDispatch, paddedCounts } from "../../../core/functions/hybridEp.ts";
import { fusedCombine, fusedDispatch, hybridEpCombine, hybridEpDispatch } from "../../../core/functions/wrappers.ts";
import { Handle } from "../../../core/handle/handle.ts";
import { type AnyTensor, isHostTensor, type Tensor, tensor, toHost } from "../../../core/tensor.ts";
import { IDS, MAPS, numbered, PROBS, recordingGroup, WEIGHTS, X } from "./recording.ts";

afterEach(() => {
  resetBuffer();
  resetHybridEpBuffer();
});

const values = (all: readonly AnyTensor[] | null) => (all as Tensor[]).map((one) => Array.from(one.data, Number));

describe("the functional wrappers, by hand", () => {
  test("fusedDispatch and fusedCombine: a token comes back once per destination rank", async () => {
    const { group } = await recordingGroup(2);
    const out = await fusedDispatch(X, IDS, WEIGHTS, 4, group);
    // Rank 0 holds experts 0,1: tokens (0,0), (0,1), (1,0). Rank 1 holds 2,3: tokens (0,0), (1,0).
    expect(values(out.recvX)).toEqual([
      [1, 2, 10],
      [1, 10],
    ]);
    expect(values(out.recvTokenIndices)).toEqual([
      [0, -1, 1, -1, -1, 0],
      [-1, 1, 0, -1],
    ]);
    expect(values(out.recvTokenProbs)).toEqual([
      [0.5, 0, 1, 0, 0, 4],
      [0, 0.25, 2, 0],
    ]);
    expect(values(out.tokensPerExpert)).toEqual([
      [2, 1],
      [1, 1],
    ]);
    const back = await fusedCombine(out.recvX, group, out.handle);
    expect(values(back.combinedX)).toEqual([[2, 2], [20]]);
    expect(back.combinedTopkWeights).toBeNull();
  });

  test("hybridEpDispatch and hybridEpCombine: once per expert", async () => {
    const { group } = await recordingGroup(2);
    const out = await hybridEpDispatch(X, MAPS, PROBS, group, 2, { padMultiple: 2 });
    expect(values(out.dispatchedHidden)).toEqual([
      [1, 10, 2, 0],
      [10, 0, 1, 0],
    ]);
    expect(values(out.dispatchedProbs)).toEqual([
      [0.5, 4, 1, 0],
      [2, 0, 0.25, 0],
    ]);
    expect(out.dispatchedScalingFactor).toBeNull();
    expect(values(out.tokensPerExpert as Tensor[])).toEqual([
      [2, 2],
      [2, 2],
    ]);
    const back = await hybridEpCombine(out.dispatchedHidden, out.handle, null, 2);
    expect(values(back.combinedHidden)).toEqual([[2, 2], [20]]);
  });
});

describe("gradients", () => {
  test("come in the order of forward's inputs, null where there is none", async () => {
    const { group } = await recordingGroup(2);
    const [a, b, c, d] = Array.from({ length: 4 }, () => new FunctionContext());
    const fused = await FusedDispatch.forward(a, X, IDS, WEIGHTS, 4, group);
    await FusedCombine.forward(b, fused.recvX, group, fused.handle);
    const hybrid = await HybridEPDispatch.forward(c, X, MAPS, PROBS, group, 2);
    await HybridEPCombine.forward(d, hybrid.dispatchedHidden, hybrid.handle);
    expect(Object.keys(await FusedDispatch.backward(a, fused.recvX))).toEqual([
      "gradX",
      "gradTokenIndices",
      "gradTokenProbs",
      "gradNumExperts",
      "gradGroup",
      "gradAsyncFinish",
      "gradAllocateOnCommStream",
    ]);
    expect(Object.keys(await FusedCombine.backward(b, X))).toEqual([
      "gradX",
      "gradGroup",
      "gradHandle",
      "gradAsyncFinish",
      "gradAllocateOnCommStream",
    ]);
    const keys = Object.keys(await HybridEPDispatch.backward(c, hybrid.dispatchedHidden));
    expect(keys.slice(0, 9)).toEqual([
      "gradX",
      "gradRoutingMap",
      "gradProbs",
      "gradGroup",
      "gradNumLocalExperts",
      "gradNumSmsDispatchApi",
      "gradNumSmsCombineApi",
      "gradNumPermutedTokens",
      "gradPadMultiple",
    ]);
    const last = await HybridEPCombine.backward(d, X);
    expect(Object.keys(last)).toEqual(["gradX", "gradHandle", "gradNumPermutedTokens", "gradPadMultiple", "gradFused"]);
    expect(values(last.gradX)).toEqual(values(hybrid.dispatchedHidden));
  });

  test("weights' gradients in bf16 and fp16 are widened exactly; another dtype is refused", async () => {
    const { group } = await recordingGroup(2);
    const ctx = new FunctionContext();
    const out = await FusedDispatch.forward(ctx, X, IDS, WEIGHTS, 4, group);
    const shapes = [
      [3, 2],
      [2, 2],
    ];
    const grads = (dtype: "bf16" | "fp16", code: number) =>
      shapes.map((shape) => tensor(dtype, shape, new Uint16Array(shape[0] * 2).fill(code)));
    // 1.5 in every slot of every row: summed over the destinations of each token, nothing masked.
    for (const grad of [grads("bf16", 0x3fc0), grads("fp16", 0x3e00)]) {
      const back = await FusedDispatch.backward(ctx, out.recvX, null, grad);
      expect(values(back.gradTokenProbs)).toEqual([
        [3, 3, 1.5, 1.5],
        [3, 3],
      ]);
    }
    const wrong = shapes.map((shape) => tensor("i32", shape));
    await expect(FusedDispatch.backward(ctx, out.recvX, null, wrong)).rejects.toThrow("topkWeights: expected fp32");
  });

  test("hybrid-ep probs gradients go to [tokens, experts]", async () => {
    const { group } = await recordingGroup(2);
    const ctx = new FunctionContext();
    const out = await HybridEPDispatch.forward(ctx, X, MAPS, PROBS, group, 2);
    const grads = [tensor("fp32", [3], Float32Array.of(1, 2, 3)), tensor("fp32", [2], Float32Array.of(4, 5))];
    const back = await HybridEPDispatch.backward(ctx, out.dispatchedHidden, grads);
    expect(values(back.gradProbs)).toEqual([
      [1, 0, 0, 5, 0, 3, 0, 0],
      [2, 0, 4, 0],
    ]);
    expect((await HybridEPDispatch.backward(ctx, out.dispatchedHidden)).gradProbs).toBeNull();
  });
});

describe("FunctionContext", () => {
  test("an empty one, or one of another function, is refused by name", async () => {
    const { group } = await recordingGroup(2);
    const [empty, fused] = [new FunctionContext(), new FunctionContext()];
    const out = await FusedDispatch.forward(fused, X, IDS, WEIGHTS, 4, group);
    await expect(FusedDispatch.backward(empty, out.recvX)).rejects.toThrow("received an empty context");
    await expect(FusedCombine.backward(fused, X)).rejects.toThrow(
      "ctx: expected the context that FusedCombine.forward filled, received one filled by FusedDispatch.forward",
    );
    await expect(HybridEPDispatch.backward(fused, X)).rejects.toThrow(InvalidArgument);
    await expect(HybridEPCombine.backward(empty, X)).rejects.toThrow(InvalidArgument);
  });

  test("a forward that fails fills nothing", async () => {
    const { group } = await recordingGroup(2);
    const ctx = new FunctionContext();
    await expect(FusedDispatch.forward(ctx, X, IDS, WEIGHTS, 3, group)).rejects.toThrow("numExperts");
    await expect(FusedDispatch.backward(ctx, X)).rejects.toThrow("an empty context");
  });

  test("backward may run twice, and after the buffers were reset", async () => {
    const { group } = await recordingGroup(2);
    const [a, b] = [new FunctionContext(), new FunctionContext()];
    const fused = await FusedDispatch.forward(a, X, IDS, WEIGHTS, 4, group);
    const hybrid = await HybridEPDispatch.forward(b, X, MAPS, PROBS, group, 2);
    resetBuffer();
    resetHybridEpBuffer();
    for (let i = 0; i < 2; i++) {
      expect(values((await FusedDispatch.backward(a, fused.recvX)).gradX)).toEqual([[2, 2], [20]]);
      expect(values((await HybridEPDispatch.backward(b, hybrid.dispatchedHidden)).gradX)).toEqual([[2, 2], [20]]);
    }
  });
});

describe("hybrid-ep combine", () => {
  test("the settings are the dispatch's own, or none", async () => {
    const { group } = await recordingGroup(2);
    const out = await hybridEpDispatch(X, MAPS, PROBS, group, 2, { padMultiple: 2, numPermutedTokens: 4 });
    const x = out.dispatchedHidden;
    for (const [budget, pad] of [
      [4, 2],
      [null, null],
      [4, null],
      [null, 2],
    ] as const) {
      await hybridEpCombine(x, out.handle, budget, pad);
    }
    await expect(hybridEpCombine(x, out.handle, 6, 2)).rejects.toThrow("numPermutedTokens: expected 4");
    await expect(hybridEpCombine(x, out.handle, 4, 4)).rejects.toThrow("padMultiple: expected 2");
    await expect(hybridEpCombine(x, out.handle, null, 0)).rejects.toThrow("padMultiple: expected 2");
  });

  test("after an exact dispatch the learned size of a rank is accepted, another is not", async () => {
    const { group } = await recordingGroup(2);
    const out = await hybridEpDispatch(X, MAPS, PROBS, group, 2);
    await hybridEpCombine(out.dispatchedHidden, out.handle, 3, 0);
    await expect(hybridEpCombine(out.dispatchedHidden, out.handle, 5)).rejects.toThrow("expected 3 or 2");
  });

  test("runs on the group that made the handle, whatever ran in between", async () => {
    const [a, b] = [await recordingGroup(2), await recordingGroup(2)];
    const first = await hybridEpDispatch(X, MAPS, PROBS, a.group, 2, { numSmsCombineApi: 9 });
    await hybridEpDispatch(X, MAPS, PROBS, b.group, 2);
    await hybridEpCombine(first.dispatchedHidden, first.handle);
    expect([a.combines.length, b.combines.length]).toEqual([1, 0]);
    expect(a.combines[0].numSms).toBe(9);
    expect([a.held(), b.held(), cachedHybridEpBuffer()?.group === a.group]).toEqual([1, 0, true]);
  });

  test("a handle from a file runs on the buffer's group, and needs one", async () => {
    const { group } = await recordingGroup(2);
    const out = await hybridEpDispatch(X, MAPS, PROBS, group, 2);
    const copy = Handle.of(await out.handle.data());
    expect(values((await hybridEpCombine(out.dispatchedHidden, copy)).combinedHidden)).toEqual([[2, 2], [20]]);
    resetHybridEpBuffer();
    await expect(hybridEpCombine(out.dispatchedHidden, copy)).rejects.toThrow("call initHybridEpBuffer");
  });

  test("defaults: 24 SMs each way", async () => {
    const { group, dispatches, combines } = await recordingGroup(2);
    const out = await hybridEpDispatch(X, MAPS, PROBS, group, 2);
    await hybridEpCombine(out.dispatchedHidden, out.handle);
    expect([dispatches[0].numSms, combines[0].numSms]).toEqual([24, 24]);
  });
});

describe("what a row budget promises", () => {
  test("counts stay on the device until someone asks: no host synchronisation", async () => {
    const { group } = await recordingGroup(2);
    const out = await hybridEpDispatch(X, MAPS, PROBS, group, 2, { numPermutedTokens: 4 });
    const data = await out.handle.data();
    let downloads = 0;
    const onDevice = new Handle(data.meta, async () => {
      downloads++;
      return data;
    });
    const counts = await paddedCounts(onDevice, group);
    expect([downloads, counts.map(isHostTensor), counts[1].shape]).toEqual([0, [false, false], [2]]);
    expect(values(await Promise.all(counts.map((one) => toHost(one))))).toEqual([
      [2, 1],
      [1, 1],
    ]);
    expect(downloads).toBe(1);
    expect(out.tokensPerExpert.map(isHostTensor)).toEqual([true, true]);
  });

  test("numWorstTokens: exactly that many rows, zero tail, empty counts", async () => {
    const { group } = await recordingGroup(2);
    const out = await fusedDispatch(X, IDS, WEIGHTS, 4, group, { numWorstTokens: 4 });
    expect(values(out.recvX)).toEqual([
      [1, 2, 10, 0],
      [1, 10, 0, 0],
    ]);
    expect(values(out.recvTokenIndices)[1]).toEqual([-1, 1, 0, -1, -1, -1, -1, -1]);
    expect(out.tokensPerExpert.map((one) => one.shape)).toEqual([[0], [0]]);
  });
});

describe("events", () => {
  test("previousEvent is waited for first", async () => {
    const { group } = await recordingGroup(2);
    const order: string[] = [];
    const event = new EventOverlap(async () => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      order.push("event");
    });
    const out = await fusedDispatch(X, IDS, WEIGHTS, 4, group, { previousEvent: event, asyncFinish: true });
    order.push("dispatch");
    await out.event.currentStreamWait();
    expect(order).toEqual(["event", "dispatch"]);
  });

  test("a failed event rejects where it is awaited, and kills nothing when it is not", async () => {
    const failed = new EventOverlap(Promise.reject(new Error("the kernel failed")));
    await new Promise((resolve) => setTimeout(resolve, 5));
    await expect(failed.currentStreamWait()).rejects.toThrow("the kernel failed");
    const { group } = await recordingGroup(2);
    const options = { previousEvent: failed };
    await expect(fusedDispatch(X, IDS, WEIGHTS, 4, group, options)).rejects.toThrow("the kernel failed");
  });

  test("flags reach forward and backward", async () => {
    const { group, dispatches, combines } = await recordingGroup(2);
    const [a, b] = [new FunctionContext(), new FunctionContext()];
    const flags = { asyncFinish: true, allocateOnCommStream: true };
    const out = await FusedDispatch.forward(a, X, IDS, WEIGHTS, 4, group, flags);
    await FusedCombine.forward(b, out.recvX, group, out.handle, flags);
    await FusedDispatch.backward(a, out.recvX);
    await FusedCombine.backward(b, X);
    for (const request of [...dispatches, ...combines]) expect(request).toMatchObject(flags);
  });
});

test("one rank, one token, one expert, hidden 1; and no tokens anywhere", async () => {
  const one = await recordingGroup(1);
  const ids = [tensor("i32", [1, 1])];
  const weights = [tensor("fp32", [1, 1], Float32Array.of(3))];
  const out = await fusedDispatch([numbered(1, 1, 7)], ids, weights, 1, one.group);
  expect(values(out.recvX)).toEqual([[7]]);
  const two = await recordingGroup(2);
  const none = (dtype: "fp32" | "i64", width: number) => [tensor(dtype, [0, width]), tensor(dtype, [0, width])];
  const empty = await fusedDispatch(none("fp32", 5), none("i64", 2), none("fp32", 2), 4, two.group);
  expect(empty.recvX.map((x) => x.shape)).toEqual([
    [0, 5],
    [0, 5],
  ]);
  const back = await fusedCombine(empty.recvX, two.group, empty.handle);
  expect(back.combinedX.map((x) => x.shape)).toEqual([
    [0, 5],
    [0, 5],
  ]);
});
