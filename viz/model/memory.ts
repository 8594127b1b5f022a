import type { TraceChunk, TraceHeader } from "../../core/trace/format.ts";
import type { StepSummary } from "../../core/trace/read.ts";
import { summarizeChunk } from "../../core/trace/summary.ts";
import type { Dataset } from "./dataset.ts";

export interface Scan {
  readonly signal?: AbortSignal;
  readonly progress?: (fraction: number) => void;
}

/** A dataset whose chunks come from `chunk`: its summary is counted here, layer by layer, in one pass over the step. */
export function countedDataset(
  about: Pick<Dataset, "name" | "kind" | "notes" | "close"> & { readonly hasWeights: boolean },
  header: TraceHeader,
  chunk: (step: number, layer: number) => Promise<TraceChunk>,
  hasWaits = false,
): Dataset & { count(step: number, scan: Scan): Promise<StepSummary> } {
  const summaries = new Map<number, Promise<StepSummary>>();
  const count = (step: number, scan: Scan) => {
    const known = summaries.get(step);
    if (known) return known;
    const counting = countStep(header, (layer) => chunk(step, layer), scan);
    summaries.set(step, counting);
    counting.catch(() => summaries.delete(step));
    return counting;
  };
  return {
    ...about,
    header,
    hasWaits,
    chunk,
    count,
    summary: (step) => count(step, {}),
    phases: async (step, layer) => [...(await chunk(step, layer)).phases],
  };
}

async function countStep(
  header: TraceHeader,
  chunk: (layer: number) => Promise<TraceChunk>,
  { signal, progress }: Scan,
): Promise<StepSummary> {
  const { numLayers, numRanks, numExperts } = header;
  const cells = numRanks * numRanks;
  const dense = numLayers * cells <= 8 << 20;
  const summary = {
    totals: new Int32Array(numLayers * 6),
    numTokens: new Int32Array(numLayers * numRanks),
    expertLoad: new Int32Array(numLayers * numExperts),
    bufferRows: new Int32Array(numLayers * numRanks * 4),
    traffic: dense ? { slots: new Int32Array(numLayers * cells), rows: new Int32Array(numLayers * cells) } : null,
  };
  for (let layer = 0; layer < numLayers; layer++) {
    signal?.throwIfAborted();
    const one = summarizeChunk(header, (await chunk(layer)).topkIdx);
    summary.totals.set(one.totals, layer * 6);
    summary.numTokens.set(one.numTokens, layer * numRanks);
    summary.expertLoad.set(one.expertLoad, layer * numExperts);
    summary.bufferRows.set(one.bufferRows, layer * numRanks * 4);
    summary.traffic?.slots.set(one.trafficSlots, layer * cells);
    summary.traffic?.rows.set(one.trafficRows, layer * cells);
    progress?.((layer + 1) / numLayers);
    await breathe();
  }
  return summary;
}

let lastBreath = 0;

/** Lets the page draw and take input, at most every 30 ms. */
export async function breathe(): Promise<void> {
  if (performance.now() - lastBreath < 30) return;
  await new Promise((resolve) => setTimeout(resolve, 0));
  lastBreath = performance.now();
}

/** Keeps the last `count` answers; a failed one is asked for again. */
export function remember<A extends number[], T>(
  make: (...args: A) => Promise<T>,
  count: number,
): (...args: A) => Promise<T> {
  const kept = new Map<string, Promise<T>>();
  return (...args) => {
    const key = args.join(",");
    const known = kept.get(key);
    const answer = known ?? make(...args);
    kept.delete(key);
    kept.set(key, answer);
    if (kept.size > count) kept.delete(kept.keys().next().value ?? "");
    if (!known) answer.catch(() => kept.delete(key));
    return answer;
  };
}
