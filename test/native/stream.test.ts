import { describe, expect, test } from "vitest";
import type { CudaEvent } from "../../backends/cuda/index.ts";
import { InvalidArgument } from "../../core/errors.ts";
import { EventOverlap } from "../../core/event.ts";
import { tensor } from "../../core/tensor.ts";
import { built, dataOf, expectSame, oracleDispatch, requestOf, uploadAll, why, withGroup } from "./open.ts";

const SHUFFLED = { devices: 2, emulation: { seed: 7, weakStores: 1, poison: 1 } };
const NO_EXTRAS = { topkWeights: null, probs: null, bias: [] };

describe.skipIf(!built)(`streams and events${why}`, () => {
  test("asyncFinish: dispatch and combine chained on the devices, waited for once", () =>
    withGroup(SHUFFLED, 4, async (group) => {
      const data = dataOf({ hidden: 64 });
      const want = await oracleDispatch(data, "fused", { numWorstTokens: 40 });
      const x = await uploadAll(group, data.x);
      const request = { ...requestOf(data, "fused", { numWorstTokens: 40 }), x, asyncFinish: true };
      const dispatched = await group.dispatch(request);
      const combined = await group.combine({
        ...NO_EXTRAS,
        handle: dispatched.handle,
        x: dispatched.x,
        previousEvent: dispatched.event,
        asyncFinish: true,
      });
      await combined.event.currentStreamWait();
      await (combined.event.native as CudaEvent).synchronize();
      expect(await (combined.event.native as CudaEvent).query()).toBe(true);
      const wanted = await want.group.combine({ ...NO_EXTRAS, handle: want.handle, x: want.x });
      await expectSame("combined", combined.x, wanted.x);
    }));

  test("asyncFinish with host outputs: they are there when the event is done", () =>
    withGroup(SHUFFLED, 4, async (group) => {
      const data = dataOf({ hidden: 512 });
      const want = await oracleDispatch(data);
      const got = await group.dispatch({ ...requestOf(data), asyncFinish: true });
      await got.event.currentStreamWait();
      await expectSame("x", got.x, want.x);
      await expectSame("topkIdx", got.topkIdx, want.topkIdx);
    }));

  test.each([true, false])("allocateOnCommStream %s: the same bytes", (allocateOnCommStream) =>
    withGroup(SHUFFLED, 4, async (group) => {
      const data = dataOf();
      const x = await uploadAll(group, data.x);
      const want = await oracleDispatch(data);
      for (let i = 0; i < 5; i++) {
        const got = await group.dispatch({ ...requestOf(data), x, asyncFinish: true, allocateOnCommStream });
        await got.event.currentStreamWait();
        await expectSame("x", got.x, want.x);
        for (const value of got.x) if ("free" in value) value.free();
      }
    }),
  );

  test("a previous event of somebody else is waited for first", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const order: string[] = [];
      let release = () => {};
      const before = new Promise<void>((resolve) => (release = resolve)).then(() => void order.push("event"));
      const dispatched = group
        .dispatch({ ...requestOf(dataOf()), previousEvent: new EventOverlap(before) })
        .then(() => order.push("dispatch"));
      setTimeout(release, 30);
      await dispatched;
      expect(order).toEqual(["event", "dispatch"]);
    }));

  test("a previous event that failed rejects the operation and leaves the group usable", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const failed = new EventOverlap(Promise.reject(new Error("upstream broke")));
      await expect(group.dispatch({ ...requestOf(dataOf()), previousEvent: failed })).rejects.toThrow("upstream broke");
      await group.dispatch(requestOf(dataOf()));
    }));

  test("an event of the compute streams can be waited for", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const event = await group.recordEvent();
      const got = await group.dispatch({ ...requestOf(dataOf()), previousEvent: event });
      await event.currentStreamWait();
      await expectSame("x", got.x, (await oracleDispatch(dataOf())).x);
      expect(await group.stream(0, "comm")).not.toBe(await group.stream(0, "compute"));
    }));

  test("operations called at once run in the order of the calls", () =>
    withGroup(SHUFFLED, 4, async (group) => {
      const x = await uploadAll(group, dataOf().x);
      const runs = Array.from({ length: 12 }, (_, i) => dataOf({ hidden: 16 }, i + 1));
      // Every run overwrites x and dispatches it, without waiting for the run before.
      const results = runs.map((data) => {
        x.forEach((tensor, rank) => void tensor.upload(data.x[rank]));
        return group.dispatch({ ...requestOf(data), x });
      });
      for (const [i, data] of runs.entries()) {
        await expectSame(`run ${i}`, (await results[i]).x, (await oracleDispatch(data)).x);
      }
    }));

  test("a bad id in device-resident routing is named by the operation that waits", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf();
      const x = await uploadAll(group, data.x);
      const ids = data.topkIdx.map((value) =>
        tensor("i64", value.shape, BigInt64Array.from(value.data as BigInt64Array)),
      );
      ids[2].data[2 * 3 + 1] = 8n;
      const routing = { topkIdx: await uploadAll(group, ids), topkWeights: null };
      const failed = group.dispatch({ ...requestOf(data), x, routing });
      await expect(failed).rejects.toThrow(InvalidArgument);
      await expect(failed).rejects.toThrow(/topkIdx: expected -1\.\.7.* at rank 2, token 3, slot 1/);
      await expectSame("x", (await group.dispatch({ ...requestOf(data), x })).x, (await oracleDispatch(data)).x);
    }));

  test("with asyncFinish and a budget the bad id is named where the outputs are read", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf({ idDtype: "i32" });
      const x = await uploadAll(group, data.x);
      const ids = data.topkIdx.map((value) => tensor("i32", value.shape, Int32Array.from(value.data as Int32Array)));
      ids[1].data[0] = -7;
      const routing = { topkIdx: await uploadAll(group, ids), topkWeights: null };
      const request = { ...requestOf(data, "fused", { numWorstTokens: 24 }), x, routing, asyncFinish: true };
      const got = await group.dispatch(request);
      await expect((got.event.native as CudaEvent).synchronize()).rejects.toThrow(
        /topkIdx: .* at rank 1, token 0, slot 0/,
      );
      const first = got.x[0] as { download(): Promise<unknown> };
      await expect(first.download()).rejects.toThrow(/topkIdx: .* at rank 1, token 0/);
      await expectSame("x", (await group.dispatch({ ...requestOf(data), x })).x, (await oracleDispatch(data)).x);
    }));

  test("numSms caps nothing but speed", () =>
    withGroup({ devices: 2, numSms: 3 }, 4, async (group) => {
      const data = dataOf({ numTokens: [40, 30, 20, 10], hidden: 24 });
      const want = await oracleDispatch(data, "hybrid-ep");
      for (const numSms of [1, 2, 7]) {
        group.setNumSms(numSms);
        await expectSame("x", (await group.dispatch(requestOf(data, "hybrid-ep"))).x, want.x);
        await expectSame("x", (await group.dispatch({ ...requestOf(data, "hybrid-ep"), numSms: 5 })).x, want.x);
      }
      expect(() => group.setNumSms(0)).toThrow("numSms: expected a whole number of at least 1, received 0");
    }));

  test("phases have times of every rank, and none of an operation nobody waited for", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const { phases } = await group.dispatch(requestOf(dataOf()));
      expect(new Set(phases.map((phase) => phase.rank))).toEqual(new Set([0, 1, 2, 3]));
      for (const phase of phases) expect(phase.durationUs).toBeGreaterThanOrEqual(0);
      expect(phases.map((phase) => phase.name)).toContain("push");
      expect((await group.dispatch({ ...requestOf(dataOf()), asyncFinish: true })).phases).toEqual([]);
    }));
});
