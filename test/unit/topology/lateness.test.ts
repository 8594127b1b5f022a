import { describe, expect, test } from "vitest";
import type { Phase } from "../../../core/backend.ts";
import { latenessUs } from "../../../core/topology/lateness.ts";
import { explainWaits, measureWaits } from "../../../core/topology/measured.ts";

interface Part {
  /** How much later than the first one it comes to the second operation. */
  readonly lateUs: number;
  /** What each message of the first operation takes it. */
  readonly transferUs: readonly number[];
}

/** Two operations of two processes, of as many ranks each: the second is where one of them may come late. */
function twoOperations(processes: readonly [Part[], Part[]]): Phase[] {
  const perProcess = processes[0].length;
  return processes.flatMap((ranks, process) =>
    ranks.flatMap(({ lateUs, transferUs }, index) => {
      const rank = process * perProcess + index;
      const others = processes[1 - process].map((other, i) => ({ ...other, rank: (1 - process) * perProcess + i }));
      // Every process has a clock of its own.
      let startUs = 5e6 * process + 1000;
      const agree = (wait: (other: Part) => number) =>
        others.map((other) => ({ rank, name: "agree", startUs, durationUs: wait(other), srcRank: other.rank }));
      const first = agree(() => 0);
      const rows = transferUs.map((durationUs) => {
        startUs += 1;
        const phase = { rank, name: "network rows", startUs, durationUs, srcRank: others[index].rank };
        startUs += durationUs;
        return phase;
      });
      startUs = 5e6 * process + 100_000 + lateUs;
      return [...first, ...rows, ...agree((other) => Math.max(0, other.lateUs - lateUs))];
    }),
  );
}

describe("lateness that a rank answers for", () => {
  test("is not what rows that came slowly to it took longer than those of the others", () => {
    const early = { lateUs: 0, transferUs: [10, 10, 10] };
    const late = (lateUs: number) => [{ lateUs, transferUs: [110, 110, 110] }];
    // 330 us in transfers, 300 more than the other one.
    expect([...latenessUs(twoOperations([[early], late(300)]), 2)]).toEqual([0, 0, 0, 0]);
    expect([...latenessUs(twoOperations([[early], late(500)]), 2)]).toEqual([0, 200, 0, 0]);
    // What the early one spent more excuses nobody.
    const slowButEarly = { lateUs: 0, transferUs: [110, 110, 110] };
    const lateAlone = [{ lateUs: 300, transferUs: [10, 10, 10] }];
    expect([...latenessUs(twoOperations([[slowButEarly], lateAlone]), 2)]).toEqual([0, 300, 0, 0]);
  });

  test("a process that stood still in one transfer is late: that is no matter of the link", () => {
    const phases = twoOperations([
      [{ lateUs: 0, transferUs: [10, 10, 10, 10] }],
      [{ lateUs: 9000, transferUs: [10, 9010, 10, 10] }],
    ]);
    // Usual are 10 us; of the long one 20 count: 50 us, 10 more than the other one.
    expect([...latenessUs(phases, 2)]).toEqual([0, 8990, 0, 0]);
    const shape = { numRanks: 2, ranksPerNode: 1 };
    const { findings } = explainWaits(measureWaits(phases, shape), shape);
    expect(findings).toEqual([{ kind: "late-rank", rank: 1, excessUs: 8990 }]);
  });

  test("a process comes when the slowest of its ranks is through", () => {
    const fast = [10, 10, 10];
    const phases = twoOperations([
      [
        { lateUs: 0, transferUs: fast },
        { lateUs: 0, transferUs: fast },
      ],
      [
        { lateUs: 300, transferUs: fast },
        { lateUs: 300, transferUs: [110, 110, 110] },
      ],
    ]);
    expect([...latenessUs(phases, 4)]).toEqual(Array(16).fill(0));
  });

  test("the wait matrix keeps the whole wait", () => {
    const phases = twoOperations([
      [{ lateUs: 0, transferUs: [10, 10, 10] }],
      [{ lateUs: 300, transferUs: [110, 110, 110] }],
    ]);
    const { arrivalUs, waitUs } = measureWaits(phases, { numRanks: 2, ranksPerNode: 1 });
    expect(arrivalUs[1]).toBe(300);
    // Three messages of 10 us, as long as both ends have in common.
    expect(waitUs[1]).toBe(330);
  });
});
