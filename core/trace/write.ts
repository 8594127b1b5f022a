import type { Phase } from "../backend.ts";
import { InvalidArgument } from "../errors.ts";
import type { ByteSink } from "../io/bytes.ts";
import { type SafetensorsEntry, writeSafetensors } from "../io/safetensors/index.ts";
import { type Tensor, tensor } from "../tensor.ts";
import {
  BUFFER_ROWS,
  checkHeader,
  encodeMetadata,
  MAX_SUMMARY_CELLS,
  PHASE_COLUMNS,
  TOTALS,
  type TraceChunk,
  type TraceHeader,
} from "./format.ts";
import { checkChunk, summarizeChunk } from "./summary.ts";

/**
 * Writes a trace chunk by chunk and commits the sink, or aborts it and rethrows. Memory: the summary, the phases and the
 * wait matrices of all chunks, and the routing of one. `chunk` is called for every (step, layer) in order, and again for
 * each of topk_idx and topk_weights, and must give the same answer each time: sizes have to be known before the first
 * byte, so that the summary can lie in front. Throws InvalidArgument for a header or chunk that breaks the rules.
 */
export async function writeTrace(
  sink: ByteSink,
  header: TraceHeader,
  chunk: (step: number, layer: number) => Promise<TraceChunk> | TraceChunk,
): Promise<void> {
  const plan = new TracePlan(header);
  try {
    checkHeader(header, (name, expected, received) => badArgument(`header.${name}`, expected, received));
    for (const [step, layer] of chunks(header)) plan.add(step, layer, await chunk(step, layer));
  } catch (error) {
    await sink.abort();
    throw error;
  }
  await writeSafetensors(sink, encodeMetadata(header, plan.phaseNames), plan.entries(chunk));
}

type SlotArray = Int16Array | Int32Array | Float32Array;

/** What the first pass learns: the summary tensors, the phases, and the sizes of the rest. */
class TracePlan {
  readonly phaseNames: string[] = [];
  readonly #header: TraceHeader;
  readonly #phases: number[] = [];
  readonly #summary: Record<string, Tensor<"i32">>;
  #waitUs: Tensor<"fp32"> | null = null;
  #numTokens = 0;
  #hasWeights = false;

  constructor(header: TraceHeader) {
    this.#header = header;
    const { numSteps, numLayers, numRanks, numExperts } = header;
    const chunked = (...shape: number[]) => tensor("i32", [numSteps, numLayers, ...shape]);
    const hasTraffic = numSteps * numLayers * numRanks * numRanks <= MAX_SUMMARY_CELLS;
    this.#summary = {
      totals: chunked(TOTALS.length),
      num_tokens: chunked(numRanks),
      expert_load: chunked(numExperts),
      buffer_rows: chunked(numRanks, BUFFER_ROWS.length),
      phase_end: chunked(),
      ...(hasTraffic ? { traffic_slots: chunked(numRanks, numRanks), traffic_rows: chunked(numRanks, numRanks) } : {}),
    };
  }

  add(step: number, layer: number, chunk: TraceChunk): void {
    const { numSteps, numLayers, numRanks } = this.#header;
    if (step === 0 && layer === 0) {
      this.#hasWeights = chunk.topkWeights !== null;
      if (chunk.waitUs) this.#waitUs = tensor("fp32", [numSteps, numLayers, numRanks, numRanks]);
    }
    this.#check(step, layer, chunk);
    const summary = summarizeChunk(this.#header, chunk.topkIdx);
    this.#numTokens += summary.totals[0];
    for (const phase of chunk.phases) this.#addPhase(phase);
    const values: Record<string, ArrayLike<number>> = {
      totals: summary.totals,
      num_tokens: summary.numTokens,
      expert_load: summary.expertLoad,
      buffer_rows: summary.bufferRows,
      phase_end: [this.#phases.length / PHASE_COLUMNS.length],
      traffic_slots: summary.trafficSlots,
      traffic_rows: summary.trafficRows,
    };
    const at = step * numLayers + layer;
    for (const [name, { data }] of Object.entries(this.#summary)) data.set(values[name], at * values[name].length);
    if (chunk.waitUs) this.#waitUs?.data.set(chunk.waitUs, at * numRanks * numRanks);
  }

  entries(chunk: (step: number, layer: number) => Promise<TraceChunk> | TraceChunk): SafetensorsEntry[] {
    const phases = tensor("i64", [this.#phases.length / PHASE_COLUMNS.length, PHASE_COLUMNS.length]);
    this.#phases.forEach((value, i) => {
      phases.data[i] = BigInt(value);
    });
    const { numExperts, topk } = this.#header;
    const shape = [this.#numTokens, topk];
    // 16-bit ids wherever they fit: the routing is most of the file.
    const narrow = numExperts <= 0x7fff;
    const self = this;
    async function* slots(encode: (chunk: TraceChunk, rank: number) => SlotArray) {
      for (const [step, layer] of chunks(self.#header)) {
        const given = await chunk(step, layer);
        for (let rank = 0; rank < self.#header.numRanks; rank++) {
          const value = encode(given, rank);
          self.#expectSameTokens(step, layer, rank, value.length);
          yield new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
        }
      }
    }
    return [
      { name: "phases", tensor: phases },
      ...Object.entries(this.#summary).map(([name, value]) => ({ name: `summary.${name}`, tensor: value })),
      {
        name: "topk_idx",
        dtype: narrow ? "i16" : "i32",
        shape,
        chunks: () => slots(({ topkIdx }, rank) => (narrow ? Int16Array.from(topkIdx[rank]) : topkIdx[rank])),
      },
      ...(this.#hasWeights ? [this.#weights(shape, slots)] : []),
      ...(this.#waitUs ? [{ name: "wait_us", tensor: this.#waitUs }] : []),
    ];
  }

  #weights(
    shape: number[],
    slots: (encode: (chunk: TraceChunk, rank: number) => SlotArray) => AsyncIterable<Uint8Array>,
  ): SafetensorsEntry {
    const encode = (given: TraceChunk, rank: number) => given.topkWeights?.[rank] ?? new Float32Array(0);
    return { name: "topk_weights", dtype: "fp32", shape, chunks: () => slots(encode) };
  }

  #addPhase(phase: Phase): void {
    const { numRanks } = this.#header;
    if (!Number.isInteger(phase.rank) || phase.rank < -1 || phase.rank >= numRanks) {
      throw badArgument("phases.rank", `-1..${numRanks - 1}`, `${phase.rank}`);
    }
    if (!Number.isFinite(phase.startUs) || !(phase.durationUs >= 0 && phase.durationUs < Number.POSITIVE_INFINITY)) {
      throw badArgument("phases", "a finite start and a duration >= 0", `${phase.startUs}, ${phase.durationUs}`);
    }
    let name = this.phaseNames.indexOf(phase.name);
    if (name < 0) name = this.phaseNames.push(phase.name) - 1;
    const nanoseconds = (timeUs: number) => Math.round(timeUs * 1000);
    const start = nanoseconds(phase.startUs);
    this.#phases.push(phase.rank, name, start, nanoseconds(phase.durationUs), phase.waiting ? 1 : 0);
  }

  #check(step: number, layer: number, chunk: TraceChunk): void {
    const header = this.#header;
    const where = `chunk (step ${step}, layer ${layer})`;
    const expect = (name: string, expected: number | string, received: number | string) => {
      if (expected !== received) throw badArgument(`${where}.${name}`, `${expected}`, `${received}`);
    };
    const given = (value: unknown) => (value ? "given" : "null");
    expect("topkIdx.length", header.numRanks, chunk.topkIdx.length);
    expect("topkWeights", given(this.#hasWeights), given(chunk.topkWeights));
    expect("waitUs", given(this.#waitUs), given(chunk.waitUs));
    if (chunk.waitUs) expect("waitUs.length", header.numRanks ** 2, chunk.waitUs.length);
    if (chunk.topkWeights) expect("topkWeights.length", header.numRanks, chunk.topkWeights.length);
    chunk.topkIdx.forEach((ids, rank) => {
      const tokens = header.numTokens?.[rank] ?? Math.floor(ids.length / header.topk);
      expect(`topkIdx[${rank}].length`, tokens * header.topk, ids.length);
      if (chunk.topkWeights) expect(`topkWeights[${rank}].length`, ids.length, chunk.topkWeights[rank].length);
    });
    checkChunk(header, chunk.topkIdx, (expected, received, rank, token, slot) => {
      const problem = { name: `${where}.topkIdx`, expected, received, where: { rank, token, slot } };
      return new InvalidArgument({ ...problem, remedy: "use -1 for a slot without a choice" });
    });
  }

  /** The sizes were fixed by the first pass: a chunk that changed since would shift everything behind it. */
  #expectSameTokens(step: number, layer: number, rank: number, received: number): void {
    const { numLayers, numRanks, topk } = this.#header;
    const expected = this.#summary.num_tokens.data[(step * numLayers + layer) * numRanks + rank] * topk;
    if (received === expected) return;
    const name = `chunk (step ${step}, layer ${layer}) of rank ${rank}`;
    throw badArgument(name, `${expected} slots as at the first call`, `${received}`);
  }
}

function* chunks(header: TraceHeader): Generator<[number, number]> {
  for (let step = 0; step < header.numSteps; step++) {
    for (let layer = 0; layer < header.numLayers; layer++) yield [step, layer];
  }
}

function badArgument(name: string, expected: string, received: string): InvalidArgument {
  return new InvalidArgument({ name, expected, received, remedy: "correct what the trace is made from" });
}
