import { describe, expect, test } from "vitest";
import type { Phase } from "../../../core/backend.ts";
import { explainWaits, measureWaits } from "../../../core/topology/measured.ts";

const SHAPE = { numRanks: 4, ranksPerNode: 4 };

/** One dispatch of four ranks in a ring of three steps, from how long each step of each rank lasts. */
function ring(stepUs: readonly (readonly number[])[], arrivalUs = [0, 0, 0, 0]): Phase[] {
  const last = Math.max(...arrivalUs);
  return [0, 1, 2, 3].flatMap((rank) => {
    // Every process has a clock of its own.
    let startUs = 1e6 * rank;
    const agrees = [0, 1, 2, 3]
      .filter((srcRank) => srcRank !== rank)
      .map((srcRank) => {
        const durationUs = Math.max(0, arrivalUs[srcRank] - arrivalUs[rank]);
        return { rank, name: "agree", startUs, durationUs, waiting: true, srcRank };
      });
    startUs += last - arrivalUs[rank];
    const steps = [1, 2, 3].map((step) => {
      const durationUs = stepUs[rank][step - 1];
      const phase = { rank, name: "node rows", startUs, durationUs, srcRank: (rank + 4 - step) % 4 };
      startUs += durationUs;
      return phase;
    });
    return [...agrees, ...steps];
  });
}

const HEALTHY = [
  [100, 101, 99],
  [102, 100, 100],
  [99, 100, 103],
  [100, 98, 100],
];

describe("waits of a run over several processes", () => {
  test("arrival is counted apart from transfer; the trace gets their sum", () => {
    const { arrivalUs, transferUs, waitUs } = measureWaits(ring(HEALTHY, [0, 0, 5000, 0]), SHAPE);
    expect(arrivalUs[0 * 4 + 2]).toBe(5000);
    expect(arrivalUs[2 * 4 + 0]).toBe(0);
    // 2's first step receives from 1: both are 100 us or so in it.
    expect(transferUs[2 * 4 + 1]).toBe(99);
    expect(waitUs[0 * 4 + 2]).toBe(5000 + transferUs[0 * 4 + 2]);
  });

  test("a healthy run: nothing stands out", () => {
    const { findings, words } = explainWaits(measureWaits(ring(HEALTHY), SHAPE), SHAPE);
    expect(findings).toEqual([]);
    expect(words[0]).toMatch(/^no rank was late and no link slow/);
  });

  test("a late rank is named by its arrival, and no link is blamed", () => {
    const { findings, words } = explainWaits(measureWaits(ring(HEALTHY, [0, 10, 5000, 20]), SHAPE), SHAPE);
    expect(findings).toEqual([{ kind: "late-rank", rank: 2, excessUs: expect.closeTo(4990, 0) }]);
    expect(words).toEqual(["rank 2 came 5.0 ms late: the others waited for that before any row moved"]);
  });

  test("a slow link is named, not those who wait for its two ends in the next step", () => {
    // 0 -> 1 takes 9 ms in the first step: 0 and 1 stay in it; 2 and 3 wait for them in the second.
    const steps = [
      [9000, 100, 100],
      [9000, 100, 100],
      [100, 9000, 100],
      [100, 9000, 100],
    ];
    const { findings } = explainWaits(measureWaits(ring(steps), SHAPE), SHAPE);
    expect(findings).toEqual([{ kind: "slow-link", src: 0, dst: 1, excessUs: expect.closeTo(8900, 0) }]);
  });

  test("rows of other nodes come over the rail: the wait for it is every local rank's", () => {
    const shape = { numRanks: 4, ranksPerNode: 2 };
    const rail = (rank: number, srcRank: number, durationUs: number) => ({
      rank,
      name: "network rows",
      startUs: 0,
      durationUs,
      srcRank,
    });
    const phases = [rail(0, 2, 40), rail(2, 0, 40), rail(1, 3, 70), rail(3, 1, 70)];
    const { transferUs } = measureWaits(phases, shape);
    expect([...transferUs]).toEqual([0, 0, 40, 70, 0, 0, 40, 70, 40, 70, 0, 0, 40, 70, 0, 0]);
  });
});
