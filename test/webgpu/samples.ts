/** Random requests over every bit pattern, from a seed. Runs in Node and in the browser. */
import type { DispatchSettings, RoutingInput } from "../../core/backend.ts";
import type { DType } from "../../core/dtype/dtype.ts";
import { bytesOf, type Tensor, tensor } from "../../core/tensor.ts";

/** Whole numbers below `limit` from a seed (mulberry32). */
export function randomNumbers(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * limit);
  };
}

export interface Shape {
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly numExperts: number;
  readonly topk: number;
  readonly hidden: number;
  readonly maxTokens: number;
}

export function randomShape(random: (limit: number) => number): Shape {
  const nodes = 1 + random(3);
  const ranksPerNode = 1 + random(3);
  const numRanks = nodes * ranksPerNode;
  const numExperts = numRanks * (1 + random(4));
  return {
    numRanks,
    ranksPerNode,
    numExperts,
    topk: 1 + random(Math.min(numExperts, 9)),
    hidden: [1, 2, 3, 7, 8, 16, 31, 64, 130, 257][random(10)],
    maxTokens: random(40),
  };
}

/** Rows of random bits, with the special values of the dtype mixed in: zeros, subnormals, infinities and NaN. */
export function randomRows(random: (limit: number) => number, dtype: DType, shape: readonly number[]): Tensor {
  const value = tensor(dtype, shape);
  const bytes = bytesOf(value);
  for (let i = 0; i < bytes.length; i++) bytes[i] = random(256);
  const style = random(3);
  if (style === 0) return value;
  // Exponents near each other, so that sums meet and cancel; or the bottom of the range, where subnormals live.
  const top = style === 1 ? { bf16: 0x3f00, fp16: 0x3800, fp32: 0x3f000000 } : { bf16: 0, fp16: 0, fp32: 0 };
  const mask = { bf16: 0x81ff, fp16: 0x87ff, fp32: 0x81ffffff };
  if (dtype !== "bf16" && dtype !== "fp16" && dtype !== "fp32") return value;
  const words = dtype === "fp32" ? new Uint32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
  for (let i = 0; i < words.length; i++) if (random(50) > 0) words[i] = (words[i] & mask[dtype]) | top[dtype];
  return value;
}

export function randomRouting(
  random: (limit: number) => number,
  shape: Shape,
  idDtype: "i32" | "i64",
): Extract<RoutingInput, { topkIdx: unknown }> {
  const skewed = random(3) === 0;
  const numTokens = Array.from({ length: shape.numRanks }, () => random(shape.maxTokens + 1));
  const topkIdx = numTokens.map((count) => {
    const ids: number[] = [];
    for (let token = 0; token < count; token++) {
      const chosen = new Set<number>();
      for (let slot = 0; slot < shape.topk; slot++) {
        let expert = skewed ? Math.min(random(shape.numExperts), random(shape.numExperts)) : random(shape.numExperts);
        while (chosen.has(expert)) expert = (expert + 1) % shape.numExperts;
        const dropped = random(6) === 0;
        if (!dropped) chosen.add(expert);
        ids.push(dropped ? -1 : expert);
      }
    }
    return idDtype === "i32"
      ? tensor("i32", [count, shape.topk], Int32Array.from(ids))
      : tensor("i64", [count, shape.topk], BigInt64Array.from(ids, BigInt));
  });
  const topkWeights = numTokens.map((count) => randomRows(random, "fp32", [count, shape.topk]));
  return { topkIdx, topkWeights };
}

export function randomSettings(random: (limit: number) => number, shape: Shape): DispatchSettings {
  const padMultiple = [0, 1, 2, 4][random(4)];
  return {
    numExperts: shape.numExperts,
    expertAlignment: [0, 1, 8][random(3)],
    numWorstTokens: random(3) === 0 ? 1 + random(2 * shape.maxTokens + 2) : 0,
    padMultiple,
    numPermutedTokens: random(3) === 0 ? Math.max(1, padMultiple) * random(2 * shape.maxTokens + 2) : null,
  };
}
