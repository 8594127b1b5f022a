import type { Random } from "./random.ts";

/** Writes distinct expert ids of one token to ids[at..at+count). */
export type Sampler = (random: Random, ids: Int32Array, at: number, count: number) => void;

/**
 * Sampling without replacement, one draw after the other, each from the categorical distribution over what is left
 * (Plackett-Luce; the same law as the top-k of log weights plus Gumbel noise). Draws come from an alias table (Walker,
 * Vose) and repeats are rejected, so the cost is linear in the slots; after 8 rejections in a row the draw is made exactly
 * from the remaining weights, so that skewed tables and topk = E cost O(E) and not forever.
 * `experts` gives the ids of the table's places (default 0..n-1).
 */
export function weightedSampler(weights: Float64Array, experts: Int32Array | null = null): Sampler {
  const n = weights.length;
  const { threshold, alias } = aliasTable(weights);
  return (random, ids, at, count) => {
    for (let i = at; i < at + count; i++) {
      let place = -1;
      for (let attempt = 0; attempt < 8 && place < 0; attempt++) {
        const u = random.float() * n;
        const bucket = Math.floor(u);
        const drawn = u - bucket < threshold[bucket] ? bucket : alias[bucket];
        if (!contains(ids, at, i, drawn)) place = drawn;
      }
      ids[i] = place >= 0 ? place : drawExactly(random, weights, ids, at, i);
    }
    if (experts !== null) for (let i = at; i < at + count; i++) ids[i] = experts[ids[i]];
  };
}

/** The same with equal weights: uniform over the k-subsets and their orders. */
export function uniformSampler(n: number, experts: Int32Array | null = null): Sampler {
  return (random, ids, at, count) => {
    if (count * 2 <= n) {
      for (let i = at; i < at + count; ) {
        const drawn = random.below(n);
        if (!contains(ids, at, i, drawn)) ids[i++] = drawn;
      }
    } else drawMany(random, n, ids, at, count);
    if (experts !== null) for (let i = at; i < at + count; i++) ids[i] = experts[ids[i]];
  };
}

/** More than half of n: the head of a shuffle, without rejections. */
function drawMany(random: Random, n: number, ids: Int32Array, at: number, count: number): void {
  const all = new Int32Array(n);
  for (let i = 0; i < n; i++) all[i] = i;
  for (let i = 0; i < count; i++) {
    const j = i + random.below(n - i);
    ids[at + i] = all[j];
    all[j] = all[i];
  }
}

function contains(ids: Int32Array, from: number, end: number, value: number): boolean {
  for (let i = from; i < end; i++) if (ids[i] === value) return true;
  return false;
}

function drawExactly(random: Random, weights: Float64Array, ids: Int32Array, at: number, end: number): number {
  let left = 0;
  let numLeft = 0;
  for (let e = 0; e < weights.length; e++) {
    if (contains(ids, at, end, e)) continue;
    left += weights[e];
    numLeft++;
  }
  // When only experts of weight 0 are left, each is as good as the other.
  let u = random.float() * (left > 0 ? left : numLeft);
  let last = -1;
  for (let e = 0; e < weights.length; e++) {
    if (contains(ids, at, end, e)) continue;
    last = e;
    u -= left > 0 ? weights[e] : 1;
    if (u < 0) break;
  }
  return last;
}

function aliasTable(weights: Float64Array): { threshold: Float64Array; alias: Int32Array } {
  const n = weights.length;
  const total = weights.reduce((sum, w) => sum + w, 0);
  const threshold = new Float64Array(n).fill(1);
  const alias = new Int32Array(n);
  const scaled = weights.map((w) => (w / total) * n);
  const small: number[] = [];
  const large: number[] = [];
  scaled.forEach((w, i) => {
    (w < 1 ? small : large).push(i);
  });
  while (small.length > 0 && large.length > 0) {
    const low = small.pop() ?? 0;
    const high = large.pop() ?? 0;
    threshold[low] = scaled[low];
    alias[low] = high;
    scaled[high] -= 1 - scaled[low];
    (scaled[high] < 1 ? small : large).push(high);
  }
  return { threshold, alias };
}
