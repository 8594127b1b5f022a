/** The addon itself: every object in every method, of the right type, of the wrong one, freed, and of the other build. */
import { describe, expect, test } from "vitest";
import { findAddon } from "../../backends/cuda/loader.ts";
import type { NativeAddon } from "../../backends/cuda/native.ts";
import { tensor } from "../../core/tensor.ts";
import { built, why } from "./open.ts";

const addon = findAddon("emulated").addon as NativeAddon;
const cuda = findAddon("cuda");
const OPTIONS = { numRanks: 1, ranksPerNode: 1, localRanks: [0], devices: null, combinePath: 0, recordTimings: 0 };
const STREAM = { previousEvent: null, asyncFinish: false, allocateOnCommStream: false, numSms: 0 };

async function objects() {
  const group = await addon.groupCreate(OPTIONS, null);
  const { tensor: made } = await addon.tensorCreate(group, 0, 2, 3, 4);
  const event = await addon.eventRecord(group);
  const x = { data: new Float32Array(4), dtype: 2, rows: 2, columns: 2 };
  const ids = { data: new Int32Array(2), dtype: 7, rows: 2, columns: 1 };
  const request = {
    ...STREAM,
    kind: 0,
    x: [x],
    scales: null,
    topkIdx: [ids],
    topkWeights: null,
    handle: null,
    numExperts: 1,
    expertAlignment: 1,
    numWorstTokens: 0,
    padMultiple: 1,
    numPermutedTokens: -1,
    into: null,
  };
  const { handle } = await addon.dispatch(group, request);
  return { group, tensor: made, event, handle };
}
type Objects = Awaited<ReturnType<typeof objects>>;

/** Methods by the object they take first. */
const METHODS: Record<keyof Objects, Record<string, (value: never) => unknown>> = {
  group: {
    groupClose: (group) => addon.groupClose(group),
    groupConfigure: (group) => addon.groupConfigure(group, OPTIONS),
    groupSetNumSms: (group) => addon.groupSetNumSms(group, 1),
    groupSynchronize: (group) => addon.groupSynchronize(group),
    groupStream: (group) => addon.groupStream(group, 0, 0),
    groupReserve: (group) => addon.groupReserve(group, 1),
    groupRelease: (group) => addon.groupRelease(group),
    groupMemory: (group) => addon.groupMemory(group, 0),
    groupNetwork: (group) => addon.groupNetwork(group, 0),
    groupConnect: (group) => addon.groupConnect(group),
    groupAbort: (group) => addon.groupAbort(group, "a test"),
    tensorCreate: (group) => addon.tensorCreate(group, 0, 2, 1, 1),
    eventRecord: (group) => addon.eventRecord(group),
    handleUpload: (group) => addon.handleUpload(group, {} as never, []),
    layout: (group) => addon.layout(group, {} as never),
    fromMultihot: (group) => addon.fromMultihot(group, [], null, 0),
    dispatch: (group) => addon.dispatch(group, {} as never),
    combine: (group) => addon.combine(group, {} as never),
    castToFp8: (group) => addon.castToFp8(group, []),
    castBack: (group) => addon.castBack(group, [], []),
    scaleRows: (group) => addon.scaleRows(group, [], []),
    graphBegin: (group) => addon.graphBegin(group),
    graphEnd: (group) => addon.graphEnd(group),
  },
  tensor: {
    tensorInfo: (value) => addon.tensorInfo(value),
    tensorFill: (value) => addon.tensorFill(value, 0),
    tensorFree: (value) => addon.tensorFree(value),
    tensorsRead: (value) => addon.tensorsRead([{ tensor: value, offset: 0, bytes: 0, data: new Uint8Array(0) }]),
    tensorsWrite: (value) => addon.tensorsWrite([{ tensor: value, offset: 0, bytes: 0, data: new Uint8Array(0) }]),
  },
  event: {
    eventQuery: (value) => addon.eventQuery(value),
    eventWait: (value) => addon.eventWait(value),
    eventStreamWait: (value) => addon.eventStreamWait(value),
    eventPhases: (value) => addon.eventPhases(value),
    eventFree: (value) => addon.eventFree(value),
  },
  handle: {
    handleMeta: (value) => addon.handleMeta(value),
    handleSizes: (value) => addon.handleSizes(value, 1),
    handleDownload: (value) => addon.handleDownload(value, []),
    handleFree: (value) => addon.handleFree(value),
  },
};
const FREED = new Set(["tensorFree", "eventFree", "handleFree"]);

const all = Object.entries(METHODS).flatMap(([kind, methods]) =>
  Object.entries(methods).map(([name, call]) => ({ kind: kind as keyof Objects, name, call })),
);

async function message(call: () => unknown): Promise<string> {
  try {
    await call();
  } catch (error) {
    return (error as Error).message;
  }
  return "no error";
}

describe.skipIf(!built)(`the addon's boundary${why}`, () => {
  test.each(all)("$name takes only a $kind", async ({ kind, call }) => {
    const made = await objects();
    const strangers: unknown[] = [undefined, null, 1, "group", {}, [], () => {}];
    for (const value of strangers) {
      const got = await message(() => call(value as never));
      expect(got).toContain(`${kind}: expected a ${kind} of this backend, received something else`);
    }
    for (const [other, value] of Object.entries(made)) {
      if (other === kind) continue;
      const got = await message(() => call(value as never));
      expect(got).toContain(`${kind}: expected a ${kind} of this backend, received another native object`);
    }
    await addon.groupClose(made.group);
  });

  test.each(all)("$name after the $kind was freed", async ({ kind, name, call }) => {
    const made = await objects();
    if (kind === "group") await addon.groupClose(made.group);
    else METHODS[kind][`${kind}Free`](made[kind] as never);
    const got = await message(() => call(made[kind] as never));
    // Freeing twice is allowed, as in C.
    expect(got).toContain(
      FREED.has(name) ? "no error" : `${kind}: expected a live ${kind}, received one that was freed`,
    );
    if (kind !== "group") await addon.groupClose(made.group);
  });

  test.skipIf(cuda.addon === null)("objects of one build are strangers to the other", async () => {
    const made = await objects();
    const other = cuda.addon as NativeAddon;
    expect(await message(() => other.tensorFree(made.tensor))).toContain("received another native object");
    expect(await message(() => other.groupSynchronize(made.group))).toContain("received another native object");
    expect((await addon.tensorInfo(made.tensor)).rows).toBe(3);
    await addon.groupClose(made.group);
  });

  test("memory that is too small for its shape is refused", async () => {
    const { group, tensor: made, handle } = await objects();
    const short = new Float32Array(3);
    expect(await message(() => addon.tensorsRead([{ tensor: made, offset: 0, bytes: 48, data: short }]))).toContain(
      "data: expected 48 bytes, received 12",
    );
    const array = { data: short, dtype: 2, rows: 2, columns: 2 };
    expect(await message(() => addon.castToFp8(group, [array]))).toContain("x[0]: expected 16 bytes, received 12");
    for (const wrong of [{ rows: -1 }, { columns: -1 }, { dtype: 99 }, { rows: 2 ** 52, columns: 2 ** 30 }]) {
      expect(await message(() => addon.castToFp8(group, [{ ...array, ...wrong }]))).toContain("x[0]: expected a dtype");
    }
    expect(await message(() => addon.castToFp8(group, [{ ...array, rows: 1.5 }]))).toContain("rows: expected a whole");
    expect(await message(() => addon.castToFp8(group, []))).toContain("x: expected one per local rank (1), received 0");
    const sizes = await addon.handleSizes(handle, 1);
    const less = { ...sizes[0], numRows: 0 } as never;
    expect(await message(() => addon.handleDownload(handle, [less]))).toContain("expected the sizes that handleSizes");
    await addon.groupClose(group);
  });

  test("reads and writes past a tensor's end are refused", async () => {
    const { group, tensor: made } = await objects();
    const data = tensor("u8", [64]).data;
    for (const [offset, bytes] of [
      [1, 48],
      [48, 1],
      [-1, 4],
      [2 ** 53, 1],
    ]) {
      expect(await message(() => addon.tensorsRead([{ tensor: made, offset, bytes, data }]))).not.toBe("no error");
      expect(await message(() => addon.tensorsWrite([{ tensor: made, offset, bytes, data }]))).not.toBe("no error");
    }
    await addon.groupClose(group);
  });
});
