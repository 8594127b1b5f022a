import { describe, expect, it } from "vitest";
import { memorySink, memorySource } from "../../../core/io/bytes.ts";
import { safetensorsBytes } from "../../../core/io/safetensors/index.ts";
import type { TraceChunk, TraceHeader } from "../../../core/trace/format.ts";
import { openTrace } from "../../../core/trace/read.ts";
import { summarizeChunk } from "../../../core/trace/summary.ts";
import { writeTrace } from "../../../core/trace/write.ts";

const HEADER: TraceHeader = {
  producer: "test",
  clock: "modelled",
  numSteps: 2,
  numLayers: 2,
  numRanks: 2,
  ranksPerNode: 1,
  numExperts: 4,
  topk: 2,
  hidden: 8,
  dtype: "bf16",
  rowBytes: 16,
  style: "fused",
  settings: { expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null },
};

/** Rank 0 holds 3 tokens, rank 1 holds 1 + step: small enough to count by hand. Experts 0,1 are rank 0's, 2,3 rank 1's. */
function chunk(step: number, layer: number): TraceChunk {
  return {
    topkIdx: [Int32Array.of(0, 1, 0, 2, -1, 3), Int32Array.from([2, 3, ...(step ? [layer, -1] : [])])],
    topkWeights: [Float32Array.of(0.5, 0.5, 0.25, 0.75, 0, 1), new Float32Array(2 + 2 * step).fill(0.5)],
    phases: [
      { rank: 0, name: "dispatch.transfer", startUs: layer, durationUs: 10.5 },
      { rank: -1, name: "dispatch.wait", startUs: 12.25, durationUs: step, waiting: true },
    ],
    waitUs: Float32Array.of(0, step, layer, 0),
  };
}

async function written(header = HEADER, make: typeof chunk = chunk): Promise<Uint8Array> {
  const sink = memorySink();
  await writeTrace(sink, header, make);
  return sink.bytes() ?? new Uint8Array(0);
}

describe("trace file", () => {
  it("gives every chunk back", async () => {
    const trace = await openTrace(memorySource(await written(), "t"));
    expect(trace.header).toEqual(HEADER);
    for (const [step, layer] of [
      [0, 0],
      [0, 1],
      [1, 0],
      [1, 1],
    ] as const) {
      expect(await trace.chunk(step, layer)).toEqual(chunk(step, layer));
    }
  });

  it("counts the summary as by hand", async () => {
    const summary = await (await openTrace(memorySource(await written(), "t"))).summary(1);
    // Layer 1 of step 1: 5 tokens; slots: rank 0 sends 3 to itself and 2 to rank 1; rank 1 sends 1 to rank 0 and 2 to itself.
    expect([...summary.totals.subarray(6)]).toEqual([5, 2, 8, 3, 6, 3]);
    expect([...summary.numTokens.subarray(2)]).toEqual([3, 2]);
    expect([...summary.expertLoad.subarray(4)]).toEqual([2, 2, 2, 2]);
    expect([...(summary.traffic?.slots.subarray(4) ?? [])]).toEqual([3, 2, 1, 2]);
    expect([...(summary.traffic?.rows.subarray(4) ?? [])]).toEqual([2, 2, 1, 1]);
    expect([...summary.bufferRows.subarray(8)]).toEqual([3, 0, 0, 0, 3, 0, 0, 0]);
  });

  it("counts padding, tail and cut rows as by hand", () => {
    const ids = chunk(1, 1).topkIdx;
    const settings = { ...HEADER.settings, padMultiple: 4, numPermutedTokens: 4 };
    // Expert loads 2, 2, 2, 2: each padded to 4, so the second expert of each rank starts at row 4, past the budget.
    const hybrid = summarizeChunk({ ...HEADER, style: "hybrid-ep", settings }, ids);
    expect([...hybrid.bufferRows]).toEqual([2, 2, 0, 2, 2, 2, 0, 2]);
    const roomy = summarizeChunk(
      { ...HEADER, style: "hybrid-ep", settings: { ...settings, numPermutedTokens: 12 } },
      ids,
    );
    expect([...roomy.bufferRows]).toEqual([4, 4, 4, 0, 4, 4, 4, 0]);
    const fused = summarizeChunk({ ...HEADER, settings: { ...settings, numWorstTokens: 2 } }, ids);
    // Each rank wants 3 rows and keeps 2. Cut: rank 1's token with expert 1 at rank 0; rank 1's (2, 3) at rank 1.
    expect([...fused.bufferRows]).toEqual([2, 0, 0, 1, 2, 0, 0, 2]);
  });

  it("leaves the dense traffic out for groups too large to store it", async () => {
    const numRanks = 2048;
    const header = { ...HEADER, numSteps: 1, numLayers: 3, numRanks, numExperts: numRanks, topk: 1 };
    const make = (): TraceChunk => ({
      topkIdx: Array.from({ length: numRanks }, (_, r) => Int32Array.of((r + 1) % numRanks)),
      topkWeights: null,
      phases: [],
    });
    const trace = await openTrace(memorySource(await written(header, make), "t"));
    const summary = await trace.summary(0);
    expect(summary.traffic).toBeNull();
    expect([...summary.totals.subarray(0, 6)]).toEqual([numRanks, 0, numRanks, numRanks, numRanks, numRanks]);
    expect(trace.hasWeights).toBe(false);
  });

  it("refuses a chunk that is not as the header says, and leaves nothing behind", async () => {
    const cases: [RegExp, (c: TraceChunk) => TraceChunk][] = [
      [
        /expected an expert in -1\.\.3, received 4 at rank 1, token 0, slot 1/,
        (c) => ({ ...c, topkIdx: [c.topkIdx[0], Int32Array.of(2, 4)] }),
      ],
      [
        /expert 2 a second time at rank 1, token 0, slot 1/,
        (c) => ({ ...c, topkIdx: [c.topkIdx[0], Int32Array.of(2, 2)] }),
      ],
      [/topkIdx\.length: expected 2, received 1/, (c) => ({ ...c, topkIdx: [c.topkIdx[0]] })],
      [/topkWeights\[1\]\.length/, (c) => ({ ...c, topkWeights: [c.topkWeights![0], new Float32Array(3)] })],
      [/waitUs\.length: expected 4, received 3/, (c) => ({ ...c, waitUs: new Float32Array(3) })],
      [
        /phases\.rank: expected -1\.\.1, received 2/,
        (c) => ({ ...c, phases: [{ rank: 2, name: "x", startUs: 0, durationUs: 0 }] }),
      ],
      [/finite/, (c) => ({ ...c, phases: [{ rank: 0, name: "x", startUs: 0, durationUs: Number.NaN }] })],
    ];
    for (const [message, change] of cases) {
      const sink = memorySink();
      await expect(writeTrace(sink, HEADER, (s, l) => change(chunk(s, l)))).rejects.toThrow(message);
      expect(sink.bytes()).toBeNull();
    }
  });

  it("refuses a source that answers differently the second time", async () => {
    let calls = 0;
    const sink = memorySink();
    const moody = (step: number, layer: number) => {
      const given = chunk(step, layer);
      return calls++ < 4 ? given : { ...given, topkIdx: [given.topkIdx[1], given.topkIdx[0]] };
    };
    await expect(writeTrace(sink, HEADER, moody)).rejects.toThrow(/as at the first call/);
    expect(sink.bytes()).toBeNull();
  });

  it("refuses other formats and versions by name", async () => {
    const file = async (metadata: Record<string, string>) =>
      openTrace(memorySource(await safetensorsBytes(metadata, []), "odd.safetensors"));
    await expect(file({ format: "pt" })).rejects.toThrow(/format: expected fused-a2a-trace, received pt at odd/);
    await expect(file({ format: "fused-a2a-trace", version: "2" })).rejects.toThrow(/version: expected 1, received 2/);
    await expect(file({ format: "fused-a2a-trace", version: "1" })).rejects.toThrow(/header/);
  });

  it("names a damaged id when its chunk is read", async () => {
    const bytes = await written();
    const text = new TextDecoder().decode(
      bytes.subarray(8, 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true))),
    );
    const start = 8 + text.length + JSON.parse(text).topk_idx.data_offsets[0];
    new DataView(bytes.buffer).setInt16(start + 2, 77, true);
    const trace = await openTrace(memorySource(bytes, "bad"));
    await expect(trace.chunk(0, 0)).rejects.toThrow(/received 77 at bad, rank 0, token 0, slot 1/);
    await expect(trace.chunk(0, 2)).rejects.toThrow(/layer: expected 0\.\.1, received 2/);
  });
});
