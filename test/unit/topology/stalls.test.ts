import { describe, expect, test } from "vitest";
import type { Phase } from "../../../core/backend.ts";
import { explainWaits, measureWaits } from "../../../core/topology/measured.ts";
import { stalls } from "../../../core/topology/stalls.ts";

/** One operation of one rank per process: all leave the agreement at 0 of their own clocks, then wait for these sources. */
function operation(steps: readonly (readonly { srcRank: number; fromUs: number; toUs: number }[])[]): Phase[] {
  return steps.flatMap((own, rank) => {
    const clockUs = 1e7 * rank;
    const agrees = steps.flatMap((_, srcRank) =>
      srcRank === rank ? [] : [{ rank, name: "agree", startUs: clockUs, durationUs: 0, srcRank }],
    );
    const rows = own.map(({ srcRank, fromUs, toUs }) => ({
      ...{ rank, name: "network rows", startUs: clockUs + fromUs },
      ...{ durationUs: toUs - fromUs, srcRank },
    }));
    return [...agrees, ...rows];
  });
}

const two = (own: readonly (readonly [number, number])[], srcRank: number) =>
  own.map(([fromUs, toUs]) => ({ srcRank, fromUs, toUs }));

describe("ranks that keep others waiting in the middle of an operation", () => {
  test("a process that stands still in a transfer, and one that stands still between two", () => {
    const stopped = operation([
      // 0 is through with its first message after 100 us and waits in the second for 1, which is stopped in the first.
      two(
        [
          [0, 100],
          [100, 9100],
          [9100, 9200],
        ],
        1,
      ),
      two(
        [
          [0, 9000],
          [9000, 9100],
          [9100, 9200],
        ],
        0,
      ),
    ]);
    // The second message takes 100 us; 1 came to it 8900 us after 0.
    expect([...stalls(stopped, 2).keptUs]).toEqual([0, 8900]);
    const between = operation([
      two(
        [
          [0, 100],
          [100, 9100],
          [9100, 9200],
        ],
        1,
      ),
      two(
        [
          [0, 100],
          [9000, 9100],
          [9100, 9200],
        ],
        0,
      ),
    ]);
    expect([...stalls(between, 2).keptUs]).toEqual([0, 8900]);
    const shape = { numRanks: 2, ranksPerNode: 1 };
    const waits = measureWaits(stopped, shape);
    // 300 us of messages; what 1 was stopped and 0 waited for that is no work.
    expect(waits.busyUs).toBe(300);
    const { findings, words } = explainWaits(waits, shape);
    expect(findings).toEqual([{ kind: "slow-rank", rank: 1, excessUs: 8900 }]);
    expect(words).toEqual([
      "rank 1 kept others waiting for 8.9 ms in the middle of an operation: look at what that process did",
    ]);
  });

  test("a slow message keeps both its ends: neither kept the other waiting, nor those who wait for them next", () => {
    const us = (fromUs: number, toUs: number, srcRank: number) => ({ srcRank, fromUs, toUs });
    // Steps of a ring of three; 0 -> 1 takes 9 ms, 2 waits in the second step for both its ends.
    const ring = operation([
      [us(0, 9000, 2), us(9000, 9100, 1)],
      [us(0, 9000, 0), us(9000, 9100, 2)],
      [us(0, 100, 1), us(100, 9100, 0)],
    ]);
    expect([...stalls(ring, 3).keptUs]).toEqual([0, 0, 0]);
  });

  test("who waited for a stopped rank before is not to blame for coming late itself", () => {
    const us = (fromUs: number, toUs: number, srcRank: number) => ({ srcRank, fromUs, toUs });
    // 2 is stopped in its first step; 0 waits there for it, and 1 in the second step for both.
    const ring = operation([
      [us(0, 9000, 2), us(9000, 9100, 1)],
      [us(0, 100, 0), us(100, 9100, 2)],
      [us(8900, 9000, 1), us(9000, 9100, 0)],
    ]);
    // 0 waits 8900 us for 2 in the first step, 1 in the second: 2 came 8800 us after it, less a message.
    expect([...stalls(ring, 3).keptUs]).toEqual([0, 0, 8900]);
  });
});
