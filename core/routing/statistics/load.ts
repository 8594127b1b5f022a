/** How evenly a load is spread over experts, ranks, nodes or layers. Ratios are null when there is no load at all. */
export interface LoadStatistics {
  /** How many experts (ranks, ...) there are. */
  readonly count: number;
  readonly total: number;
  readonly mean: number;
  readonly min: number;
  readonly max: number;
  readonly maxOverMean: number | null;
  readonly excess: number | null;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly cv: number | null;
  readonly gini: number | null;
  /** How many have no load: dead experts. */
  readonly numZero: number;
}

/** What each number of LoadStatistics is; x = the loads, n = how many. Printed beside the numbers. */
export const LOAD_FORMULAS: Readonly<Record<keyof LoadStatistics, string>> = {
  count: "n",
  total: "sum(x)",
  mean: "sum(x) / n",
  min: "min(x)",
  max: "max(x)",
  maxOverMean: "max(x) / mean(x); 1 = balanced",
  excess: "(max(x) - mean(x)) / mean(x); 0 = balanced",
  p50: "the ceil(0.50 n)-th smallest x",
  p90: "the ceil(0.90 n)-th smallest x",
  p99: "the ceil(0.99 n)-th smallest x",
  cv: "sqrt(sum((x - mean(x))^2) / n) / mean(x)",
  gini: "sum((2 i - n - 1) x_i) / (n sum(x)), x ascending, i = 1..n; 0 = balanced",
  numZero: "how many x are 0",
};

/** Statistics of `loads`: counts, bytes or times, none negative. O(n log n). */
export function loadStatistics(loads: ArrayLike<number>): LoadStatistics {
  const sorted = Float64Array.from(loads).sort();
  const count = sorted.length;
  let total = 0;
  let weighted = 0;
  let numZero = 0;
  for (let i = 0; i < count; i++) {
    total += sorted[i];
    weighted += (2 * (i + 1) - count - 1) * sorted[i];
    if (sorted[i] === 0) numZero++;
  }
  const mean = count > 0 ? total / count : 0;
  let squares = 0;
  for (const load of sorted) squares += (load - mean) ** 2;
  const max = count > 0 ? sorted[count - 1] : 0;
  const percentile = (p: number) => (count > 0 ? sorted[Math.max(0, Math.ceil((p * count) / 100) - 1)] : 0);
  const ratio = (value: number) => (total > 0 ? value : null);
  return {
    count,
    total,
    mean,
    min: count > 0 ? sorted[0] : 0,
    max,
    maxOverMean: ratio(max / mean),
    excess: ratio((max - mean) / mean),
    p50: percentile(50),
    p90: percentile(90),
    p99: percentile(99),
    cv: ratio(Math.sqrt(squares / count) / mean),
    gini: ratio(weighted / (count * total)),
    numZero,
  };
}
