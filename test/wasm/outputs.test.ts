/** Where rows go: preallocated, consumed piece by piece, asynchronously; and the order of operations. */
import { afterAll, describe, expect, test } from "vitest";
import { createWasmBackend, type WasmBackend } from "../../backends/wasm/index.ts";
import type { OutputChunk } from "../../core/backend.ts";
import { bytesOf, type Tensor, tensor } from "../../core/tensor.ts";
import { digest, digests, randomRouting, randomRows, settings } from "./data.ts";

const RANKS = 4;
const TOKENS = 700;
const HIDDEN = 1500;
const routing = randomRouting(RANKS, TOKENS, 16, 4, 11);
const x = Array.from({ length: RANKS }, (_, r) => randomRows("bf16", [TOKENS, HIDDEN], r));

/** Chunks put together again, and the rows they cover in order. */
function collector() {
  const rows = new Map<string, number>();
  const parts = new Map<string, Buffer[]>();
  const consume = ({ name, rank, firstRow, numRows, bytes }: OutputChunk) => {
    const key = `${name} ${rank}`;
    expect(firstRow).toBe(rows.get(key) ?? 0);
    rows.set(key, firstRow + numRows);
    parts.set(key, [...(parts.get(key) ?? []), Buffer.from(bytes)]);
  };
  const all = (name: string) =>
    Array.from({ length: RANKS }, (_, rank) => digest(Buffer.concat(parts.get(`${name} ${rank}`) ?? [])));
  return { consume, all };
}

describe.each([0, 2])("workers: %i", async (workers) => {
  const backend: WasmBackend = await createWasmBackend({ workers });
  afterAll(() => backend.close());
  const group = await backend.createGroup({ numRanks: RANKS });
  const request = { kind: "hybrid-ep", x, scales: null, routing, settings: settings(16, { padMultiple: 8 }) } as const;
  const sent = await group.dispatch(request);
  const like = (values: readonly { dtype: string; shape: readonly number[] }[]) =>
    values.map(({ dtype, shape }) => ({ dtype, shape }) as Tensor);
  const combine = { handle: sent.handle, x: sent.x, topkWeights: null, probs: null, bias: [] };
  const want = await digests(sent.x);
  const wantCombined = await digests((await group.combine(combine)).x);

  test("dispatch and combine fill `out`, wherever it lies, and zero its padding", async () => {
    const places = [backend.allocate(like(sent.x)), sent.x.map((value) => tensor(value.dtype, value.shape))];
    for (const out of places) {
      for (const value of out) bytesOf(value as Tensor).fill(0xee);
      const again = await group.dispatch({ ...request, out: out as Tensor[] });
      expect(again.x).toBe(out);
      expect(await digests(again.x)).toEqual(want);
      const back = x.map(({ dtype, shape }) => tensor(dtype, shape));
      await group.combine({ ...combine, x: again.x, out: back });
      expect(await digests(back)).toEqual(wantCombined);
    }
  });

  test("consume sees every row once and in order, with progress up to 1", async () => {
    const dispatched = collector();
    const fractions: number[] = [];
    const result = await group.dispatch({
      ...request,
      consume: dispatched.consume,
      progress: (f) => fractions.push(f),
    });
    expect(result.x).toEqual([]);
    expect(dispatched.all("x")).toEqual(want);
    const combined = collector();
    await group.combine({ ...combine, consume: combined.consume, progress: (f) => fractions.push(f) });
    expect(combined.all("x")).toEqual(wantCombined);
    expect(fractions.filter((fraction) => fraction === 1).length).toBeGreaterThanOrEqual(2);
    expect(Math.max(...fractions)).toBe(1);
  });

  test("asyncFinish: the event says when, and later operations see the result", async () => {
    const pending = await group.dispatch({ ...request, asyncFinish: true });
    const combined = group.combine({ ...combine, x: pending.x, previousEvent: pending.event });
    await pending.event.currentStreamWait();
    expect(await digests(pending.x)).toEqual(want);
    expect(await digests((await combined).x)).toEqual(wantCombined);
  });

  test("operations run in the order of the calls, and a refused one harms no other", async () => {
    const [first, bad, second] = await Promise.allSettled([
      group.dispatch(request),
      group.dispatch({ ...request, out: [] }),
      group.combine(combine),
    ]);
    expect([first.status, bad.status, second.status]).toEqual(["fulfilled", "rejected", "fulfilled"]);
    expect((bad as PromiseRejectedResult).reason.message).toMatch(/^out: expected one tensor per local rank \(4\)/);
  });

  test("numSms caps the workers and changes nothing", async () => {
    expect(await digests((await group.dispatch({ ...request, numSms: 1 })).x)).toEqual(want);
    expect(() => group.setNumSms(0)).toThrow(/numSms: expected a whole number of at least 1, received 0/);
  });
});

test("a closed group refuses", async () => {
  const backend = await createWasmBackend({ workers: 0 });
  const group = await backend.createGroup({ numRanks: 1 });
  await backend.close();
  await expect(group.castToFp8([tensor("bf16", [1, 1])])).rejects.toThrow(/group: expected an open group/);
});
