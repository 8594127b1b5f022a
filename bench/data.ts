/** The inputs of a case: routing, rows that change from round to round, and outputs that are reused. */
import type { Backend, DispatchSettings, RoutingInput } from "../core/backend.ts";
import { type DType, elementBytes, SCALE_BLOCK, SUM_DTYPES } from "../core/dtype/dtype.ts";
import { Unavailable } from "../core/errors.ts";
import { generateRouting } from "../core/routing/generate.ts";
import { type RoutingFile, splitRanks } from "../core/routing/import/index.ts";
import { bytesOf, type Tensor, tensor } from "../core/tensor.ts";
import type { BenchCase } from "./cases.ts";

export interface BenchRouting {
  readonly topkIdx: readonly Tensor[];
  readonly topkWeights: readonly Tensor[];
}

export async function makeRouting(bench: BenchCase, file: RoutingFile | null): Promise<BenchRouting> {
  const { numRanks, numExperts, topk, tokensPerRank, routing } = bench;
  if ("workload" in routing) {
    const { workload } = routing;
    const made = generateRouting({ workload, seed: 1, numRanks, numTokens: tokensPerRank, numExperts, topk });
    return withWeights(made);
  }
  if (file === null) throw new Unavailable(`case ${bench.name} runs on real routing: pass it with --routing FILE`);
  return withWeights(splitRanks(await file.layer(routing.layer), numRanks));
}

function withWeights(made: readonly { topkIdx: Tensor; topkWeights: Tensor | null }[]): BenchRouting {
  return {
    topkIdx: made.map((rank) => rank.topkIdx),
    topkWeights: made.map((rank) => rank.topkWeights ?? tensor("fp32", rank.topkIdx.shape)),
  };
}

export function benchSettings(bench: BenchCase): DispatchSettings {
  return {
    numExperts: bench.numExperts,
    expertAlignment: 1,
    numWorstTokens: 0,
    padMultiple: 1,
    numPermutedTokens: null,
  };
}

export function routingInput({ topkIdx, topkWeights }: BenchRouting): RoutingInput {
  return { topkIdx, topkWeights };
}

interface Spec {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Tensors where the backend wants them: its own memory when it offers `allocate`. */
export function allocate(backend: Backend, specs: readonly Spec[]): Tensor[] {
  const own = backend as Backend & { allocate?: (specs: readonly Spec[]) => Tensor[] };
  return own.allocate?.(specs) ?? specs.map(({ dtype, shape }) => tensor(dtype, shape));
}

/** Fills rows with finite values of ordinary size: a block of random codes, repeated. */
export function fillRows(rows: readonly Tensor[], seed: number): void {
  let state = seed | 1;
  const block = new Uint8Array(1 << 20);
  const words = new Uint32Array(block.buffer);
  const { dtype } = rows[0];
  for (let i = 0; i < words.length; i++) {
    state = Math.imul(state, 1664525) + 1013904223;
    words[i] = ordinary(dtype, state);
  }
  for (const value of rows) {
    const bytes = bytesOf(value);
    for (let at = 0; at < bytes.length; at += block.length) {
      bytes.set(block.subarray(0, Math.min(block.length, bytes.length - at)), at);
    }
  }
}

/** Random bits whose exponents are those of values around 1. */
function ordinary(dtype: DType, bits: number): number {
  if (dtype === "bf16" || dtype === "fp32") return (bits & 0x80ff80ff) | 0x3f003f00;
  if (dtype === "fp16") return (bits & 0x83ff83ff) | 0x38003800;
  return bits & 0xbfbfbfbf;
}

/** Makes the rows of this round differ from the last: the first element of every row says row and round. */
export function stamp(rows: readonly Tensor[], round: number): void {
  for (const { data, shape, dtype } of rows) {
    const [numRows, width] = shape;
    const exponent = dtype === "fp16" ? 0x3c00 : dtype === "bf16" ? 0x3f80 : 0x38;
    for (let row = 0; row < numRows; row++) {
      const mark = (row * 31 + round * 7) & (SUM_DTYPES.includes(dtype) ? 0x7f : 7);
      (data as Uint16Array)[row * width] = dtype === "fp32" ? 1 + mark / 128 : exponent | mark;
    }
  }
}

/** Bytes of a row as it moves: its elements and, in fp8, its scales. */
export function movedRowBytes({ hidden, dtype }: BenchCase): number {
  return hidden * elementBytes(dtype) + (dtype === "fp8e4m3" ? 4 * Math.ceil(hidden / SCALE_BLOCK) : 0);
}
