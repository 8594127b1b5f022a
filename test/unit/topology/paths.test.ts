import { describe, expect, test } from "vitest";
import type { Phase } from "../../../core/backend.ts";
import { explainWaits, measureWaits, needsOneWay } from "../../../core/topology/measured.ts";
import { oneWayTimes, pairsSharingSteps } from "../../../core/topology/paths.ts";

const PARTS = 4;

/** Four parts of a layer in the steps of a ring of nodes, from how long a message takes. */
function layer(
  { numRanks, ranksPerNode }: { numRanks: number; ranksPerNode: number },
  us: (srcNode: number, dstNode: number, rail: number) => number,
): Phase[] {
  const numNodes = numRanks / ranksPerNode;
  return Array.from({ length: numRanks }, (_, rank) => {
    const [node, rail] = [Math.floor(rank / ranksPerNode), rank % ranksPerNode];
    let startUs = 1e7 * node;
    return Array.from({ length: PARTS * (numNodes - 1) }, (_, i) => {
      const step = 1 + (i % (numNodes - 1));
      const [src, dst] = [(node + numNodes - step) % numNodes, (node + step) % numNodes];
      // A step is through when both its directions are.
      const durationUs = Math.max(us(src, node, rail), us(node, dst, rail));
      const phase = { rank, name: "network rows", startUs, durationUs, srcRank: src * ranksPerNode + rail };
      startUs += durationUs;
      return phase;
    });
  }).flat();
}

const slowFrom = (srcNode: number, dstNode: number, slowUs: number) => (src: number, dst: number) =>
  src === srcNode && dst === dstNode ? slowUs : 1000;

describe("paths between nodes", () => {
  const two = { numRanks: 4, ranksPerNode: 2 };
  const waits = measureWaits(layer(two, slowFrom(0, 1, 30_000)), two);

  test("two nodes: the layer asks, and dispatches one way name the direction and by how much", () => {
    expect(needsOneWay(waits, two)).toBe(true);
    const oneWay = [
      { srcNode: 0, dstNode: 1, messageUs: 30_000 },
      { srcNode: 1, dstNode: 0, messageUs: 1000 },
    ];
    const { findings, words } = explainWaits(waits, two, { oneWay });
    // Four messages of 30 ms, 120 ms; 29 of 30 parts of that are too much.
    expect(findings).toEqual([
      {
        kind: "slow-path",
        ...{ srcNode: 0, dstNode: 1 },
        ...{ times: 30, messageUs: 30_000, usualUs: 1000, excessUs: expect.closeTo(116_000, 6) },
      },
    ]);
    expect(words).toEqual([
      "rows from node 0 to node 1 take 30 times as long as the other way (30.0 ms a message, 1.00 ms the other way; 116.0 ms of this layer): look at that network path",
    ]);
    const back = explainWaits(waits, two, {
      oneWay: oneWay.map((one) => ({ ...one, messageUs: 31_000 - one.messageUs })),
    });
    expect(back.findings).toMatchObject([{ kind: "slow-path", srcNode: 1, dstNode: 0 }]);
  });

  test("two nodes: nothing is said of directions that nothing tells apart", () => {
    expect(explainWaits(waits, two).findings).toEqual([]);
    const times = (there: number, back: number) => [
      { srcNode: 0, dstNode: 1, messageUs: there },
      { srcNode: 1, dstNode: 0, messageUs: back },
    ];
    // Alike, or slower by less than three times.
    expect(explainWaits(waits, two, { oneWay: times(30_000, 29_000) }).findings).toEqual([]);
    expect(explainWaits(waits, two, { oneWay: times(29_000, 10_000) }).findings).toEqual([]);
    // Far too short to be what the layer's 30 ms were: they had another cause.
    expect(explainWaits(waits, two, { oneWay: times(1000, 100) }).findings).toEqual([]);
  });

  test("two nodes: one slow rail of four is that rail's, not the path's", () => {
    const four = { numRanks: 8, ranksPerNode: 4 };
    const phases = layer(four, (src, _, rail) => (src === 0 && rail === 1 ? 30_000 : 1000));
    const oneWay = [
      { srcNode: 0, dstNode: 1, messageUs: 1000 },
      { srcNode: 1, dstNode: 0, messageUs: 1000 },
    ];
    const { findings } = explainWaits(measureWaits(phases, four), four, { oneWay });
    expect(findings).toMatchObject([{ kind: "slow-nic", rank: 1, orRank: 5 }]);
  });

  test("a slow path and a late process are both named", () => {
    const agree = (rank: number, durationUs: number) =>
      [0, 1].map((index) => {
        const srcRank = index + (rank < 2 ? 2 : 0);
        return { rank, name: "agree", startUs: 1e7 * Math.floor(rank / 2) - durationUs, durationUs, srcRank };
      });
    const phases = [
      ...[0, 1, 2, 3].flatMap((rank) => agree(rank, rank < 2 ? 900_000 : 0)),
      ...layer(two, slowFrom(0, 1, 30_000)),
    ];
    const oneWay = [
      { srcNode: 0, dstNode: 1, messageUs: 30_000 },
      { srcNode: 1, dstNode: 0, messageUs: 1000 },
    ];
    const { findings, words } = explainWaits(measureWaits(phases, two), two, { oneWay });
    expect(findings.map(({ kind }) => kind)).toEqual(["late-rank", "late-rank", "slow-path"]);
    expect(words[0]).toBe("ranks 2..3 came 900.0 ms late: the others waited for that before any row moved");
    expect(words[1]).toMatch(/^rows from node 0 to node 1 take 30 times/);
  });

  test("three nodes: the layer alone names the direction", () => {
    const shape = { numRanks: 6, ranksPerNode: 2 };
    expect(pairsSharingSteps(shape)).toEqual([]);
    const measured = measureWaits(layer(shape, slowFrom(2, 0, 9000)), shape);
    expect(needsOneWay(measured, shape)).toBe(false);
    const { findings, words } = explainWaits(measured, shape);
    // 2 -> 0 shares its step with 0 -> 1 and 1 -> 2, whose other ends were not held up.
    expect(findings).toEqual([
      {
        kind: "slow-path",
        ...{ srcNode: 2, dstNode: 0 },
        ...{ times: 9, messageUs: 9000, usualUs: 1000, excessUs: expect.closeTo(32_000, 6) },
      },
    ]);
    expect(words).toEqual([
      expect.stringMatching(/^rows from node 2 to node 0 take 9\.0 times as long as between other/),
    ]);
  });

  test("four nodes: of two opposite ones both directions share a step", () => {
    const shape = { numRanks: 4, ranksPerNode: 1 };
    expect(pairsSharingSteps(shape)).toEqual([
      [0, 2],
      [1, 3],
    ]);
    const measured = measureWaits(layer(shape, slowFrom(3, 1, 20_000)), shape);
    expect(needsOneWay(measured, shape)).toBe(true);
    const alone = explainWaits(measured, shape);
    expect(alone.findings).toMatchObject([{ kind: "slow-path", srcNode: 1, dstNode: 3, orBack: true, times: 20 }]);
    expect(alone.words[0]).toMatch(
      /^rows between node 1 and node 3, one way or both, take 20 times as long as between/,
    );
    const oneWay = [
      { srcNode: 1, dstNode: 3, messageUs: 1000 },
      { srcNode: 3, dstNode: 1, messageUs: 20_000 },
    ];
    const { findings } = explainWaits(measured, shape, { oneWay });
    expect(findings).toHaveLength(1);
    expect(findings[0]).toMatchObject({ kind: "slow-path", srcNode: 3, dstNode: 1, times: 20 });
    expect(findings[0]).not.toHaveProperty("orBack");
  });

  test("a path with more rows than others takes longer and is not slow", () => {
    const shape = { numRanks: 3, ranksPerNode: 1 };
    const measured = measureWaits(layer(shape, slowFrom(0, 1, 9000)), shape);
    const rows = (heavy: number) => (srcRank: number, node: number) => (srcRank === 0 && node === 1 ? heavy : 100);
    const paths = (numRowsTo: (srcRank: number, node: number) => number) =>
      explainWaits(measured, shape, { numRowsTo }).findings.filter(({ kind }) => kind === "slow-path");
    // 36 ms for 1,800 rows are 20 us each, like the 4 ms for 200 elsewhere.
    expect(paths(rows(1700))).toEqual([]);
    expect(paths(rows(100))).toMatchObject([{ srcNode: 0, dstNode: 1, times: 9 }]);
  });
});

describe("dispatches one way", () => {
  const shape = { numRanks: 4, ranksPerNode: 2 };
  const phases = (us: Record<string, readonly number[]>): Phase[] =>
    Object.entries(us).flatMap(([key, durations]) => {
      const [rank, srcRank] = key.split("<").map(Number);
      return durations.map((durationUs, i) => ({ rank, srcRank, name: "network rows", startUs: i, durationUs }));
    });

  test("both ends together, the middle rail, the shortest repeat", () => {
    const pairs = [[0, 1]] as const;
    // Rank 2 also waited 500 us for rank 0 to come: rank 0 was at it for 300 us, two messages.
    const first = phases({ "2<0": [600, 200], "0<2": [100, 200], "3<1": [400, 400], "1<3": [500, 500] });
    const again = phases({ "2<0": [900, 900], "0<2": [900, 900], "3<1": [900, 900], "1<3": [900, 900] });
    expect(oneWayTimes([{ pairs, phases: first }], shape)).toEqual([{ srcNode: 0, dstNode: 1, messageUs: 150 }]);
    const trials = [again, first, again].map((one) => ({ pairs, phases: one }));
    expect(oneWayTimes(trials, shape)).toEqual([{ srcNode: 0, dstNode: 1, messageUs: 150 }]);
    expect(oneWayTimes([{ pairs, phases: [] }], shape)).toEqual([]);
  });
});
