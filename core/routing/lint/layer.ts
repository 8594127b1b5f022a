import type { RoutingLayer } from "../import/index.ts";
import { RowRanges } from "./ranges.ts";
import { type LintRule, RULES } from "./rules.ts";

/** Sums of the weights of rows without dropped slots. */
export interface WeightSums {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** What one layer breaks. */
export interface LayerLint {
  readonly numRows: number;
  readonly numTainted: number;
  readonly found: ReadonlyMap<LintRule, RowRanges>;
  /** Rows of the runs of identical rows at the head. */
  readonly numHeadRows: number;
  /** null without weights or without complete rows. */
  readonly sums: WeightSums | null;
  /** Equal for layers with equal ids and weights; others collide with probability 2^-64. */
  readonly hash: string;
}

const SUM_TOLERANCE = 0.01;

/** Checks every row of a layer: one pass over ids, one over weights. `numExperts` null: no upper bound is known. */
export function lintLayer(layer: RoutingLayer, numExperts: number, isStated: boolean): LayerLint {
  const [numRows, topk] = layer.topkIdx.shape;
  const ids = layer.topkIdx.data;
  const found = new Map<LintRule, RowRanges>();
  const tainted = new Uint8Array(numRows);
  const rangesOf = (rule: LintRule): RowRanges => {
    let ranges = found.get(rule);
    if (ranges === undefined) found.set(rule, (ranges = new RowRanges()));
    return ranges;
  };
  const report = (rule: LintRule, first: number, last = first) => {
    rangesOf(rule).addRange(first, last);
    if (RULES[rule].taints) tainted.fill(1, first, last + 1);
  };
  const bound = isStated ? numExperts : Number.POSITIVE_INFINITY;
  lintIds(ids, topk, bound, report);
  lintArithmetic(ids, topk, numExperts, report);
  const numHeadRows = lintRuns(ids, topk, minRun(numExperts, topk), report);
  const weights = layer.topkWeights?.data ?? null;
  const sums = weights && lintWeights(ids, weights, topk, report);
  if (layer.numRepeatedKeys > 0) rangesOf("repeated-keys").numRows = layer.numRepeatedKeys;
  const hash =
    hashWords(ids) + (weights ? hashWords(new Int32Array(weights.buffer, weights.byteOffset, weights.length)) : "");
  return { numRows, numTainted: tainted.reduce((sum, flag) => sum + flag, 0), found, numHeadRows, sums, hash };
}

type Report = (rule: LintRule, first: number, last?: number) => void;

function lintIds(ids: Int32Array, topk: number, bound: number, report: Report): void {
  for (let row = 0, at = 0; at < ids.length; row++, at += topk) {
    let numDropped = 0;
    let isOutside = false;
    let isDuplicate = false;
    for (let i = at; i < at + topk; i++) {
      const id = ids[i];
      if (id === -1) numDropped++;
      else if (id < -1 || id >= bound) isOutside = true;
      if (id === -1) continue;
      for (let j = at; j < i; j++) if (ids[j] === id) isDuplicate = true;
    }
    if (numDropped === topk) report("pad-rows", row);
    else if (numDropped > 0) report("dropped-slots", row);
    if (isOutside) report("ids-out-of-range", row);
    if (isDuplicate) report("duplicate-ids", row);
  }
}

/**
 * Rows with ids a, a + d, a + 2d, ... (two slots: 2i, 2i + 1). Some come by chance: they are reported only when there are
 * more than 8 and more than 5 times what uniform routing of sorted ids would give.
 */
function lintArithmetic(ids: Int32Array, topk: number, numExperts: number, report: Report): void {
  if (topk < 2) return;
  const rows: number[] = [];
  for (let row = 0, at = 0; at < ids.length; row++, at += topk) {
    const step = ids[at + 1] - ids[at];
    if (step === 0 || ids[at] < 0 || (topk === 2 && (step !== 1 || ids[at] % 2 !== 0))) continue;
    let isArithmetic = true;
    for (let i = at + 2; i < at + topk && isArithmetic; i++) isArithmetic = ids[i] >= 0 && ids[i] - ids[i - 1] === step;
    if (isArithmetic) rows.push(row);
  }
  const chance = Math.min(1, arithmeticChance(numExperts, topk)) * (ids.length / topk);
  if (rows.length > 8 && rows.length > 5 * chance) for (const row of rows) report("arithmetic-ids", row);
}

/** Share of the k-subsets of E experts that are arithmetic sequences (pairs: 2i, 2i + 1). */
function arithmeticChance(numExperts: number, topk: number): number {
  let sequences = 0;
  if (topk === 2) sequences = Math.floor(numExperts / 2);
  else for (let step = 1; (topk - 1) * step < numExperts; step++) sequences += numExperts - (topk - 1) * step;
  let subsets = 1;
  for (let i = 0; i < topk; i++) subsets *= (numExperts - i) / (i + 1);
  return subsets > 0 ? sequences / subsets : 1;
}

/** A run this long does not come by chance: 16 rows, more when there are few different rows. */
function minRun(numExperts: number, topk: number): number {
  let log2Rows = 0;
  for (let i = 0; i < topk; i++) log2Rows += Math.log2(Math.max(1, numExperts - i));
  return log2Rows > 0 ? Math.max(16, Math.ceil(40 / log2Rows)) : Number.POSITIVE_INFINITY;
}

/** Reports long runs of identical rows that are no padding; returns how many rows the runs at the head cover. */
function lintRuns(ids: Int32Array, topk: number, shortest: number, report: Report): number {
  const numRows = ids.length / topk;
  let head = 0;
  for (let first = 0; first < numRows; ) {
    let last = first;
    while (last + 1 < numRows && sameRow(ids, topk, first, last + 1)) last++;
    const isPadding = ids.subarray(first * topk, (first + 1) * topk).every((id) => id === -1);
    const isLong = last - first + 1 >= shortest;
    if (isLong && !isPadding) report("identical-rows", first, last);
    if (isLong && head === first) head = last + 1;
    first = last + 1;
  }
  return head;
}

function sameRow(ids: Int32Array, topk: number, a: number, b: number): boolean {
  for (let i = 0; i < topk; i++) if (ids[a * topk + i] !== ids[b * topk + i]) return false;
  return true;
}

function lintWeights(ids: Int32Array, weights: Float32Array, topk: number, report: Report): WeightSums | null {
  const sums: number[] = [];
  const completeRows: number[] = [];
  for (let row = 0, at = 0; at < ids.length; row++, at += topk) {
    let sum = 0;
    let numChosen = 0;
    let [isBad, isNegative, isUnsorted, isUniform, isZero] = [false, false, false, true, true];
    let previous = Number.POSITIVE_INFINITY;
    for (let i = at; i < at + topk; i++) {
      if (ids[i] === -1) continue;
      const weight = weights[i];
      numChosen++;
      sum += weight;
      if (!Number.isFinite(weight)) isBad = true;
      if (weight < 0) isNegative = true;
      if (weight > previous) isUnsorted = true;
      if (numChosen > 1 && weight !== previous) isUniform = false;
      if (weight !== 0) isZero = false;
      previous = weight;
    }
    if (numChosen === 0) continue;
    if (isBad) report("nan-weights", row);
    else if (numChosen === topk) {
      sums.push(sum);
      completeRows.push(row);
    }
    if (isNegative) report("negative-weights", row);
    if (isUnsorted) report("unsorted-weights", row);
    if (isZero) report("zero-weights", row);
    else if (isUniform && numChosen > 1) report("uniform-weights", row);
  }
  if (sums.length === 0) return null;
  const sorted = Float64Array.from(sums).sort();
  const median = sorted[Math.floor(sorted.length / 2)];
  sums.forEach((sum, i) => {
    if (Math.abs(sum - median) > SUM_TOLERANCE * Math.abs(median)) report("weight-sums", completeRows[i]);
  });
  return { min: sorted[0], median, max: sorted[sorted.length - 1] };
}

/** Two independent 32-bit multiplicative hashes of the words. */
function hashWords(words: Int32Array): string {
  let a = 0x811c9dc5;
  let b = 0x9747b28c;
  for (let i = 0; i < words.length; i++) {
    a = Math.imul(a ^ words[i], 0x01000193);
    a ^= a >>> 15;
    b = Math.imul(b ^ words[i], 0x5bd1e995);
    b ^= b >>> 13;
  }
  return `${words.length}.${a >>> 0}.${b >>> 0}`;
}
