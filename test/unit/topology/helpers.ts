import { existsSync } from "node:fs";
import { routingGenerator } from "../../../core/routing/generate.ts";
import { TrafficCounter } from "../../../core/topology/index.ts";

export interface Shape {
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly numTokens: number;
  readonly numExperts: number;
  readonly topk: number;
}

/** Counts a generated routing with pairs kept. */
export function counted(workload: string, shape: Shape, seed = 1): TrafficCounter {
  const generate = routingGenerator({ workload, seed, ...shape, weights: false });
  const counter = new TrafficCounter({ ...shape, keepPairs: true });
  for (let rank = 0; rank < shape.numRanks; rank++) counter.add(rank, generate(rank).topkIdx.data, shape.topk);
  return counter;
}

/** A file beside the repository, or null where there is none (a user's clone). */
export function besideRepository(path: string): string | null {
  const url = new URL(`../../../../shared/${path}`, import.meta.url);
  return existsSync(url) ? url.pathname : null;
}

export function mean(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
