/** Inputs for the wasm tests: made from a seed, the same for every backend. */
import { createHash } from "node:crypto";
import type { DispatchSettings } from "../../core/backend.ts";
import type { DType } from "../../core/dtype/dtype.ts";
import { type AnyTensor, bytesOf, type Tensor, tensor, toHost } from "../../core/tensor.ts";

/** mulberry32: 32 random bits per call. */
export function bitsFrom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** `topk` distinct experts per token, some slots dropped. */
export function randomRouting(ranks: number, tokens: number, experts: number, topk: number, seed: number) {
  const next = bitsFrom(seed);
  const topkIdx: Tensor<"i32">[] = [];
  const topkWeights: Tensor<"fp32">[] = [];
  for (let rank = 0; rank < ranks; rank++) {
    const ids = tensor("i32", [tokens, topk]);
    const weights = tensor("fp32", [tokens, topk]);
    for (let token = 0; token < tokens; token++) {
      const chosen = new Set<number>();
      while (chosen.size < topk) chosen.add(next() % experts);
      [...chosen].forEach((expert, slot) => {
        const dropped = next() % 13 === 0;
        ids.data[token * topk + slot] = dropped ? -1 : expert;
        weights.data[token * topk + slot] = dropped ? 0 : (next() % 1000) / 1000;
      });
    }
    topkIdx.push(ids);
    topkWeights.push(weights);
  }
  return { topkIdx, topkWeights };
}

/** Rows of any bits: NaN, infinities, subnormals and zeros included; `narrow` makes tiny magnitudes common. */
export function randomRows<D extends DType>(
  dtype: D,
  shape: readonly [number, number],
  seed: number,
  narrow = false,
): Tensor<D> {
  const next = bitsFrom(seed);
  const value = tensor(dtype, shape);
  const bytes = bytesOf(value);
  const wide = dtype === "fp32";
  const words = new (wide ? Uint32Array : Uint16Array)(bytes.buffer as ArrayBuffer, 0, bytes.length / (wide ? 4 : 2));
  // Exponents of a dtype's bottom: sums of such values land on both sides of 2^-126.
  const keep = wide ? 0x86ffffff : 0x86ff;
  for (let i = 0; i < words.length; i++) words[i] = narrow ? next() & keep : next();
  return value as Tensor<D>;
}

export function settings(numExperts: number, more: Partial<DispatchSettings> = {}): DispatchSettings {
  return { numExperts, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null, ...more };
}

/** Bytes of every tensor, for comparison. */
export async function bytesOfAll(values: readonly AnyTensor[] | null): Promise<Buffer[] | null> {
  if (values === null) return null;
  const host = await Promise.all(values.map((value) => toHost(value)));
  return host.map((value) => Buffer.from(bytesOf(value)));
}

/** One digest per tensor: expect() compares megabytes element by element, in minutes. */
export async function digests(values: readonly AnyTensor[]): Promise<string[]> {
  return ((await bytesOfAll(values)) ?? []).map(digest);
}

export function digest(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
