/** Measuring: operations take turns round by round, so that the ratio of two of them sees the same machine. */
import { nowUs } from "../core/clock.ts";

export interface Timed {
  readonly name: string;
  /** What is timed. */
  run(): unknown;
}

export interface Sample {
  readonly medianMs: number;
  readonly minMs: number;
  readonly maxMs: number;
  readonly repeats: number;
  /** Median processor time of all threads: what other processes cannot stretch. */
  readonly cpuMs: number;
}

export interface MeasureOptions {
  readonly warmUps: number;
  readonly repeats: number;
  /** Makes the data of a round; not timed. */
  readonly refresh: (round: number) => void;
  readonly progress?: (fraction: number) => void;
}

/** Times every operation once per round; samples by name. */
export async function measure(
  operations: readonly Timed[],
  { warmUps, repeats, refresh, progress }: MeasureOptions,
): Promise<Map<string, Sample>> {
  const times = new Map<string, number[]>(operations.map(({ name }) => [name, []]));
  const cpuTimes = new Map<string, number[]>(operations.map(({ name }) => [name, []]));
  const rounds = warmUps + repeats;
  for (let round = 0; round < rounds; round++) {
    refresh(round);
    for (const { name, run } of operations) {
      const cpuBefore = process.cpuUsage();
      const startUs = nowUs();
      await run();
      const ms = (nowUs() - startUs) / 1e3;
      const { user, system } = process.cpuUsage(cpuBefore);
      if (round < warmUps) continue;
      times.get(name)?.push(ms);
      cpuTimes.get(name)?.push((user + system) / 1e3);
    }
    progress?.((round + 1) / rounds);
  }
  return new Map([...times].map(([name, values]) => [name, summarize(values, cpuTimes.get(name) ?? [])]));
}

export function summarize(ms: readonly number[], cpuMs: readonly number[]): Sample {
  return {
    medianMs: median(ms),
    minMs: Math.min(...ms),
    maxMs: Math.max(...ms),
    repeats: ms.length,
    cpuMs: median(cpuMs),
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
