import { afterEach, describe, expect, test } from "vitest";
import { InvalidArgument } from "../../../core/errors.ts";
import { EventOverlap } from "../../../core/event.ts";
import { getNumSms, resetBuffer, resetHybridEpBuffer, setNumSms } from "../../../core/functions/buffers.ts";
import { Buffer } from "../../../core/functions/fusedBuffer.ts";
import { HybridEPBuffer } from "../../../core/functions/hybridEpBuffer.ts";
import { type AnyTensor, type Tensor, tensor } from "../../../core/tensor.ts";
import { IDS, MAPS, numbered, PROBS, recordingGroup, WEIGHTS, X } from "./recording.ts";

afterEach(() => {
  resetBuffer();
  resetHybridEpBuffer();
  setNumSms(20);
});

const values = (all: readonly AnyTensor[] | null) => (all as Tensor[]).map((one) => Array.from(one.data, Number));

describe("Buffer", () => {
  test("layout, dispatch, combine with weights and biases, by hand", async () => {
    const { group } = await recordingGroup(2);
    const buffer = new Buffer(group);
    const layout = await buffer.getDispatchLayout({ topkIdx: IDS, numExperts: 4 });
    expect(values(layout.numTokensPerRank)).toEqual([
      [2, 1],
      [1, 1],
    ]);
    expect(layout.numTokensPerNode).toBeNull();
    expect(values(layout.numTokensPerExpert)).toEqual([
      [1, 1, 0, 1],
      [1, 0, 1, 0],
    ]);
    expect(values(layout.isTokenInRank())).toEqual([
      [1, 1, 1, 0],
      [1, 1],
    ]);
    const out = await buffer.dispatch({ x: X, layout, topkWeights: WEIGHTS, expertAlignment: 8 });
    expect(values(out.tokensPerExpert)).toEqual([
      [8, 8],
      [8, 8],
    ]);
    const weights = out.recvTopkWeights;
    for (const [bias, want] of [
      [[], [[2, 2], [20]]],
      [[X], [[3, 4], [30]]],
      [
        [X, X],
        [[4, 6], [40]],
      ],
    ] as const) {
      const back = await buffer.combine({ x: out.recvX, handle: out.handle, topkWeights: weights, bias });
      expect(values(back.combinedX)).toEqual(want);
      expect(values(back.combinedTopkWeights)).toEqual([
        [0.5, 0.25, 1, 0],
        [2, 4],
      ]);
    }
  });

  test("two nodes: tokens per node", async () => {
    const { group } = await recordingGroup(2, 1);
    const layout = await new Buffer(group).getDispatchLayout({ topkIdx: IDS, numExperts: 4 });
    expect(values(layout.numTokensPerNode)).toEqual([
      [2, 1],
      [1, 1],
    ]);
  });

  test("a cached dispatch moves new rows and scales, and knows no routing", async () => {
    const { group } = await recordingGroup(2);
    const buffer = new Buffer(group);
    const { handle } = await buffer.dispatch({ x: X, topkIdx: IDS, numExperts: 4 });
    const scales = [numbered(2, 1, 5), numbered(1, 1, 9)];
    const out = await buffer.dispatch({ x: X, scales, handle });
    expect(values(out.recvXScales)).toEqual([
      [5, 6, 9],
      [5, 9],
    ]);
    expect([out.recvTopkIdx, out.recvTopkWeights, out.tokensPerExpert]).toEqual([null, null, null]);
    expect(out.handle).toBe(handle);
  });

  test("routing and handle, neither, or a layout of other routing are refused", async () => {
    const { group } = await recordingGroup(2);
    const buffer = new Buffer(group);
    const layout = await buffer.getDispatchLayout({ topkIdx: IDS, numExperts: 4 });
    const { handle } = await buffer.dispatch({ x: X, layout });
    await expect(buffer.dispatch({ x: X })).rejects.toThrow("call getDispatchLayout first");
    await expect(buffer.dispatch({ x: X, topkIdx: IDS })).rejects.toThrow(InvalidArgument);
    await expect(buffer.dispatch({ x: X, handle, layout })).rejects.toThrow("layout: expected none beside a cached");
    await expect(buffer.dispatch({ x: X, handle, topkWeights: WEIGHTS })).rejects.toThrow("topkWeights: expected none");
    await expect(buffer.dispatch({ x: X, handle, numWorstTokens: 9 })).rejects.toThrow("numWorstTokens: expected 0 as");
    await buffer.dispatch({ x: X, handle, numWorstTokens: 0, expertAlignment: 1 });
    await expect(buffer.dispatch({ x: X, layout, topkIdx: [...IDS] })).rejects.toThrow("layout: expected the layout");
    await expect(buffer.dispatch({ x: X, layout, numExperts: 8 })).rejects.toThrow("layout: expected the layout");
  });

  test("configurations: SMs reach the group, and one that does not fit the buffer is refused", async () => {
    const { group, dispatches, combines } = await recordingGroup(2);
    const buffer = new Buffer(group);
    Buffer.setNumSms(6);
    expect([Buffer.getDispatchConfig(2), Buffer.getCombineConfig(64)]).toEqual([
      { numSms: 6, numChunkTokens: 2048 },
      { numSms: 6, numChunkTokens: 64 },
    ]);
    expect(getNumSms()).toBe(6);
    const config = { numSms: 3, numChunkTokens: 32 };
    const out = await buffer.dispatch({ x: X, topkIdx: IDS, numExperts: 4, config });
    await buffer.combine({ x: out.recvX, handle: out.handle, config });
    expect([dispatches[0].numSms, combines[0].numSms]).toEqual([3, 3]);
    const large = { numSms: 3, numChunkTokens: 1e6 };
    await expect(buffer.combine({ x: out.recvX, handle: out.handle, config: large })).rejects.toThrow(
      "lower numChunkTokens",
    );
    const none = { numSms: 0, numChunkTokens: 32 };
    await expect(buffer.combine({ x: out.recvX, handle: out.handle, config: none })).rejects.toThrow("at least 1 SM");
  });

  test("capture comes after everything asked so far, failures included", async () => {
    const { group } = await recordingGroup(2);
    const buffer = new Buffer(group);
    const order: string[] = [];
    const slow = new EventOverlap(async () => {
      await new Promise((resolve) => setTimeout(resolve, 10));
      order.push("slow");
    });
    const first = buffer.dispatch({ x: X, topkIdx: IDS, numExperts: 4, previousEvent: slow });
    const failing = buffer.dispatch({ x: X });
    const captured = buffer.capture();
    await expect(failing).rejects.toThrow(InvalidArgument);
    await captured.currentStreamWait();
    expect(order).toEqual(["slow"]);
    await first;
    await new Buffer(group).capture().currentStreamWait();
  });
});

describe("HybridEPBuffer", () => {
  const routing = { routingMap: MAPS, probs: PROBS, numLocalExperts: 2 };

  test("both routing forms give the same permuted rows", async () => {
    const { group } = await recordingGroup(2);
    const buffer = new HybridEPBuffer(group);
    const a = await buffer.dispatchWithPermute({ hidden: X, ...routing });
    const b = await buffer.dispatchWithPermute({ hidden: X, topkIdx: IDS, topkWeights: WEIGHTS, numLocalExperts: 2 });
    expect([values(a.hidden), values(a.probs)]).toEqual([
      [
        [1, 10, 2],
        [10, 1],
      ],
      [
        [0.5, 4, 1],
        [2, 0.25],
      ],
    ]);
    expect([values(b.hidden), values(b.probs)]).toEqual([values(a.hidden), values(a.probs)]);
    const back = await buffer.combineWithUnpermute({ hidden: a.hidden, probs: a.probs, handle: a.handle });
    expect(values(back.hidden)).toEqual([[2, 2], [20]]);
    expect(values(back.probs)).toEqual(values(PROBS));
    const cached = await buffer.dispatchWithPermute({ hidden: X, handle: a.handle });
    expect([values(cached.hidden), cached.probs]).toEqual([values(a.hidden), null]);
  });

  test("dense: whole rows of probs, the rank's columns of the map, sums of both", async () => {
    const { group } = await recordingGroup(2);
    const buffer = new HybridEPBuffer(group);
    for (const form of [routing, { topkIdx: IDS, topkWeights: WEIGHTS, numLocalExperts: 2 }]) {
      const out = await buffer.dispatch({ hidden: X, ...form });
      expect(values(out.hidden)).toEqual([
        [1, 2, 10],
        [1, 10],
      ]);
      expect(values(out.probs)).toEqual([
        [0.5, 0, 0, 0.25, 0, 1, 0, 0, 4, 0, 2, 0],
        [0.5, 0, 0, 0.25, 4, 0, 2, 0],
      ]);
      expect(values(out.localExpertRoutingMap)).toEqual([
        [1, 0, 0, 1, 1, 0],
        [0, 1, 1, 0],
      ]);
      const back = await buffer.combine({ hidden: out.hidden, probs: out.probs, handle: out.handle });
      expect(values(back.hidden)).toEqual([[2, 2], [20]]);
      expect(values(back.probs)).toEqual([
        [1, 0, 0, 0.5, 0, 1, 0, 0],
        [8, 0, 4, 0],
      ]);
      const cached = await buffer.dispatch({ hidden: X, handle: out.handle });
      expect([values(cached.hidden), cached.probs, cached.localExpertRoutingMap]).toEqual([
        values(out.hidden),
        null,
        null,
      ]);
    }
  });

  test("allocated ahead, a run that fits allocates nothing; fp32 rows count twice", async () => {
    const { group, allocated } = await recordingGroup(2);
    const buffer = new HybridEPBuffer(group, { numSmsDispatchApi: 4 });
    await buffer.allocate({ hiddenDim: 2, seqLen: 64, numLocalExperts: 2, fp8Dispatch: false });
    await buffer.dispatchWithPermute({ hidden: X, ...routing });
    expect(allocated).toHaveLength(1);
    const wide = [numbered(2, 400), numbered(1, 400)];
    await buffer.dispatchWithPermute({ hidden: wide, ...routing });
    expect(allocated).toHaveLength(2);
    // rows 2 * 64 * (400 * 4), probs 2 * 64 * 2 * 4, control 2 * 128
    expect(allocated[1]).toBe(2 * 64 * 1600 + 1024 + 256);
  });

  test("a row budget reports what was cut in the handle", async () => {
    const { group } = await recordingGroup(2);
    const buffer = new HybridEPBuffer(group);
    const out = await buffer.dispatchWithPermute({ hidden: X, ...routing, numPermutedTokens: 2, nonBlocking: true });
    const { ranks } = await out.handle.data();
    expect(ranks.map((rank) => [rank.overflow.flag, rank.overflow.numCut])).toEqual([
      [true, 1],
      [false, 0],
    ]);
    expect([...ranks[0].overflow.cut]).toEqual([0, 1, 0, 1]);
    const back = await buffer.combineWithUnpermute({ hidden: out.hidden, probs: out.probs, handle: out.handle });
    expect([values(back.hidden), values(back.probs)]).toEqual([
      [[2, 0], [20]],
      [
        [0.5, 0, 0, 0.25, 0, 0, 0, 0],
        [4, 0, 2, 0],
      ],
    ]);
  });

  test("misuse is refused by name", async () => {
    const { group } = await recordingGroup(2);
    const buffer = new HybridEPBuffer(group);
    const { handle, hidden } = await buffer.dispatchWithPermute({ hidden: X, ...routing, padMultiple: 2 });
    const refused = (work: Promise<unknown>, message: string) => expect(work).rejects.toThrow(message);
    await refused(
      buffer.dispatchWithPermute({ hidden: X, ...routing, nonBlocking: true }),
      "numPermutedTokens: expected",
    );
    await refused(buffer.dispatchWithPermute({ hidden: X }), "routing: expected one of topkIdx, routingMap, handle");
    await refused(
      buffer.dispatchWithPermute({ hidden: X, ...routing, topkIdx: IDS }),
      "received topkIdx and routingMap",
    );
    await refused(buffer.dispatchWithPermute({ hidden: X, handle, probs: PROBS }), "probs: expected none");
    await refused(buffer.dispatchWithPermute({ hidden: X, routingMap: MAPS }), "numLocalExperts: expected");
    await refused(buffer.dispatchWithPermute({ hidden: X, handle, padMultiple: 4 }), "padMultiple: expected 2");
    await refused(buffer.combineWithUnpermute({ hidden, handle, padMultiple: 4 }), "padMultiple: expected 2");
    await refused(buffer.dispatch({ hidden: X, handle }), "handle: expected a fused handle");
    const bad = [tensor("i64", [2, 1], BigInt64Array.of(0n, 4n)), tensor("i64", [1, 1])];
    await refused(
      buffer.dispatch({ hidden: X, topkIdx: bad, numLocalExperts: 2 }),
      "received 4 at rank 0, token 1, slot 0",
    );
  });
});
