import { describe, expect, it } from "vitest";
import { memorySink, memorySource } from "../../../core/io/bytes.ts";
import type { TraceChunk, TraceHeader } from "../../../core/trace/format.ts";
import { writeTrace } from "../../../core/trace/write.ts";
import { buffersModel } from "../../../viz/model/buffers.ts";
import { compareModel } from "../../../viz/model/compare.ts";
import { type Frame, loadFrame } from "../../../viz/model/dataset.ts";
import { loadModel } from "../../../viz/model/load.ts";
import { openDataset } from "../../../viz/model/open.ts";
import { overviewModel } from "../../../viz/model/overview.ts";
import { search } from "../../../viz/model/search.ts";
import { countSelected } from "../../../viz/model/selection.ts";
import { DEFAULT_PLACEMENT, DEFAULT_STATE } from "../../../viz/model/state.ts";
import { timelineModel } from "../../../viz/model/timeline.ts";
import { combineOrder, tokenModel } from "../../../viz/model/token.ts";
import { trafficModel } from "../../../viz/model/traffic.ts";
import { bufferSegments, twoNodes } from "./by-hand.ts";

async function frameOf(header: TraceHeader, chunk: TraceChunk): Promise<Frame> {
  const sink = memorySink();
  await writeTrace(sink, header, () => chunk);
  const source = memorySource(sink.bytes() ?? new Uint8Array(0), "by hand");
  return loadFrame(await openDataset(source, { placement: DEFAULT_PLACEMENT }), 0, 0, true);
}

describe("models, against hand arithmetic", () => {
  // 4 ranks in 2 nodes, 8 experts (2 per rank), top-2; the table of tokens is in by-hand.ts.
  it("traffic: slots, rows, bytes, and the same by node", async () => {
    const frame = await frameOf(twoNodes.header, twoNodes.chunk);
    const slots = trafficModel(frame, { ...DEFAULT_STATE, metric: "slots" });
    expect([...slots.values]).toEqual([2, 1, 0, 1, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    const rows = trafficModel(frame, { ...DEFAULT_STATE, metric: "rows" });
    expect([...rows.values]).toEqual([1, 1, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    expect([...rows.sent]).toEqual([3, 1, 1, 0]);
    expect([...rows.received]).toEqual([1, 2, 1, 1]);
    const bytes = trafficModel(frame, { ...DEFAULT_STATE, metric: "bytes", level: "node" });
    expect([...bytes.values]).toEqual([2 * 32, 2 * 32, 1 * 32, 0]);
    const remote = trafficModel(frame, { ...DEFAULT_STATE, metric: "rows", hide: "rank" });
    expect(remote.values[0]).toBe(0);
    expect(trafficModel(frame, { ...DEFAULT_STATE, metric: "wait" }).unavailable).toMatch(/no wait times/);
  });

  it("selection: dimensions are joined by AND", async () => {
    const frame = await frameOf(twoNodes.header, twoNodes.chunk);
    const all = countSelected(frame, DEFAULT_STATE);
    expect([all?.numSlots, all?.numTokens]).toEqual([7, 4]);
    const some = countSelected(frame, { ...DEFAULT_STATE, src: [0], experts: [0, 2, 6], tokens: [1, 5] });
    // Rank 0's tokens 1 and 2 chose (2, 6) and nothing: two slots of one token.
    expect([some?.numSlots, some?.numTokens]).toEqual([2, 1]);
    expect([...(some?.expertLoad ?? [])]).toEqual([0, 0, 1, 0, 0, 0, 1, 0]);
    const ignoring = countSelected(frame, { ...DEFAULT_STATE, src: [0], experts: [0] }, ["experts"]);
    expect(ignoring?.numSlots).toBe(4);
  });

  it("load: dead experts, max/mean, Gini", async () => {
    const frame = await frameOf(twoNodes.header, twoNodes.chunk);
    const experts = loadModel(frame, DEFAULT_STATE);
    expect([...experts.values]).toEqual([1, 1, 2, 0, 1, 1, 1, 0]);
    expect(experts.dead).toEqual([3, 7]);
    expect(experts.maxOverMean).toBeCloseTo(2 / (7 / 8), 12);
    // Ascending 0 0 1 1 1 1 1 2, weights 2i - 9: (-3 - 1 + 1 + 3 + 5 + 2 * 7) / (8 * 7).
    expect(experts.gini).toBeCloseTo(19 / 56, 12);
    const ranks = loadModel(frame, { ...DEFAULT_STATE, unit: "rank", order: "id" });
    expect([...ranks.values]).toEqual([2, 2, 2, 1]);
    const nodes = loadModel(frame, { ...DEFAULT_STATE, unit: "node" });
    expect([...nodes.values]).toEqual([4, 3]);
  });

  it("load of logical experts adds up their replicas", async () => {
    const header = { ...twoNodes.header, physicalToLogical: [[0, 1, 2, 3, 0, 1, 2, 3]] };
    const model = loadModel(await frameOf(header, twoNodes.chunk), { ...DEFAULT_STATE, unit: "logical", order: "id" });
    expect([...model.values]).toEqual([2, 2, 3, 0]);
  });

  it("overview: the six numbers", async () => {
    const { numbers } = overviewModel(await frameOf(twoNodes.header, twoNodes.chunk));
    const [tokens, slots, remote, dedup, imbalance, padding] = numbers.map(({ value }) => value);
    expect([tokens, slots]).toEqual([5, 7]);
    expect(remote).toBeCloseTo(4 / 5, 12);
    expect(dedup).toBeCloseTo(7 / 5, 12);
    expect(imbalance).toBeCloseTo(2 / (7 / 4), 12);
    expect(padding).toBe(0);
  });

  it("buffers: blocks by source when fused, by expert with padding and overflow when permuted", async () => {
    const fused = buffersModel(await frameOf(twoNodes.header, twoNodes.chunk), DEFAULT_STATE);
    expect(fused.strips[1].segments.map(({ id, firstRow, numRows }) => [id, firstRow, numRows])).toEqual([
      [0, 0, 1],
      [2, 1, 1],
    ]);
    expect(fused.rowAt(1, 1)).toEqual({ srcRank: 2, token: 0 });
    for (const { settings, rank, segments, cut } of bufferSegments) {
      const header: TraceHeader = {
        ...twoNodes.header,
        style: "hybrid-ep",
        settings: { ...twoNodes.header.settings, ...settings },
      };
      const strip = buffersModel(await frameOf(header, twoNodes.chunk), DEFAULT_STATE).strips[rank];
      expect(strip.segments.map(({ kind, id, firstRow, numRows }) => [kind, id, firstRow, numRows])).toEqual(segments);
      expect(strip.cut).toBe(cut);
    }
  });

  it("token: rows, weights and the order of combine", async () => {
    const model = tokenModel(await frameOf(twoNodes.header, twoNodes.chunk), { ...DEFAULT_STATE, token: [0, 1] });
    expect(model.slots.map(({ expert, rank, node, row }) => [expert, rank, node, row])).toEqual([
      [2, 1, 0, 0],
      [6, 3, 1, 0],
    ]);
    expect(model.weightSum).toBe(1);
    expect(combineOrder(model)).toBe("[row 0 of rank 1] of node 0 + [row 0 of rank 3] of node 1");
    const nothing = tokenModel(await frameOf(twoNodes.header, twoNodes.chunk), { ...DEFAULT_STATE, token: [0, 2] });
    expect(combineOrder(nothing)).toMatch(/^zeros/);
    expect([...model.strip]).toEqual([0, 1, Number.NaN]);
  });

  it("timeline: waiting apart, median over ranks, the last one named", async () => {
    const model = timelineModel(await frameOf(twoNodes.header, twoNodes.chunk), DEFAULT_STATE);
    expect(
      model.stats.map(({ name, waiting, minUs, medianUs, maxUs, slowest }) => [
        name,
        waiting,
        minUs,
        medianUs,
        maxUs,
        slowest,
      ]),
    ).toEqual([
      ["dispatch.transfer", false, 1, 2.5, 4, 3],
      ["dispatch.wait", true, 0, 1.5, 3, 0],
    ]);
    expect(model.clock).toBe("measured");
    // All end at 14 us, rank 3 without having waited.
    expect([model.lastRank, model.endUs]).toEqual([3, 4]);
    const early = timelineModel(await frameOf(twoNodes.header, twoNodes.chunk), { ...DEFAULT_STATE, time: [0, 0.5] });
    expect(early.names).toEqual(["dispatch.transfer"]);
  });

  it("timeline: waiting under the name of its work is a phase of its own", async () => {
    const phases = twoNodes.chunk.phases.map((phase) => ({ ...phase, name: "dispatch" }));
    const model = timelineModel(await frameOf(twoNodes.header, { ...twoNodes.chunk, phases }), DEFAULT_STATE);
    expect(model.stats.map(({ name, waiting, maxUs }) => [name, waiting, maxUs])).toEqual([
      ["dispatch", false, 4],
      ["dispatch.wait", true, 3],
    ]);
  });

  it("compare: differences by key, shapes that differ are named", async () => {
    const a = await frameOf(twoNodes.header, twoNodes.chunk);
    const more = { ...twoNodes.chunk, topkIdx: [Int32Array.of(0, 1, 2, 6, 3, 7), ...twoNodes.chunk.topkIdx.slice(1)] };
    const b = await frameOf(twoNodes.header, more);
    const model = compareModel(a, b, DEFAULT_STATE);
    expect(model.mismatch).toEqual([]);
    const experts = model.changes.find(({ kind }) => kind === "slots per expert")?.changes;
    expect(experts).toEqual([
      { what: "expert 3", a: 0, b: 1, difference: 1, log2: null },
      { what: "expert 7", a: 0, b: 1, difference: 1, log2: null },
    ]);
    const hybrid = await frameOf({ ...twoNodes.header, style: "hybrid-ep" }, twoNodes.chunk);
    expect(compareModel(a, hybrid, DEFAULT_STATE).mismatch).toEqual(["style: fused in A, hybrid-ep in B"]);
  });

  it("search: words, letters, bare numbers, nothing out of range", async () => {
    const { header } = twoNodes;
    const labels = (query: string) => search(query, header, 1).map(({ label }) => label.split(":")[0]);
    expect(labels("e5")).toEqual(["expert 5 on rank 2"]);
    expect(labels("rank 2 token 1")).toEqual(["token 1 of rank 2"]);
    expect(labels("3")).toEqual(["expert 3 on rank 1", "rank 3", "rank 3", "token 3 of rank 1"]);
    expect(labels("node 1")).toEqual(["node 1"]);
    expect(labels("rank 4")).toEqual([]);
    expect(labels("hello")).toEqual([]);
  });
});
