import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  expectedGroupsHit,
  hitProbability,
  singleHitProbability,
  uniformTraffic,
} from "../../../core/topology/index.ts";
import { counted, mean } from "./helpers.ts";

const reference = { numRanks: 8, ranksPerNode: 8, numTokens: 4096, topk: 8, numExperts: 256 };

describe("closed forms", () => {
  it("gives the published numbers of groups hit", () => {
    expect(expectedGroupsHit(8, 256, 8)).toBeCloseTo(5.295, 3);
    expect(expectedGroupsHit(8, 384, 6)).toBeCloseTo(4.43, 3);
    expect(expectedGroupsHit(2, 256, 8)).toBeCloseTo(1.993, 3);
    expect(expectedGroupsHit(4, 256, 8)).toBeCloseTo(3.614, 3);
  });

  it("gives the published chances of 0 and 1 experts on one rank", () => {
    expect(1 - hitProbability(32, 256, 8)).toBeCloseTo(0.338, 3);
    expect(singleHitProbability(32, 256, 8)).toBeCloseTo(0.399, 3);
  });

  it("agrees with counting subsets where that is possible", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 0, max: 8 }),
        (E, k, n) => {
          fc.pre(k <= E && n <= E);
          let hit = 0;
          let single = 0;
          let all = 0;
          for (let set = 0; set < 1 << E; set++) {
            const bits = [...set.toString(2)].filter((bit) => bit === "1").length;
            if (bits !== k) continue;
            const inside = [...(set & ((1 << n) - 1)).toString(2)].filter((bit) => bit === "1").length;
            all++;
            if (inside > 0) hit++;
            if (inside === 1) single++;
          }
          expect(hitProbability(n, E, k)).toBeCloseTo(hit / all, 12);
          expect(singleHitProbability(n, E, k)).toBeCloseTo(single / all, 12);
        },
      ),
    );
  });

  it("gives the bytes of the reference shape on the wire", () => {
    const traffic = uniformTraffic(reference);
    expect((traffic.railNvlinkIn[0] * 14336) / 1e6).toBeCloseTo(272.0, 0);
    expect((traffic.railNvlinkIn[0] * 7392) / 1e6).toBeCloseTo(140.3, 0);
    expect((traffic.recvRows[0] * 14336) / 1e6).toBeCloseTo(310.9, 0);
    // Rows with several local experts, and the slots beyond each row's first: what a local fill reads and writes.
    expect(traffic.multiRows[0]).toBeCloseTo(8614, -1);
    expect(traffic.recvSlots[0] - traffic.recvRows[0]).toBeCloseTo(11081, -1);
  });

  it.each([
    [2, 58.5],
    [4, 159.2],
    [8, 272.0],
  ])("gives the NIC bytes of %i nodes, each row once per node", (nodes, megabytes) => {
    const traffic = uniformTraffic({ ...reference, numRanks: 8 * nodes });
    expect((traffic.railNicOut[0] * 14336) / 1e6).toBeCloseTo(megabytes, 1);
  });

  it("limits the nodes of group-limited routing", () => {
    const shape = { ...reference, numRanks: 64 };
    const limited = uniformTraffic({ ...shape, nodeLimit: 4 });
    const eligible = expectedGroupsHit(4, 128, 8);
    expect(limited.nodeRows[0] / 4096).toBeCloseTo(eligible, 9);
    expect(uniformTraffic({ ...shape, nodeLimit: 8 })).toEqual(uniformTraffic(shape));
  });

  it.each([
    [8, 8],
    [32, 8],
    [16, 2],
  ])("is what counting a uniform routing of %i ranks in nodes of %i tends to", (numRanks, ranksPerNode) => {
    const shape = { numRanks, ranksPerNode, numTokens: 4096, topk: 8, numExperts: 256 };
    const { traffic } = counted("uniform", shape);
    const expected = uniformTraffic(shape);
    for (const name of ["sendRows", "nodeRows", "railReads", "railNvlinkOut", "slotNvlinkIn", "multiRows"] as const) {
      expect(mean(traffic[name]) / expected[name][0], name).toBeCloseTo(1, 1.5);
    }
    if (numRanks === ranksPerNode) return;
    for (const name of ["railNicOut", "directNicIn", "slotNicOut", "directNvlinkOut"] as const) {
      expect(mean(traffic[name]) / expected[name][0], name).toBeCloseTo(1, 1.5);
    }
  });
});
