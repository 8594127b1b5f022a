import type { Phase } from "../../core/backend.ts";
import type { HandleData } from "../../core/handle/handle.ts";
import { newHandle } from "../../core/layout/positions.ts";
import type { TraceChunk, TraceHeader } from "../../core/trace/format.ts";
import type { StepSummary } from "../../core/trace/read.ts";
import type { Placement } from "./state.ts";

export interface OpenOptions {
  /** Where the ranks of a routing file are. */
  readonly placement: Placement;
  readonly signal?: AbortSignal;
  /** 0..1 of the work done. */
  readonly progress?: (fraction: number) => void;
}

/** A file as the views see it, whatever it was: a trace, or a routing or handle file made to look like one. */
export interface Dataset {
  readonly name: string;
  readonly kind: "trace" | "routing" | "handle";
  readonly header: TraceHeader;
  readonly hasWeights: boolean;
  readonly hasWaits: boolean;
  /** Things the reader must know: what was assumed, what is missing. */
  readonly notes: readonly string[];
  summary(step: number): Promise<StepSummary>;
  phases(step: number, layer: number): Promise<Phase[]>;
  chunk(step: number, layer: number): Promise<TraceChunk>;
  close(): Promise<void>;
}

/** What a view draws from: one (step, layer) of one file. */
export interface Frame {
  readonly dataset: Dataset;
  readonly header: TraceHeader;
  readonly step: number;
  readonly layer: number;
  readonly summary: StepSummary;
  readonly phases: readonly Phase[];
  /** The tokens; null where the summary is enough. */
  readonly chunk: TraceChunk | null;
}

/** Reads what a view needs of (step, layer), which are clamped to what the file has. */
export async function loadFrame(dataset: Dataset, step: number, layer: number, needsChunk: boolean): Promise<Frame> {
  const { header } = dataset;
  const at = { step: Math.min(step, header.numSteps - 1), layer: Math.min(layer, header.numLayers - 1) };
  const summary = await dataset.summary(at.step);
  const chunk = needsChunk || summary.traffic === null ? await dataset.chunk(at.step, at.layer) : null;
  const phases = chunk?.phases ?? (await dataset.phases(at.step, at.layer));
  return { dataset, header, ...at, summary, phases, chunk };
}

const layouts = new WeakMap<TraceChunk, HandleData>();

/** Where every row of the chunk lies (design 2.3, 2.5): a pure function of the routing, computed once per chunk. */
export function layoutOf(frame: Frame): HandleData | null {
  const { chunk, header } = frame;
  if (chunk === null) return null;
  let layout = layouts.get(chunk);
  if (layout === undefined) {
    const { topk, settings } = header;
    const routings = chunk.topkIdx.map((topkIdx, rank) => {
      return { rank, numTokens: topkIdx.length / topk, topk, topkIdx, topkWeights: null };
    });
    layout = newHandle(header.style, routings, header, settings);
    layouts.set(chunk, layout);
  }
  return layout;
}

/** [R] tokens of every rank in the frame's layer. */
export function tokensPerRank(frame: Frame): Int32Array {
  const { numRanks } = frame.header;
  return frame.summary.numTokens.subarray(frame.layer * numRanks, (frame.layer + 1) * numRanks);
}

export function rankOf(header: TraceHeader, expert: number): number {
  return Math.floor(expert / (header.numExperts / header.numRanks));
}

export function nodeOf(header: TraceHeader, rank: number): number {
  return Math.floor(rank / header.ranksPerNode);
}

export function numNodes(header: TraceHeader): number {
  return header.numRanks / header.ranksPerNode;
}

/** Logical expert of a physical one (EPLB replicas), itself without a map. */
export function logicalOf(header: TraceHeader, layer: number, expert: number): number {
  const maps = header.physicalToLogical;
  return maps ? maps[maps.length === 1 ? 0 : layer][expert] : expert;
}
