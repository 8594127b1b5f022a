import { format } from "d3-format";
import { loadStatistics } from "../../core/routing/statistics/index.ts";

const grouped = format(",d");
const significant = format(",.4~r");
const si = format(".3~s");

/** 12,345 or 1.234: whole numbers in full, others with four significant digits. */
export function text(value: number): string {
  if (!Number.isFinite(value)) return "-";
  return Number.isInteger(value) ? grouped(value) : significant(value);
}

/** Short, for axes: 12k. */
export function short(value: number): string {
  return Math.abs(value) < 1000 ? significant(value) : si(value).replace("G", "B");
}

export function percent(share: number): string {
  return Number.isFinite(share) ? `${significant(share * 100)} %` : "-";
}

/** Decimal units, as link speeds are. */
export function bytes(value: number): string {
  return value < 1000 ? `${grouped(value)} B` : `${si(value)}B`;
}

export function micros(timeUs: number): string {
  if (!Number.isFinite(timeUs)) return "-";
  return Math.abs(timeUs) >= 1000 ? `${significant(timeUs / 1000)} ms` : `${significant(timeUs)} us`;
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
