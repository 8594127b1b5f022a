import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InvalidArgument } from "../../../core/errors.ts";
import { generateRouting } from "../../../core/routing/generate.ts";
import {
  COUNT_FORMULAS,
  countRouting,
  LOAD_FORMULAS,
  loadStatistics,
  ROUTING_FORMULAS,
  routingStatistics,
  splitEvenly,
} from "../../../core/routing/statistics/index.ts";

describe("load statistics", () => {
  it("of 1, 3, 0, 4 by hand", () => {
    const stats = loadStatistics([1, 3, 0, 4]);
    // Gini: sorted 0 1 3 4; (-3 * 0 - 1 * 1 + 1 * 3 + 3 * 4) / (4 * 8) = 14 / 32. Variance: (1 + 1 + 4 + 4) / 4 = 2.5.
    expect(stats).toEqual({
      count: 4,
      total: 8,
      mean: 2,
      min: 0,
      max: 4,
      maxOverMean: 2,
      excess: 1,
      p50: 1,
      p90: 4,
      p99: 4,
      cv: Math.sqrt(2.5) / 2,
      gini: 14 / 32,
      numZero: 1,
    });
  });

  it("takes the nearest rank as percentile", () => {
    const stats = loadStatistics(Array.from({ length: 200 }, (_, i) => i + 1));
    expect([stats.p50, stats.p90, stats.p99]).toEqual([100, 180, 198]);
  });

  it("of equal loads, no load and nothing", () => {
    expect(loadStatistics([5, 5, 5])).toMatchObject({ maxOverMean: 1, excess: 0, cv: 0, gini: 0 });
    expect(loadStatistics([0, 0])).toMatchObject({
      mean: 0,
      maxOverMean: null,
      excess: null,
      cv: null,
      gini: null,
      numZero: 2,
    });
    expect(loadStatistics([])).toMatchObject({ count: 0, mean: 0, max: 0, p99: 0, gini: null });
  });

  it("one holder of everything has Gini (n - 1) / n", () => {
    expect(loadStatistics([0, 0, 0, 9]).gini).toBeCloseTo(3 / 4, 12);
  });

  it("Gini is the mean absolute difference over twice the mean", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(1000), { minLength: 1, maxLength: 20 }), (loads) => {
        const total = loads.reduce((a, b) => a + b);
        fc.pre(total > 0);
        const n = loads.length;
        const differences = loads.flatMap((a) => loads.map((b) => Math.abs(a - b))).reduce((a, b) => a + b);
        expect(loadStatistics(loads).gini).toBeCloseTo(differences / (2 * n * total), 10);
      }),
    );
  });

  it("has a formula for every number", () => {
    expect(Object.keys(LOAD_FORMULAS)).toEqual(Object.keys(loadStatistics([1])));
    const counts = countRouting(new Int32Array([0]), 1, {
      numRanks: 1,
      ranksPerNode: 1,
      numExperts: 1,
      firstToken: [0, 1],
    });
    expect(Object.keys(COUNT_FORMULAS).sort()).toEqual(Object.keys(counts).sort());
    expect(Object.keys(ROUTING_FORMULAS)).toEqual(Object.keys(routingStatistics(counts)));
  });
});

describe("counting routing", () => {
  // 4 ranks on 2 nodes, 8 experts: rank e >> 1, node e >> 2. Rank 0 holds tokens 0-1, rank 1 none, rank 2 token 2, rank 3 token 3.
  const placement = { numRanks: 4, ranksPerNode: 2, numExperts: 8, firstToken: [0, 2, 2, 3, 4] };
  const ids = new Int32Array([
    ...[0, 1, 2], // rank 0 sends to 0 (two slots) and 1: node 0
    ...[7, -1, 3], // rank 0 sends to 3 and 1: nodes 1 and 0
    ...[4, 0, 5], // rank 2 sends to 2 (two slots) and 0: nodes 1 and 0
    ...[-1, -1, -1], // rank 3 sends nothing
  ]);

  it("by hand", () => {
    const counts = countRouting(ids, 3, placement);
    expect(counts).toEqual({
      numTokens: 4,
      numSlots: 8,
      numDroppedSlots: 4,
      numEmptyTokens: 1,
      numInvalidSlots: 0,
      slotsPerExpert: new Int32Array([2, 1, 1, 1, 1, 1, 0, 1]),
      slotsPerRank: new Int32Array([3, 2, 2, 1]),
      slotsPerNode: new Int32Array([5, 3]),
      tokensPerRank: new Int32Array([2, 0, 1, 1]),
      rowsPerRank: new Int32Array([2, 2, 1, 1]),
      sentRowsPerRank: new Int32Array([4, 0, 2, 0]),
      rowsPerNode: new Int32Array([3, 2]),
      numRows: 6,
      numRemoteRows: 4,
      numNodeRows: 5,
      numRemoteNodeRows: 2,
    });
    const stats = routingStatistics(counts, 2);
    expect(stats).toMatchObject({
      dedupFactor: 8 / 6,
      nodeDedupFactor: 6 / 5,
      rowsPerToken: 6 / 4,
      remoteShare: 4 / 6,
      remoteNodeShare: 2 / 5,
      droppedShare: 4 / 12,
      // Padded to 2: experts 2 2 2 2 2 2 0 2, ranks 4 4 4 2.
      paddingShare: 6 / 14,
    });
    expect(stats.padded?.experts.total).toBe(14);
    expect(stats.padded?.ranks).toMatchObject({ min: 2, max: 4, total: 14 });
    expect(stats.experts.numZero).toBe(1);
    expect(routingStatistics(counts).padded).toBe(null);
    expect(routingStatistics(counts).paddingShare).toBe(null);
  });

  it("counts ids that are no experts apart", () => {
    const counts = countRouting(new Int32Array([8, -2, 3, -1]), 2, { ...placement, firstToken: [0, 2, 2, 2, 2] });
    expect(counts).toMatchObject({
      numSlots: 1,
      numInvalidSlots: 2,
      numDroppedSlots: 1,
      numEmptyTokens: 1,
      numRows: 1,
    });
  });

  it("of nothing", () => {
    const counts = countRouting(new Int32Array(0), 3, { ...placement, firstToken: [0, 0, 0, 0, 0] });
    expect(routingStatistics(counts)).toMatchObject({ dedupFactor: null, remoteShare: null, rowsPerToken: null });
  });

  it("refuses experts that do not divide", () => {
    expect(() => countRouting(ids, 3, { ...placement, numExperts: 9 })).toThrow(InvalidArgument);
  });

  it("agrees with sets of pairs on random routing", () => {
    const sizes = fc.record({
      seed: fc.nat(),
      nodes: fc.integer({ min: 1, max: 3 }),
      ranksPerNode: fc.integer({ min: 1, max: 3 }),
      local: fc.integer({ min: 1, max: 4 }),
      numTokens: fc.nat(60),
    });
    fc.assert(
      fc.property(sizes, ({ seed, nodes, ranksPerNode, local, numTokens }) => {
        const numRanks = nodes * ranksPerNode;
        const numExperts = numRanks * local;
        const topk = Math.min(4, numExperts);
        const options = { workload: "drops", seed, numRanks: 1, numTokens, numExperts, topk };
        const [{ topkIdx }] = generateRouting(options);
        const firstToken = splitEvenly(numTokens, numRanks);
        const counts = countRouting(topkIdx.data, topk, { numRanks, ranksPerNode, numExperts, firstToken });
        const rows = new Set<string>();
        const remote = new Set<string>();
        const remoteNodes = new Set<string>();
        topkIdx.data.forEach((expert, i) => {
          if (expert < 0) return;
          const token = Math.floor(i / topk);
          const src = [...firstToken].findLastIndex((first, r) => r < numRanks && first <= token);
          const dst = Math.floor(expert / local);
          rows.add(`${token} ${dst}`);
          if (src !== dst) remote.add(`${token} ${dst}`);
          const dstNode = Math.floor(dst / ranksPerNode);
          if (dstNode !== Math.floor(src / ranksPerNode)) remoteNodes.add(`${token} ${dstNode}`);
        });
        expect([counts.numRows, counts.numRemoteRows, counts.numRemoteNodeRows]).toEqual([
          rows.size,
          remote.size,
          remoteNodes.size,
        ]);
      }),
    );
  });
});
