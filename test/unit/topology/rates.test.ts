import { describe, expect, test } from "vitest";
import type { Phase } from "../../../core/backend.ts";
import { networkRate } from "../../../core/topology/rates.ts";

/** Steps of a ring of nodes with one rank each, from how long each step of each rank lasts; clocks have nothing in common. */
function ring(stepUs: readonly (readonly number[])[], name = "network rows"): Phase[] {
  const numRanks = stepUs.length;
  return stepUs.flatMap((steps, rank) => {
    let startUs = 1e6 * rank;
    return steps.map((durationUs, i) => {
      const srcRank = (rank + numRanks - 1 - (i % (numRanks - 1))) % numRanks;
      const phase = { rank, name, startUs, durationUs, srcRank };
      startUs += durationUs;
      return phase;
    });
  });
}

const MB = 1e6;
const three = { numRanks: 3, ranksPerNode: 1 };

describe("how fast the network was", () => {
  test("two nodes share their steps: the fuller direction's bytes count, for both", () => {
    const four = [1000, 1000, 1000, 1000];
    const bytes = (rank: number) => (rank === 1 ? 4 * MB : MB);
    // 4 MB in 4 ms.
    expect(networkRate(ring([four, four]), "network rows", { numRanks: 2, ranksPerNode: 1 }, bytes)).toEqual({
      bytes: 5 * MB,
      messageBytes: MB,
      nics: [
        { rank: 0, GBps: 1 },
        { rank: 1, GBps: 1 },
      ],
      nicGBps: 1,
      pairGBps: 1,
      slowest: { srcRank: 0, rank: 1, orBack: true, bytes: 4 * MB, us: 4000, GBps: 1 },
    });
  });

  test("the slowest pair is named, not those who wait for its ends in the next step", () => {
    // 0 -> 1 takes 4 ms in the first step, everything else 1 ms; 2 waits for 0 in the second one.
    const steps = [
      [4000, 1000],
      [4000, 1000],
      [1000, 4000],
    ];
    const rate = networkRate(ring(steps), "network rows", three, () => MB);
    expect(rate?.slowest).toEqual({ srcRank: 0, rank: 1, orBack: false, bytes: MB, us: 4000, GBps: 0.25 });
    expect(rate).toMatchObject({ bytes: 6 * MB, messageBytes: MB, pairGBps: 1, nicGBps: 1 });
    // 1 receives 1 MB in 4 ms and 1 MB in 1 ms.
    expect(rate?.nics).toEqual([
      { rank: 0, GBps: 1 },
      { rank: 1, GBps: 0.4 },
      { rank: 2, GBps: 1 },
    ]);
  });

  test("few bytes beside full transfers of both ends are no slow pair", () => {
    const even = [1000, 1000];
    const bytes = (rank: number, srcRank: number) => (rank === 1 && srcRank === 0 ? 0.01 * MB : MB);
    const rate = networkRate(ring([even, even, even]), "network rows", three, bytes);
    expect(rate?.slowest.GBps).toBe(1);
    expect(rate?.bytes).toBe(5.01 * MB);
  });

  test("four nodes: equal both ways, opposite ones are one pair", () => {
    const even = [1000, 2000, 1000];
    const rate = networkRate(
      ring([even, even, even, even]),
      "network rows",
      { numRanks: 4, ranksPerNode: 1 },
      () => MB,
    );
    expect(rate?.slowest).toMatchObject({ rank: 0, srcRank: 2, orBack: true, GBps: 0.5 });
    // 3 MB in 4 ms.
    expect(rate?.nics.map(({ GBps }) => GBps)).toEqual([0.75, 0.75, 0.75, 0.75]);
    expect(rate?.pairGBps).toBe(1);
  });

  test("nothing crossed, or it crossed under another name: no figure", () => {
    const even = [1000, 1000];
    expect(networkRate(ring([even, even, even], "node rows"), "network rows", three, () => MB)).toBeNull();
    expect(networkRate(ring([even, even, even]), "network rows", three, () => 0)).toBeNull();
  });
});
