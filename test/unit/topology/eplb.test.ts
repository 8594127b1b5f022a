import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  balancedPlacement,
  chooseReplicas,
  contiguousPlacement,
  imbalance,
  type Placement,
  placementOf,
} from "../../../core/topology/index.ts";

/** Load per rank when every replica carries its share. */
function rankLoad(placement: Placement, load: Float64Array): Float64Array {
  const perRank = placement.replicas.length / placement.numRanks;
  const result = new Float64Array(placement.numRanks);
  placement.physicalToLogical.forEach((logical, physical) => {
    const replicas = placement.replicaStart[logical + 1] - placement.replicaStart[logical];
    result[Math.floor(physical / perRank)] += load[logical] / replicas;
  });
  return result;
}

const problem = fc
  .record({
    nodes: fc.integer({ min: 1, max: 3 }),
    perNode: fc.integer({ min: 1, max: 4 }),
    perRank: fc.integer({ min: 1, max: 3 }),
    redundant: fc.integer({ min: 0, max: 2 }),
  })
  .chain(({ nodes, perNode, perRank, redundant }) => {
    const numRanks = nodes * perNode;
    const numLogical = numRanks * perRank;
    return fc.record({
      numRanks: fc.constant(numRanks),
      ranksPerNode: fc.constant(perNode),
      numPhysical: fc.constant(numLogical + redundant * numRanks),
      load: fc
        .array(fc.nat(1000), { minLength: numLogical, maxLength: numLogical })
        .map((list) => Float64Array.from(list)),
    });
  });

describe("balanced placement", () => {
  it("solves a case by hand", () => {
    // Expert 0 gets both spare places (100/3 each); 40, 33.3 x 3, 30, 20, 10, 0 onto four pairs: 33.3 + 30 is the largest.
    const load = Float64Array.of(100, 40, 30, 20, 10, 0);
    const placement = balancedPlacement({ load, numPhysical: 8, numRanks: 4, ranksPerNode: 4, mode: "global" });
    expect(placement.replicaStart[1]).toBe(3);
    expect(Math.max(...rankLoad(placement, load))).toBeCloseTo(100 / 3 + 30, 9);
  });

  it("places every expert, fills every rank, and is no worse than contiguous packing allows", () => {
    fc.assert(
      fc.property(problem, fc.constantFrom("global" as const, "hierarchical" as const), (given, mode) => {
        const placement = balancedPlacement({ ...given, mode });
        expect(placement.physicalToLogical).toHaveLength(given.numPhysical);
        for (let e = 0; e < given.load.length; e++) {
          const count = placement.replicaStart[e + 1] - placement.replicaStart[e];
          expect(count).toBeGreaterThanOrEqual(1);
        }
        // Longest processing time first: at most the mean plus one whole item.
        const loads = rankLoad(placement, given.load);
        if (mode === "global") {
          const shares = [...given.load].map(
            (value, e) => value / (placement.replicaStart[e + 1] - placement.replicaStart[e]),
          );
          const mean = loads.reduce((a, b) => a + b, 0) / loads.length;
          const perRank = given.numPhysical / given.numRanks;
          expect(Math.max(...loads)).toBeLessThanOrEqual(mean + perRank * Math.max(...shares) + 1e-9);
        }
      }),
    );
  });

  it("keeps a group of experts on one node (hierarchical)", () => {
    fc.assert(
      fc.property(problem, (given) => {
        const nodes = given.numRanks / given.ranksPerNode;
        const placement = balancedPlacement({ ...given, mode: "hierarchical" });
        const perGroup = given.load.length / nodes;
        const perNode = given.numPhysical / nodes;
        const nodeOfGroup = new Map<number, Set<number>>();
        placement.physicalToLogical.forEach((logical, physical) => {
          const group = Math.floor(logical / perGroup);
          nodeOfGroup.set(group, (nodeOfGroup.get(group) ?? new Set()).add(Math.floor(physical / perNode)));
        });
        for (const places of nodeOfGroup.values()) expect(places.size).toBe(1);
      }),
    );
  });

  it("takes the skew of a power law away with redundant experts", () => {
    const load = Float64Array.from({ length: 256 }, (_, e) => 1e6 / (e + 1));
    const group = { numRanks: 32, ranksPerNode: 8 };
    const before = rankLoad(contiguousPlacement(256, 256, group), load);
    const plain = rankLoad(balancedPlacement({ load, numPhysical: 256, ...group, mode: "global" }), load);
    const redundant = rankLoad(balancedPlacement({ load, numPhysical: 288, ...group, mode: "global" }), load);
    expect(imbalance(before)).toBeGreaterThan(10);
    expect(imbalance(plain)).toBeLessThan(imbalance(before));
    expect(imbalance(redundant)).toBeLessThan(1.05);
  });

  it.each([
    [{ numPhysical: 200 }, /at least 256/],
    [{ numPhysical: 260 }, /multiple of 16/],
    [{ numGroups: 3 }, /groups/],
  ])("refuses %j", (changes, message) => {
    const load = new Float64Array(256);
    const options = { load, numPhysical: 256, numRanks: 16, ranksPerNode: 8, mode: "hierarchical" as const };
    expect(() => balancedPlacement({ ...options, ...changes })).toThrow(message);
  });
});

describe("replicas", () => {
  const group = { numRanks: 4, ranksPerNode: 2 };

  it("are taken in turn, and stay distinct within a token", () => {
    const placement = contiguousPlacement(4, 8, group);
    const ids = Int32Array.from({ length: 400 }, (_, i) => [0, 3, 2, -1][i % 4]);
    const out = new Int32Array(400);
    chooseReplicas(placement, "spread", 1, ids, 4, out);
    const used = new Map<number, number>();
    for (let token = 0; token < 100; token++) {
      const row = [...out.subarray(4 * token, 4 * token + 4)];
      expect(row[3]).toBe(-1);
      expect(new Set(row).size).toBe(4);
      expect(row.slice(0, 3).map((physical) => physical % 4)).toEqual([0, 3, 2]);
      for (const physical of row) used.set(physical, (used.get(physical) ?? 0) + 1);
    }
    for (const physical of [0, 4, 3, 7, 2, 6]) expect(used.get(physical)).toBe(50);
  });

  it("come from the own rank, then the own node, when the nearest are wanted", () => {
    // Rank 0: experts 0 1, rank 1: 2 0, rank 2: 1 2, rank 3: 0 1.
    const placement = placementOf(Int32Array.of(0, 1, 2, 0, 1, 2, 0, 1), 3, group);
    const out = new Int32Array(3);
    chooseReplicas(placement, "nearest", 1, Int32Array.of(0, 1, 2), 3, out);
    expect([...out]).toEqual([3, 1, 2]);
  });

  it("refuse ids that are no experts, with rank, token and slot", () => {
    const placement = contiguousPlacement(4, 8, group);
    const choose = (...ids: number[]) =>
      chooseReplicas(placement, "spread", 2, Int32Array.from(ids), 2, new Int32Array(4));
    expect(() => choose(0, 1, 4, -1)).toThrow(/-1\.\.3, received 4 at rank 2, token 1, slot 0/);
    expect(() => choose(0, -2, 1, -1)).toThrow(/received -2 at rank 2, token 0, slot 1/);
    expect(() => placementOf(Int32Array.of(0, 0, 1, 1), 3, group)).toThrow(/none of expert 2/);
    expect(() => contiguousPlacement(6, 6, group)).toThrow(/2 make it fit/);
  });
});
