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
  const rounds = warmUps + repeats;
  for (let round = 0; round < rounds; round++) {
    refresh(round);
    for (const { name, run } of operations) {
      const startUs = nowUs();
      await run();
      const ms = (nowUs() - startUs) / 1e3;
      if (round >= warmUps) times.get(name)?.push(ms);
    }
    progress?.((round + 1) / rounds);
  }
  return new Map([...times].map(([name, values]) => [name, summarize(values)]));
}

export function summarize(values: readonly number[]): Sample {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const medianMs = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { medianMs, minMs: sorted[0], maxMs: sorted[sorted.length - 1], repeats: sorted.length };
}
