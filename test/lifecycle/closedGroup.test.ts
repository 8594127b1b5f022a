/** A closed group, on every backend: refuses every call with one error, and is let go of. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, describe, expect, test } from "vitest";
import type { Backend, Group } from "../../core/backend.ts";
import { InvalidArgument } from "../../core/errors.ts";
import { EventOverlap } from "../../core/event.ts";
import { tensor } from "../../core/tensor.ts";
import { CANDIDATES, tryOpen } from "../conformance/backends.ts";

const CLOSED = "group: expected an open group, received a closed one; create a group and use it before closing it";

const x = [tensor("bf16", [3, 128])];
const routing = { topkIdx: [tensor("i32", [3, 1])], topkWeights: null };
const settings = { numExperts: 1, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null };
const request = { kind: "fused", x, scales: null, routing, settings } as const;

/** Every call of the interface, valid for a group of one rank. */
async function callsOf(group: Group): Promise<Record<string, () => unknown>> {
  const { handle } = await group.dispatch(request);
  const cast = await group.castToFp8(x);
  return {
    layout: () => group.layout(routing, 1),
    dispatch: () => group.dispatch(request),
    "cached dispatch": () => group.dispatch({ kind: "fused", x, scales: null, handle }),
    combine: () => group.combine({ handle, x, topkWeights: null, probs: null, bias: [] }),
    castToFp8: () => group.castToFp8(x),
    castBack: () => group.castBack(cast.x, cast.scales),
    scaleRows: () => group.scaleRows(x, [tensor("fp32", [3])]),
    setNumSms: () => group.setNumSms(4),
    allocateBuffer: () => group.allocateBuffer(1024),
  };
}

async function expectClosed(calls: Record<string, () => unknown>): Promise<void> {
  for (const [name, call] of Object.entries(calls)) {
    const error = await (async () => call())().then(
      () => "answered",
      (refused) => refused,
    );
    expect(error, name).toBeInstanceOf(InvalidArgument);
    expect(error.message, name).toBe(CLOSED);
  }
}

/** Runs the collector; a WeakRef holds its target until the current job is over. */
async function collectGarbage(): Promise<void> {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc") as () => void;
  for (let i = 0; i < 4; i++) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    gc();
  }
}

for (const candidate of CANDIDATES) {
  const opened = await tryOpen(candidate);
  const reason = typeof opened === "string" ? ` (skipped: ${opened})` : "";
  describe.skipIf(reason !== "")(`a closed group of ${candidate.name}${reason}`, () => {
    const backend = opened as Backend;
    afterAll(() => backend.close());

    test("refuses every call with the same error; closing it again is fine", async () => {
      const group = await backend.createGroup({ numRanks: 1 });
      const calls = await callsOf(group);
      for (const call of Object.values(calls)) await call();
      await group.close();
      await group.close();
      await expectClosed(calls);
    });

    test("is what its backend leaves behind when it closes", async () => {
      const other = (await tryOpen(candidate)) as Backend;
      const calls = await callsOf(await other.createGroup({ numRanks: 1 }));
      await other.close();
      await expectClosed(calls);
    });

    test("has done what was called before, in that order", async () => {
      const group = await backend.createGroup({ numRanks: 1 });
      const done: string[] = [];
      const event = new EventOverlap(
        new Promise((resolve) => setTimeout(resolve, 20)).then(() => void done.push("event")),
      );
      await Promise.all([
        group.dispatch({ ...request, previousEvent: event }).then(() => done.push("dispatch")),
        group.castToFp8(x).then(() => done.push("cast")),
        group.close().then(() => done.push("close")),
      ]);
      expect(done).toEqual(["event", "dispatch", "cast", "close"]);
    });

    test("is let go of by a backend that stays open", async () => {
      const closed = await (async () => {
        const group = await backend.createGroup({ numRanks: 1 });
        await group.castToFp8(x);
        await group.close();
        return new WeakRef(group);
      })();
      await collectGarbage();
      expect(closed.deref()).toBeUndefined();
    });
  });
}
