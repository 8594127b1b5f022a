import { describe, expect, it } from "vitest";
import {
  contiguousPlacement,
  countLayer,
  dataPath,
  FITTED,
  generatedSource,
  machinePreset,
  predictLayer,
} from "../../../core/topology/index.ts";

describe("2048 ranks on 256 nodes, 4096 tokens each, top-8 of 256 experts in 2048 replicas", () => {
  it.each(["uniform", "zipf", "realistic"])(
    "are counted and predicted in under 20 s and 4 GiB: %s",
    async (workload) => {
      const group = { numRanks: 2048, ranksPerNode: 8 };
      const started = performance.now();
      const source = generatedSource({
        workload,
        params: {},
        seed: 1,
        ...group,
        numTokens: 4096,
        topk: 8,
        numExperts: 256,
        numLayers: 1,
        numSteps: 1,
      });
      const placement = contiguousPlacement(256, 2048, group);
      const { traffic } = await countLayer(source, 0, 0, placement, { choice: "spread" });
      const setup = {
        machine: machinePreset("h100"),
        path: dataPath("fused-a2a"),
        parameters: FITTED.parameters,
        hidden: 7168,
        rowKind: "bf16" as const,
        numSms: 24,
        scope: "call" as const,
      };
      const { slowdown } = predictLayer(traffic, setup, { topk: 8, numExperts: 2048 }, ["dispatch", "combine"], {
        step: 0,
        layer: 0,
        name: "0",
      });
      expect(performance.now() - started).toBeLessThan(20_000);
      expect(process.memoryUsage().rss).toBeLessThan(4 * 2 ** 30);
      expect(traffic.sendSlots.reduce((a, b) => a + b, 0)).toBe(2048 * 4096 * 8);
      expect(slowdown).toBeGreaterThan(1);
    },
  );

  it("cost time in proportion to the slots", async () => {
    const group = { numRanks: 512, ranksPerNode: 8 };
    const time = async (numTokens: number) => {
      const source = generatedSource({
        workload: "uniform",
        params: {},
        seed: 1,
        ...group,
        numTokens,
        topk: 8,
        numExperts: 512,
        numLayers: 1,
        numSteps: 1,
      });
      const started = performance.now();
      await countLayer(source, 0, 0, contiguousPlacement(512, 512, group), { choice: "spread" });
      return performance.now() - started;
    };
    await time(512);
    const ratio = (await time(8192)) / (await time(2048));
    expect(ratio).toBeGreaterThan(2);
    expect(ratio).toBeLessThan(8);
  });
});
