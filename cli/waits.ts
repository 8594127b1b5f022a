/** The table of who waited for whom when an operation over several processes failed. */
import type { Wait } from "../core/errors.ts";
import { table } from "./output.ts";

const MAX_LINES = 40;

/** Ranks that wait for the same in the same phase share a line. */
export function describeWaits(waits: readonly Wait[]): string {
  const bySource = group(waits, ({ srcRank, phase, expected, received }) => [srcRank, phase, expected, received]);
  const lines = bySource.map((same) => ({ ...same[0], ranks: list(same.map(({ rank }) => rank)) }));
  const byRanks = group(lines, ({ ranks, phase, expected, received }) => [ranks, phase, expected, received]);
  const rows = byRanks.map((same) => {
    const [{ ranks, phase, expected, received }] = same;
    return [ranks, list(same.map(({ srcRank }) => srcRank)), phase, expected, received];
  });
  const shown = table([["rank", "waits for", "phase", "expected", "received"], ...rows.slice(0, MAX_LINES)]);
  return rows.length > MAX_LINES ? `${shown}\n${rows.length - MAX_LINES} lines more; --json has all` : shown;
}

function group<T>(values: readonly T[], key: (value: T) => unknown): T[][] {
  const groups = new Map<string, T[]>();
  for (const value of values) {
    const name = JSON.stringify(key(value));
    const found = groups.get(name);
    if (found === undefined) groups.set(name, [value]);
    else found.push(value);
  }
  return [...groups.values()];
}

/** "0..3, 6" */
function list(ranks: readonly number[]): string {
  const sorted = [...new Set(ranks)].sort((a, b) => a - b);
  const parts: string[] = [];
  for (let i = 0; i < sorted.length; ) {
    let end = i;
    while (sorted[end + 1] === sorted[end] + 1) end++;
    parts.push(end === i ? `${sorted[i]}` : `${sorted[i]}..${sorted[end]}`);
    i = end + 1;
  }
  return parts.join(", ");
}
