import { beforeAll, describe, expect, it } from "vitest";
import { openFile } from "../../../cli/files.ts";
import { openRouting, type RoutingFile } from "../../../core/routing/import/index.ts";
import {
  balancedPlacement,
  contiguousPlacement,
  countLayer,
  dataPath,
  expertLoad,
  FITTED,
  fileSource,
  generatedSource,
  type LayerPrediction,
  machinePreset,
  type Placement,
  predictLayer,
  type RoutingSource,
  type Setup,
  scaling,
} from "../../../core/topology/index.ts";
import { besideRepository, mean } from "./helpers.ts";

const setup: Setup = {
  machine: machinePreset("h200"),
  path: dataPath("fused-a2a"),
  parameters: FITTED.parameters,
  hidden: 2880,
  rowKind: "bf16",
  numSms: 24,
  scope: "main",
};
const options = {
  workload: "uniform",
  params: {},
  seed: 1,
  numTokens: 256,
  topk: 8,
  numExperts: 256,
  numLayers: 1,
  numSteps: 1,
};

async function predict(source: RoutingSource, layer: number, placement: Placement): Promise<LayerPrediction> {
  const { traffic } = await countLayer(source, 0, layer, placement, { choice: "spread" });
  const shape = { topk: source.topk, numExperts: placement.replicas.length };
  return predictLayer(traffic, setup, shape, ["dispatch", "combine"], { step: 0, layer, name: `${layer}` });
}

describe("generated sources", () => {
  it("visit every rank once, and the same tokens again", async () => {
    const source = generatedSource({ ...options, numRanks: 16, ranksPerNode: 8 });
    const seen: Record<number, Int32Array> = {};
    await source.eachRank(0, 0, (rank, ids) => {
      expect(seen[rank]).toBeUndefined();
      seen[rank] = ids.slice();
    });
    expect(Object.keys(seen)).toHaveLength(16);
    await source.eachRank(0, 0, (rank, ids) => expect(ids).toEqual(seen[rank]));
  });

  it("go on with the same tables from step to step", async () => {
    const shape = { ...options, workload: "zipf", numRanks: 8, ranksPerNode: 8, numSteps: 2 };
    const source = generatedSource(shape);
    const long = generatedSource({ ...shape, numTokens: 512, numSteps: 1 });
    const steps: Record<string, string> = {};
    for (const step of [0, 1]) {
      await source.eachRank(step, 0, (rank, ids) => {
        steps[`${rank}.${step}`] = ids.join();
      });
    }
    await long.eachRank(0, 0, (rank, ids) => {
      expect(`${steps[`${rank}.0`]},${steps[`${rank}.1`]}`).toBe(ids.join());
    });
  });

  it("serve more ranks than experts: each rank its own tokens", async () => {
    const source = generatedSource({ ...options, numExperts: 8, topk: 2, numRanks: 32, ranksPerNode: 8 });
    const seen = new Map<number, string>();
    await source.eachRank(0, 0, (rank, ids) => seen.set(rank, ids.join()));
    expect([...seen.keys()].sort((a, b) => a - b)).toEqual(Array.from({ length: 32 }, (_, r) => r));
    expect(new Set(seen.values()).size).toBe(32);
    const placement = contiguousPlacement(8, 32, { numRanks: 32, ranksPerNode: 8 });
    const { traffic } = await countLayer(source, 0, 0, placement, { choice: "spread" });
    expect(mean(traffic.sendSlots)).toBe(512);
  });
});

describe("scaling", () => {
  it("counts growing groups: the network binds as soon as there is one, and time never falls", async () => {
    const sizes = [8, 16, 32, 64];
    const machine = machinePreset("h100");
    const points = await scaling(sizes, { ...options, ranksPerNode: 8 }, { ...setup, machine });
    expect(points.map((point) => point.numRanks)).toEqual(sizes);
    expect(points.map((point) => point.prediction.phases[0].bottleneck.name)).toEqual([
      "nvlink",
      "network",
      "network",
      "network",
    ]);
    for (let i = 1; i < points.length; i++) {
      expect(points[i].prediction.timeUs).toBeGreaterThan(points[i - 1].prediction.timeUs);
    }
  });

  it("holds one replica per rank when there are more ranks than experts", async () => {
    const [point] = await scaling([64], { ...options, numExperts: 32, ranksPerNode: 8 }, setup);
    expect(point.numPhysical).toBe(64);
    expect(point.prediction.slowdown).toBeLessThan(1.2);
  });
});

const gptOss = besideRepository("routing/gpt-oss-20b.decode.128x64.safetensors");

describe.skipIf(gptOss === null)("the real gpt-oss layers on 8 ranks", () => {
  const group = { numRanks: 8, ranksPerNode: 8 };
  let file: RoutingFile;
  let source: RoutingSource;
  beforeAll(async () => {
    file = await openRouting(await openFile(gptOss ?? ""));
    source = fileSource(file, group, { numSteps: 1, layers: Array.from({ length: 24 }, (_, layer) => layer) });
    return () => file.close();
  });

  it("are slower than uniform routing, every one, and balanced placement recovers most of it", async () => {
    const slowdowns: number[] = [];
    const balanced: number[] = [];
    for (let layer = 0; layer < 24; layer++) {
      const plain = await predict(source, layer, contiguousPlacement(32, 32, group));
      const load = await expertLoad(source, 0, layer);
      const placement = balancedPlacement({ load, numPhysical: 40, ...group, mode: "global" });
      const after = await predict(source, layer, placement);
      expect(plain.slowdown).toBeGreaterThan(1.05);
      expect(after.timeUs).toBeLessThan(plain.timeUs);
      slowdowns.push(plain.slowdown);
      balanced.push(after.timeUs / plain.uniformUs);
    }
    const average = (list: number[]) => list.reduce((sum, x) => sum + x, 0) / list.length;
    expect(Math.max(...slowdowns)).toBeGreaterThan(1.5);
    expect(average(balanced) - 1).toBeLessThan(0.35 * (average(slowdowns) - 1));
  });

  it("have all their slots counted, layer by layer", async () => {
    const { traffic, expertSlots } = await countLayer(source, 0, 7, contiguousPlacement(32, 32, group), {
      choice: "spread",
    });
    expect(traffic.sendSlots.reduce((a, b) => a + b, 0)).toBe(8192 * 4);
    expect(expertSlots).toEqual(await expertLoad(source, 0, 7));
  });

  it("cut into steps have the same tokens together", async () => {
    const steps = fileSource(file, group, { numSteps: 5, layers: [0] });
    const load = new Float64Array(32);
    for (let step = 0; step < 5; step++) {
      const part = await expertLoad(steps, step, 0);
      for (let e = 0; e < 32; e++) load[e] += part[e];
    }
    expect(load).toEqual(await expertLoad(source, 0, 0));
  });
});
