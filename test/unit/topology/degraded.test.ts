import { describe, expect, it } from "vitest";
import {
  contiguousPlacement,
  countLayer,
  DeadRanks,
  generatedSource,
  placementOf,
} from "../../../core/topology/index.ts";

const group = { numRanks: 4, ranksPerNode: 2 };

describe("dead ranks", () => {
  it("take their tokens and their experts with them", () => {
    const dead = new DeadRanks(contiguousPlacement(4, 4, group), [1]);
    expect(dead.mask(1, Int32Array.of(0, 2, 3, 1), 2)).toHaveLength(0);
    expect([...dead.mask(0, Int32Array.of(1, 2, 1, -1, 0, 3), 2)]).toEqual([-1, 2, -1, -1, 0, 3]);
    expect(dead.degradation()).toEqual({
      deadRanks: [1],
      numTokensGone: 2,
      numTokensDegraded: 2,
      numTokensEmpty: 1,
      numSlotsLost: 2,
      numSlotsMoved: 0,
      lostExperts: [1],
    });
  });

  it("leave their slots to living replicas where there are any", () => {
    // Expert 1 lives on ranks 1 and 3, expert 2 on rank 1 only.
    const placement = placementOf(Int32Array.of(0, 3, 1, 2, 0, 3, 1, 0), 4, group);
    const dead = new DeadRanks(placement, [1]);
    expect([...dead.mask(0, Int32Array.of(2, 3), 2)]).toEqual([6, -1]);
    expect(dead.degradation()).toMatchObject({
      numSlotsMoved: 1,
      numSlotsLost: 1,
      numTokensEmpty: 0,
      lostExperts: [2],
    });
  });

  it("receive and send nothing that is counted", async () => {
    const source = generatedSource({
      ...group,
      workload: "uniform",
      params: {},
      seed: 1,
      numTokens: 64,
      topk: 2,
      numExperts: 8,
      numLayers: 1,
      numSteps: 1,
    });
    const placement = contiguousPlacement(8, 8, group);
    const dead = new DeadRanks(placement, [2]);
    const { traffic } = await countLayer(source, 0, 0, placement, { choice: "spread", dead });
    expect(traffic.recvRows[2]).toBe(0);
    expect(traffic.sendRows[2]).toBe(0);
    expect(traffic.numTokens[2]).toBe(0);
    const whole = await countLayer(source, 0, 0, placement, { choice: "spread" });
    const slots = (values: Float64Array) => values.reduce((a, b) => a + b, 0);
    const { numSlotsLost } = dead.degradation();
    expect(slots(traffic.sendSlots)).toBe(slots(whole.traffic.sendSlots) - 64 * 2 - numSlotsLost);
  });

  it("must be ranks of the group, and leave one alive", () => {
    const placement = contiguousPlacement(4, 4, group);
    expect(() => new DeadRanks(placement, [4])).toThrow(/0\.\.3, received 4/);
    expect(() => new DeadRanks(placement, [0, 1, 2, 3])).toThrow(/leave one alive/);
  });
});
