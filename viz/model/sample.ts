import type { Phase } from "../../core/backend.ts";
import { memorySink } from "../../core/io/bytes.ts";
import type { TraceChunk, TraceHeader } from "../../core/trace/format.ts";
import { summarizeChunk } from "../../core/trace/summary.ts";
import { writeTrace } from "../../core/trace/write.ts";
import type { SampleName } from "./sample-names.ts";

/** Made, not shipped: a routing with hot experts on 16 ranks in 2 nodes, times from a simple bandwidth model. */
export async function sampleTrace(name: SampleName): Promise<Uint8Array> {
  const style = name === "hybrid-ep" ? "hybrid-ep" : "fused";
  const header: TraceHeader = {
    producer: "the viewer's sample",
    clock: "modelled",
    numSteps: 2,
    numLayers: 8,
    numRanks: 16,
    ranksPerNode: 8,
    numExperts: 64,
    topk: 4,
    hidden: 4096,
    dtype: "bf16",
    rowBytes: 8192,
    style,
    settings: {
      expertAlignment: 1,
      numWorstTokens: 0,
      padMultiple: style === "fused" ? 1 : 16,
      numPermutedTokens: style === "fused" ? null : 704,
    },
  };
  const sink = memorySink(`sample-${name}`);
  await writeTrace(sink, header, (step, layer) => sampleChunk(header, step, layer, name === "balanced"));
  return sink.bytes() ?? new Uint8Array(0);
}

function sampleChunk(header: TraceHeader, step: number, layer: number, balanced: boolean): TraceChunk {
  const random = lcg(1 + step * 131 + layer * 17);
  const popularity = Float64Array.from({ length: header.numExperts }, () => 0.25 + random() ** 3 * 4);
  popularity[Math.floor(random() * header.numExperts)] *= 4;
  if (layer > 0) popularity[Math.floor(random() * header.numExperts)] = 0;
  if (balanced) popularity.forEach((value, i) => popularity.fill(Math.sqrt(value), i, i + 1));
  const topkIdx: Int32Array[] = [];
  const topkWeights: Float32Array[] = [];
  for (let rank = 0; rank < header.numRanks; rank++) {
    const tokens = 128 - (rank % 4) * 8;
    const ids = new Int32Array(tokens * header.topk).fill(-1);
    const weights = new Float32Array(ids.length);
    for (let token = 0; token < tokens; token++) {
      const chosen = pick(popularity, header.topk, random);
      const raw = chosen.map(() => 0.1 + random()).sort((a, b) => b - a);
      const total = raw.reduce((a, b) => a + b, 0);
      // A few padding tokens at the end of the batch choose nothing.
      if (token >= tokens - 2) continue;
      chosen.forEach((expert, slot) => {
        ids[token * header.topk + slot] = expert;
        weights[token * header.topk + slot] = raw[slot] / total;
      });
    }
    topkIdx.push(ids);
    topkWeights.push(weights);
  }
  return { topkIdx, topkWeights, phases: samplePhases(header, topkIdx) };
}

/** Rows over a 200 GB/s link plus a start-up time; who is done early waits for the last. */
function samplePhases(header: TraceHeader, topkIdx: readonly Int32Array[]): Phase[] {
  const { trafficRows } = summarizeChunk(header, topkIdx);
  const { numRanks, rowBytes } = header;
  const phases: Phase[] = [];
  const time = (rank: number, other: (i: number) => number) => {
    let rows = 0;
    for (let i = 0; i < numRanks; i++) if (i !== rank) rows += trafficRows[other(i)];
    return 4 + (rows * rowBytes) / 200e3;
  };
  const move = Array.from({ length: numRanks }, (_, r) =>
    Math.max(
      time(r, (i) => r * numRanks + i),
      time(r, (i) => i * numRanks + r),
    ),
  );
  const slowest = Math.max(...move);
  const expert = Array.from({ length: numRanks }, (_, r) => {
    let rows = 0;
    for (let i = 0; i < numRanks; i++) rows += trafficRows[i * numRanks + r];
    return 3 + rows * 0.03;
  });
  const slowestExpert = Math.max(...expert);
  for (let rank = 0; rank < numRanks; rank++) {
    let at = 0;
    const add = (name: string, durationUs: number, waiting = false) => {
      phases.push({ rank, name, startUs: at, durationUs, ...(waiting ? { waiting } : {}) });
      at += durationUs;
    };
    add("dispatch.layout", 2);
    add("dispatch.transfer", move[rank]);
    add("dispatch.wait", slowest - move[rank], true);
    add("experts", expert[rank]);
    add("combine.wait", slowestExpert - expert[rank], true);
    add("combine.transfer", move[rank]);
    add("combine.reduce", 3);
  }
  return phases;
}

function pick(popularity: Float64Array, count: number, random: () => number): number[] {
  const left = Float64Array.from(popularity);
  return Array.from({ length: count }, () => {
    let at = random() * left.reduce((a, b) => a + b, 0);
    let expert = 0;
    while (expert < left.length - 1 && (at -= left[expert]) > 0) expert++;
    while (left[expert] === 0) expert = (expert + 1) % left.length;
    left[expert] = 0;
    return expert;
  });
}

/** Numerical Recipes' generator: the same sample everywhere. */
function lcg(seed: number): () => number {
  let state = seed >>> 0;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  for (let i = 0; i < 8; i++) next();
  return next;
}
