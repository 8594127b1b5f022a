import type { Phase } from "../backend.ts";
import type { DType } from "../dtype/dtype.ts";
import { InvalidArgument, InvalidFile } from "../errors.ts";
import type { ByteSource } from "../io/bytes.ts";
import { openSafetensors, type SafetensorsFile } from "../io/safetensors/index.ts";
import { BUFFER_ROWS, decodeMetadata, PHASE_COLUMNS, TOTALS, type TraceChunk, type TraceHeader } from "./format.ts";
import { checkChunk } from "./summary.ts";

/** The summary of one step, all layers: a few reads, no tokens. */
export interface StepSummary {
  /** [layers, 6], columns TOTALS. */
  readonly totals: Int32Array;
  /** [layers, R] */
  readonly numTokens: Int32Array;
  /** [layers, E] slots per physical expert. */
  readonly expertLoad: Int32Array;
  /** [layers, R, 4], columns BUFFER_ROWS. */
  readonly bufferRows: Int32Array;
  /** [layers, R, R] slots and rows from row rank to column rank; null when the group is too large to store them. */
  readonly traffic: { readonly slots: Int32Array; readonly rows: Int32Array } | null;
}

export interface TraceFile {
  readonly name: string;
  readonly header: TraceHeader;
  readonly phaseNames: readonly string[];
  readonly hasWeights: boolean;
  readonly hasWaits: boolean;
  /** Throws InvalidArgument for a step that is not there, InvalidFile for a damaged file. */
  summary(step: number): Promise<StepSummary>;
  /** The phases of one (step, layer) alone. */
  phases(step: number, layer: number): Promise<Phase[]>;
  /** The routing of one (step, layer), its ids checked, with its phases and waits. */
  chunk(step: number, layer: number): Promise<TraceChunk>;
  close(): Promise<void>;
}

/** Opens a trace. Throws InvalidFile naming the file and the field for another format, version, or damaged tensors. */
export async function openTrace(source: ByteSource): Promise<TraceFile> {
  const file = await openSafetensors(source);
  try {
    return await new TraceReader(file).open();
  } catch (error) {
    await file.close();
    throw error;
  }
}

class TraceReader {
  readonly #file: SafetensorsFile;
  #header: TraceHeader;
  #phaseNames: string[];
  /** First token of each (step, layer) in topk_idx, and the end. */
  #tokenOffset: number[] = [0];
  #numTokens = new Int32Array(0);
  #phaseEnd = new Int32Array(0);

  constructor(file: SafetensorsFile) {
    this.#file = file;
    const { header, phaseNames } = decodeMetadata(file.metadata, file.name);
    this.#header = header;
    this.#phaseNames = phaseNames;
  }

  async open(): Promise<TraceFile> {
    const { numSteps, numLayers, numRanks, topk } = this.#header;
    this.#checkTensors();
    this.#numTokens = (await this.#file.read("summary.num_tokens")).data as Int32Array<ArrayBuffer>;
    this.#phaseEnd = (await this.#file.read("summary.phase_end")).data as Int32Array<ArrayBuffer>;
    for (let chunk = 0, end = 0; chunk < numSteps * numLayers; chunk++) {
      for (let i = chunk * numRanks; i < (chunk + 1) * numRanks; i++) end += this.#numTokens[i];
      this.#tokenOffset.push(end);
    }
    const tokens = this.#tokenOffset[numSteps * numLayers];
    this.#expectShape("topk_idx", [this.#header.numExperts <= 0x7fff ? "i16" : "i32"], [tokens, topk]);
    if (this.#file.tensors.has("topk_weights")) this.#expectShape("topk_weights", ["fp32"], [tokens, topk]);
    const phases = this.#phaseEnd[numSteps * numLayers - 1];
    this.#expectShape("phases", ["i64"], [phases, PHASE_COLUMNS.length]);
    return {
      name: this.#file.name,
      header: this.#header,
      phaseNames: this.#phaseNames,
      hasWeights: this.#file.tensors.has("topk_weights"),
      hasWaits: this.#file.tensors.has("wait_us"),
      summary: (step) => this.#summary(step),
      phases: (step, layer) => this.#phases(step, layer),
      chunk: (step, layer) => this.#chunk(step, layer),
      close: () => this.#file.close(),
    };
  }

  #checkTensors(): void {
    const { numSteps: s, numLayers: l, numRanks: r, numExperts: e } = this.#header;
    this.#expectShape("summary.totals", ["i32"], [s, l, TOTALS.length]);
    this.#expectShape("summary.num_tokens", ["i32"], [s, l, r]);
    this.#expectShape("summary.expert_load", ["i32"], [s, l, e]);
    this.#expectShape("summary.buffer_rows", ["i32"], [s, l, r, BUFFER_ROWS.length]);
    this.#expectShape("summary.phase_end", ["i32"], [s, l]);
    for (const name of ["summary.traffic_slots", "summary.traffic_rows"]) {
      if (this.#file.tensors.has("summary.traffic_rows")) this.#expectShape(name, ["i32"], [s, l, r, r]);
    }
    if (this.#file.tensors.has("wait_us")) this.#expectShape("wait_us", ["fp32"], [s, l, r, r]);
  }

  #expectShape(name: string, dtypes: readonly DType[], shape: readonly number[]): void {
    const entry = this.#file.tensors.get(name);
    const fits = entry?.shape.length === shape.length && shape.every((size, i) => size === entry.shape[i]);
    if (entry && fits && dtypes.includes(entry.dtype)) return;
    throw new InvalidFile({
      name: `tensor ${name}`,
      expected: `${dtypes.join(" or ")} [${shape.join(", ")}]`,
      received: entry ? `${entry.dtype} [${entry.shape.join(", ")}]` : "no such tensor",
      where: { file: this.#file.name },
      remedy: "the trace is damaged: write it again",
    });
  }

  async #step(name: string, step: number): Promise<Int32Array> {
    return (await this.#file.readRows(name, step, 1)).data as Int32Array;
  }

  async #summary(step: number): Promise<StepSummary> {
    this.#at(step, 0);
    const hasTraffic = this.#file.tensors.has("summary.traffic_rows");
    return {
      totals: await this.#step("summary.totals", step),
      numTokens: await this.#step("summary.num_tokens", step),
      expertLoad: await this.#step("summary.expert_load", step),
      bufferRows: await this.#step("summary.buffer_rows", step),
      traffic: hasTraffic
        ? {
            slots: await this.#step("summary.traffic_slots", step),
            rows: await this.#step("summary.traffic_rows", step),
          }
        : null,
    };
  }

  #at(step: number, layer: number): number {
    const { numSteps, numLayers } = this.#header;
    const check = (name: string, value: number, count: number) => {
      if (Number.isInteger(value) && value >= 0 && value < count) return;
      const problem = { name, expected: `0..${count - 1}`, received: `${value}` };
      throw new InvalidArgument({ ...problem, where: { file: this.#file.name }, remedy: `choose another ${name}` });
    };
    check("step", step, numSteps);
    check("layer", layer, numLayers);
    return step * numLayers + layer;
  }

  async #phases(step: number, layer: number): Promise<Phase[]> {
    const at = this.#at(step, layer);
    const begin = at === 0 ? 0 : this.#phaseEnd[at - 1];
    const count = this.#phaseEnd[at] - begin;
    const data = (await this.#file.readRows("phases", begin, count)).data as BigInt64Array;
    return Array.from({ length: count }, (_, i) => {
      const [rank, name, start, duration, waiting] = Array.from(data.subarray(i * 5, i * 5 + 5), Number);
      const phase = { rank, name: this.#phaseNames[name], startUs: start / 1000, durationUs: duration / 1000 };
      if (phase.name !== undefined && rank >= -1 && rank < this.#header.numRanks && duration >= 0) {
        return waiting ? { ...phase, waiting: true } : phase;
      }
      throw new InvalidFile({
        name: "phases",
        expected: `rank < ${this.#header.numRanks}, name < ${this.#phaseNames.length}, duration >= 0`,
        received: `${rank}, ${name}, ${duration}`,
        where: { file: this.#file.name, row: begin + i },
        remedy: "the trace is damaged: write it again",
      });
    });
  }

  async #chunk(step: number, layer: number): Promise<TraceChunk> {
    const at = this.#at(step, layer);
    const { numRanks, topk } = this.#header;
    const begin = this.#tokenOffset[at];
    const count = this.#tokenOffset[at + 1] - begin;
    const ids = Int32Array.from((await this.#file.readRows("topk_idx", begin, count)).data as Int16Array);
    const weights = this.#file.tensors.has("topk_weights")
      ? ((await this.#file.readRows("topk_weights", begin, count)).data as Float32Array)
      : null;
    const topkIdx: Int32Array[] = [];
    const topkWeights: Float32Array[] = [];
    for (let rank = 0, slot = 0; rank < numRanks; rank++) {
      const end = slot + this.#numTokens[at * numRanks + rank] * topk;
      topkIdx.push(ids.subarray(slot, end));
      if (weights) topkWeights.push(weights.subarray(slot, end));
      slot = end;
    }
    checkChunk(this.#header, topkIdx, (expected, received, rank, token, slot) => {
      const where = { file: this.#file.name, rank, token, slot };
      const remedy = "the trace is damaged: write it again";
      return new InvalidFile({ name: `topk_idx of step ${step}, layer ${layer}`, expected, received, where, remedy });
    });
    return {
      topkIdx,
      topkWeights: weights ? topkWeights : null,
      phases: await this.#phases(step, layer),
      waitUs: this.#file.tensors.has("wait_us") ? await this.#waits(at) : null,
    };
  }

  async #waits(at: number): Promise<Float32Array> {
    const { numLayers, numRanks } = this.#header;
    const step = (await this.#file.readRows("wait_us", Math.floor(at / numLayers), 1)).data as Float32Array;
    const cells = numRanks * numRanks;
    return step.subarray((at % numLayers) * cells, ((at % numLayers) + 1) * cells);
  }
}
