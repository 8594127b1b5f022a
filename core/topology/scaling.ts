import { contiguousPlacement } from "./placement.ts";
import { countLayer, type LayerPrediction, predictLayer, type Setup } from "./simulate.ts";
import { type GeneratedOptions, generatedSource } from "./sources.ts";

export interface ScalingPoint {
  readonly numRanks: number;
  readonly numNodes: number;
  readonly numPhysical: number;
  readonly prediction: LayerPrediction;
}

/**
 * The same workload per rank on growing groups, counted exactly. With more ranks than experts every rank holds one
 * replica; the domain stays what it is until the group is smaller.
 */
export async function scaling(
  sizes: readonly number[],
  options: Omit<GeneratedOptions, "numRanks">,
  setup: Setup,
  progress?: (fraction: number, numRanks: number) => void,
): Promise<ScalingPoint[]> {
  const points: ScalingPoint[] = [];
  const total = sizes.reduce((sum, size) => sum + size, 0);
  let done = 0;
  for (const numRanks of sizes) {
    const ranksPerNode = Math.min(numRanks, options.ranksPerNode);
    const numPhysical = Math.ceil(Math.max(options.numExperts, numRanks) / numRanks) * numRanks;
    const group = { numRanks, ranksPerNode };
    const source = generatedSource({ ...options, ...group });
    const placement = contiguousPlacement(options.numExperts, numPhysical, group);
    const counter = await countLayer(source, 0, 0, placement, {
      choice: "spread",
      progress: (fraction) => progress?.((done + fraction * numRanks) / total, numRanks),
    });
    const shape = { topk: options.topk, numExperts: numPhysical };
    const place = { step: 0, layer: 0, name: `${numRanks}` };
    const prediction = predictLayer(counter.traffic, setup, shape, ["dispatch", "combine"], place);
    points.push({ numRanks, numNodes: numRanks / ranksPerNode, numPhysical, prediction });
    done += numRanks;
  }
  return points;
}
