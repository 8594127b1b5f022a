import type { Random } from "./random.ts";

/** Writes distinct expert ids of one token to ids[at..at+count). */
export type Sampler = (random: Random, ids: Int32Array, at: number, count: number) => void;

/** Heads of the sorted weights that get a table without them. */
const MAX_LEVELS = 16;

/**
 * Sampling without replacement, one draw after the other, each from the categorical distribution over what is left
 * (Plackett-Luce; the same law as the top-k of log weights plus Gumbel noise). Draws come from alias tables (Walker, Vose)
 * over the weights in descending order, and repeats are rejected: there is one table for each head of the order, and a draw
 * uses the one without the head that has been drawn already, so that a few heavy experts cost no rejections. After 8
 * rejections in a row the draw is made exactly, in O(E). `experts` gives the ids of the places of `weights` (default
 * 0..n-1).
 */
export function weightedSampler(weights: Float64Array, experts: Int32Array | null = null): Sampler {
  const order = Array.from(weights, (_, i) => i).sort((a, b) => weights[b] - weights[a] || a - b);
  const sorted = Float64Array.from(order, (i) => weights[i]);
  const idOfPlace = Int32Array.from(order, (i) => experts?.[i] ?? i);
  // A table needs a positive weight.
  const numPositive = sorted.reduce((count, weight) => count + (weight > 0 ? 1 : 0), 0);
  const numLevels = Math.max(1, Math.min(MAX_LEVELS, numPositive));
  const levels = Array.from({ length: numLevels }, (_, level) => aliasTable(sorted.subarray(level)));
  return (random, ids, at, count) => {
    // Bit i: place i is drawn. Only the lowest places, which choose the level, need one.
    let drawnHead = 0;
    let level = 0;
    for (let i = at; i < at + count; i++) {
      const { threshold, alias } = levels[level];
      let place = -1;
      for (let attempt = 0; attempt < 8 && place < 0; attempt++) {
        const u = random.float() * threshold.length;
        const bucket = Math.floor(u);
        const drawn = level + (u - bucket < threshold[bucket] ? bucket : alias[bucket]);
        if (!contains(ids, at, i, drawn)) place = drawn;
      }
      if (place < 0) place = drawExactly(random, sorted, ids, at, i);
      ids[i] = place;
      if (place < MAX_LEVELS) {
        drawnHead |= 1 << place;
        while (level + 1 < levels.length && drawnHead & (1 << level)) level++;
      }
    }
    for (let i = at; i < at + count; i++) ids[i] = idOfPlace[ids[i]];
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
