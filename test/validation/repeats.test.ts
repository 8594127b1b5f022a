/** `run --repeats`: which runs count, and whose phases and counters are kept. */
import { afterEach, describe, expect, test, vi } from "vitest";
import { type JobOptions, openJob } from "../../cli/job.ts";
import { repeatLayer } from "../../cli/repeats.ts";
import { countedWire } from "../../cli/wire.ts";
import type { Group } from "../../core/backend.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";

const OPTIONS: JobOptions = {
  backend: "oracle",
  ranks: 2,
  workload: "uniform",
  tokens: 4,
  experts: 4,
  topk: 2,
  hidden: 8,
  dtype: "bf16",
  style: "fused",
  seed: 1,
  padMultiple: 1,
  expertAlignment: 1,
  numWorstTokens: 0,
};

/** A group of one process on a clock that only its operations move: its n-th dispatch takes the n-th of `dispatchMs`. */
async function clocked(dispatchMs: readonly number[], combineMs: readonly number[]) {
  let now = 0;
  vi.spyOn(performance, "now").mockImplementation(() => now);
  const group = await createOracleBackend().createGroup({ numRanks: 2 });
  const [dispatch, combine] = [group.dispatch.bind(group), group.combine.bind(group)];
  const exchanged: string[] = [];
  let numRuns = 0;
  group.dispatch = async (request) => {
    const result = await dispatch(request);
    now += dispatchMs[numRuns];
    numRuns++;
    return { ...result, phases: [{ rank: 0, name: `run ${numRuns}`, startUs: 0, durationUs: 1 }] };
  };
  group.combine = async (request) => {
    const result = await combine(request);
    now += combineMs[numRuns - 1];
    return { ...result, phases: [] };
  };
  const sent = (rows: number) => ({ rowsDispatched: rows, rowsCombined: rows, rowBytes: 16 * rows });
  const links = { linkRowsDispatched: 0, linkRowsCombined: 0, linkBytes: 0 };
  Object.assign(group, {
    network: async () => [5, 7].map((rows) => ({ ...sent(rows * numRuns), ...links })),
    exchange: async (name: string, value: unknown) => {
      exchanged.push(name);
      return [value];
    },
  });
  return { group: group as Group, exchanged, numRuns: () => numRuns };
}

afterEach(() => void vi.restoreAllMocks());

describe("a layer several times", () => {
  test("one run more than counted; the times are medians without the first, the rest is the last run's", async () => {
    const { group, exchanged, numRuns } = await clocked([100, 3, 9, 5, 7], [50, 4, 1, 2, 8]);
    const seen: number[] = [];
    const run = await repeatLayer(group, await openJob(undefined, OPTIONS), 0, 4, (fraction) => seen.push(fraction));
    expect(numRuns()).toBe(5);
    // Of 3, 5, 7, 9 and of 1, 2, 4, 8: halfway between the middle two.
    expect(run.times).toMatchObject({ dispatchMs: 6, expertMs: 0, combineMs: 3 });
    expect(run.repeats).toEqual({ numRepeats: 4, firstTimes: { dispatchMs: 100, expertMs: 0, combineMs: 50 } });
    expect(run.phases.map(({ name }) => name)).toEqual(["run 5"]);
    expect((await countedWire(group)).map(({ networkRows, networkBytes }) => [networkRows, networkBytes])).toEqual([
      [10, 80],
      [14, 112],
    ]);
    expect(exchanged).toEqual(Array(5).fill("--repeats 4"));
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
  });

  test("once is once: nothing before it, and no exchange that would come before the first dispatch", async () => {
    const { group, exchanged, numRuns } = await clocked([100], [50]);
    const run = await repeatLayer(group, await openJob(undefined, OPTIONS), 0, 1, () => {});
    expect(numRuns()).toBe(1);
    expect(run.times).toMatchObject({ dispatchMs: 100, combineMs: 50 });
    expect(run.repeats).toBeUndefined();
    expect(exchanged).toEqual([]);
  });
});
