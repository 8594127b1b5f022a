import { loadStatistics } from "../../core/routing/statistics/index.ts";

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const fourDigits = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 4 });
const threeDigits = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3, useGrouping: false });

/** 12,345 or 1.234: whole numbers in full, others with four significant digits. */
export function text(value: number): string {
  if (!Number.isFinite(value)) return "-";
  return (Number.isInteger(value) ? whole : fourDigits).format(value);
}

/** Short, for axes: 12k, 1.08M. */
export function short(value: number): string {
  return Math.abs(value) < 1000 ? fourDigits.format(value) : scaled(value, ["", "k", "M", "B", "T"]);
}

function scaled(value: number, units: readonly string[]): string {
  let unit = 0;
  let rest = value;
  // 999.7 would be written 1000 of the smaller unit.
  while (Math.abs(rest) >= 999.5 && unit < units.length - 1) {
    rest /= 1000;
    unit++;
  }
  return `${threeDigits.format(rest)}${units[unit]}`;
}

export function percent(share: number): string {
  return Number.isFinite(share) ? `${fourDigits.format(share * 100)} %` : "-";
}

/** Decimal units, as link speeds are. */
export function bytes(value: number): string {
  return value < 1000 ? `${whole.format(value)} B` : scaled(value, [" B", " kB", " MB", " GB", " TB"]);
}

export function micros(timeUs: number): string {
  if (!Number.isFinite(timeUs)) return "-";
  return Math.abs(timeUs) >= 1000 ? `${fourDigits.format(timeUs / 1000)} ms` : `${fourDigits.format(timeUs)} us`;
}

export function sum(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
}

export function maxOf(values: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) if (values[i] > most) most = values[i];
  return most;
}

/** max/mean, NaN when there is nothing. The number that costs time: everyone waits for the largest. */
export function maxOverMean(values: ArrayLike<number>): number {
  return loadStatistics(values).maxOverMean ?? Number.NaN;
}

/** The formula is core's (core/routing/statistics): 0 = all equal; NaN when there is nothing. */
export function gini(values: ArrayLike<number>): number {
  return loadStatistics(values).gini ?? Number.NaN;
}

/** Cumulative share after each item, ascending: [n + 1], from 0 to 1. */
export function lorenz(values: ArrayLike<number>): Float64Array {
  const sorted = Float64Array.from(values).sort();
  const total = sum(sorted);
  const points = new Float64Array(sorted.length + 1);
  for (let i = 0, run = 0; i < sorted.length; i++) {
    run += sorted[i];
    points[i + 1] = total > 0 ? run / total : (i + 1) / sorted.length;
  }
  return points;
}
