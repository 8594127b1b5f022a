import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, test } from "vitest";
import type { CudaEvent } from "../../backends/cuda/index.ts";
import { InvalidArgument, Timeout } from "../../core/errors.ts";
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

const NO_EXTRAS = { topkWeights: null, probs: null, bias: [] };

/** Runs the collector and lets finalisers run. */
async function collect(): Promise<void> {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc") as () => void;
  for (let i = 0; i < 4; i++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe.skipIf(!built)(`lifetimes${why}`, () => {
  test("handles, tensors and events outlive their group and backend", async () => {
    const data = dataOf();
    const want = await oracleDispatch(data, "hybrid-ep");
    const got = await withGroup({ devices: 2 }, 4, async (group) => {
      const x = await uploadAll(group, data.x);
      return group.dispatch({ ...requestOf(data, "hybrid-ep"), x, asyncFinish: true });
    });
    await collect();
    await got.event.currentStreamWait();
    await (got.event.native as CudaEvent).synchronize();
    await expectSame("x", got.x, want.x);
    expect(await got.handle.data()).toEqual(await want.handle.data());
    for (const value of got.x) if ("free" in value) value.free();
  });

  test("a handle works on another group, whatever its devices", () =>
    withBackend({ devices: 4 }, async (backend) => {
      const data = dataOf({ hidden: 8 });
      const one = await backend.createGroup({ numRanks: 4 });
      const { handle, x } = await one.dispatch(requestOf(data));
      await one.close();
      const want = await oracleDispatch(data);
      const wanted = await want.group.combine({ ...NO_EXTRAS, handle: want.handle, x: want.x });
      await withGroup({ devices: 1 }, 4, async (other) => {
        await expectSame("combined", (await other.combine({ ...NO_EXTRAS, handle, x })).x, wanted.x);
        const again = await other.dispatch({ kind: "fused", x: data.x, scales: null, handle });
        await expectSame("x", again.x, want.x);
        expect(again.handle).toBe(handle);
      });
    }));

  test("a handle of another size, or one whose arrays contradict, is refused", () =>
    withGroup({ devices: 2 }, 2, async (group) => {
      const { handle } = await oracleDispatch(dataOf());
      const x = dataOf().x.slice(0, 2);
      await expect(group.combine({ ...NO_EXTRAS, handle, x })).rejects.toThrow(/handle: expected one of this group/);
      const two = dataOf({ numRanks: 2, numTokens: [6, 6] });
      const small = await oracleDispatch(two);
      const broken = structuredClone(await small.handle.data());
      broken.ranks[0].sendRow[0] = 1000;
      const { Handle } = await import("../../core/handle/handle.ts");
      const combine = group.combine({ ...NO_EXTRAS, handle: Handle.of(broken), x: small.x });
      await expect(combine).rejects.toThrow(/handle\.send_row: expected 0\.\.\d+, received 1000 at rank 0, token 0/);
    }));

  test("a closed group refuses everything by name; closing again is fine", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf();
      const { handle } = await group.dispatch(requestOf(data));
      await group.close();
      await group.close();
      const closed = "group: expected an open group, received a closed one";
      const calls: (() => Promise<unknown>)[] = [
        () => group.dispatch(requestOf(data)),
        () => group.combine({ ...NO_EXTRAS, handle, x: data.x }),
        () => group.layout({ topkIdx: data.topkIdx, topkWeights: null }, 8),
        () => group.castToFp8(data.x),
        () => group.castBack(data.x, data.x),
        () => group.scaleRows(data.x, data.x),
        () => group.allocateBuffer(1024),
        () => group.tensor(0, "fp32", [1]),
        () => group.upload(0, data.x[0]),
        () => group.memory(),
        () => group.stream(0, "comm"),
        () => group.recordEvent(),
        () => group.synchronize(),
        () => group.capture(async () => {}),
      ];
      for (const call of calls) {
        await expect(call()).rejects.toThrow(InvalidArgument);
        await expect(call()).rejects.toThrow(closed);
      }
    }));

  test("closing while operations are in flight lets them finish", () =>
    withBackend({ devices: 2, emulation: { seed: 3 } }, async (backend) => {
      const data = dataOf({ hidden: 256 });
      const group = await backend.createGroup({ numRanks: 4 });
      const flying = [1, 2, 3].map(() => group.dispatch(requestOf(data)));
      const closed = group.close();
      const want = await oracleDispatch(data);
      for (const result of flying) await expectSame("x", (await result).x, want.x);
      await closed;
    }));

  test("tensors freed while an operation uses them stay until it is done", () =>
    withGroup({ devices: 2, emulation: { seed: 5, poison: 1 } }, 4, async (group) => {
      const data = dataOf({ hidden: 128 });
      const want = await oracleDispatch(data);
      for (let i = 0; i < 10; i++) {
        const x = await uploadAll(group, data.x);
        const running = group.dispatch({ ...requestOf(data), x });
        // Past the turns of the queue, so that the addon has taken its references.
        await new Promise((resolve) => setImmediate(resolve));
        for (const tensor of x) tensor.free();
        await running.then(
          (got) => expectSame("x", got.x, want.x),
          (error) => expect(error.message).toMatch(/one that was freed/),
        );
      }
    }));

  test("forgotten tensors, handles and events go back to the pool", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf({ hidden: 64 });
      const run = async () => {
        const x = await uploadAll(group, data.x);
        await group.dispatch({ ...requestOf(data), x });
      };
      for (let i = 0; i < 10; i++) await run();
      await collect();
      for (const { pool, poolFree } of await group.memory()) {
        expect(pool).toBeGreaterThan(0);
        expect(poolFree).toBe(pool);
      }
    }));

  test("host results leave nothing on the devices but what their handle needs", () =>
    withGroup({ devices: 2 }, 4, async (group) => {
      const data = dataOf({ hidden: 4096 });
      const { handle } = await group.dispatch(requestOf(data));
      for (const { pool, poolFree } of await group.memory()) expect(pool - poolFree).toBeLessThan(64 * 1024);
      expect(handle.meta.numRanks).toBe(4);
    }));

  test("a device that stops is a Timeout that names ranks; the event loop runs on, and so does the process", async () => {
    const stalled = { devices: 2, deadlineMs: 400, emulation: { numDevices: 2, stalledDevice: 2 } };
    let ticks = 0;
    const timer = setInterval(() => ticks++, 10);
    const failed = withGroup(stalled, 4, (group) => group.dispatch(requestOf(dataOf())));
    await expect(failed).rejects.toThrow(Timeout);
    await expect(failed).rejects.toThrow(/rank/);
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(10);
    await withGroup({ devices: 2 }, 4, async (group) => {
      await expectSame("x", (await group.dispatch(requestOf(dataOf()))).x, (await oracleDispatch(dataOf())).x);
    });
  });
});
