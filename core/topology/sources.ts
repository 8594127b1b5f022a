import { InvalidArgument } from "../errors.ts";
import { routingGenerator } from "../routing/generate.ts";
import { type RoutingFile, rankBoundaries, withoutTokens } from "../routing/import/index.ts";
import type { RoutingSource } from "./simulate.ts";

export interface GeneratedOptions {
  readonly workload: string;
  readonly params: Readonly<Record<string, number>>;
  readonly seed: number;
  readonly numRanks: number;
  readonly ranksPerNode: number;
  /** Tokens per rank. */
  readonly numTokens: number;
  readonly topk: number;
  readonly numExperts: number;
  readonly numLayers: number;
  readonly numSteps: number;
}

/** Up to this many slots of one layer are kept between its steps; beyond, each step generates them again. */
const MAX_KEPT_SLOTS = 2 ** 25;

/**
 * A generated source. A step is the next `numTokens` tokens of every rank, from the same tables. More ranks than experts
 * (replicas): the generator makes one long rank per expert-sized share and the ranks take slices of it, so that its tables
 * stay the same and no more than one share is in memory.
 */
export function generatedSource(options: GeneratedOptions): RoutingSource {
  const { numRanks, numExperts, numTokens, topk, numSteps } = options;
  const shares = numExperts % numRanks === 0 ? numRanks : gcd(numRanks, numExperts);
  const perShare = numRanks / shares;
  const node = shares === numRanks ? options.ranksPerNode : gcd(shares, options.ranksPerNode);
  const keeps = numSteps > 1 && numRanks * numTokens * numSteps * topk <= MAX_KEPT_SLOTS;
  let kept: { layer: number; shares: Int32Array[] } = { layer: -1, shares: [] };
  return {
    ...options,
    layerNames: Array.from({ length: options.numLayers }, (_, layer) => `${layer}`),
    eachRank: async (step, layer, visit, progress) => {
      const generate = routingGenerator({
        workload: options.workload,
        params: options.params,
        seed: options.seed,
        numRanks: shares,
        ranksPerNode: node,
        numTokens: numTokens * perShare * numSteps,
        numExperts,
        topk,
        layer,
        weights: false,
      });
      if (kept.layer !== layer) kept = { layer, shares: [] };
      for (let share = 0; share < shares; share++) {
        const ids = kept.shares[share] ?? generate(share).topkIdx.data;
        if (keeps) kept.shares[share] = ids;
        for (let slice = 0; slice < perShare; slice++) {
          const begin = (slice * numSteps + step) * numTokens * topk;
          visit(share * perShare + slice, ids.subarray(begin, begin + numTokens * topk));
        }
        progress?.((share + 1) / shares);
        // Lets the progress bar draw.
        if (share % 16 === 0) await Promise.resolve();
      }
    },
  };
}

/** A routing file cut into `numSteps` equal runs of tokens per layer, each split over the ranks. */
export function fileSource(
  file: RoutingFile,
  group: { numRanks: number; ranksPerNode: number },
  options: { numSteps: number; layers: readonly number[] },
): RoutingSource {
  if (file.kind === "counts") throw withoutTokens(file);
  const { numSteps, layers } = options;
  return {
    numSteps,
    numLayers: layers.length,
    layerNames: layers.map((layer) => file.layerNames[layer]),
    ...group,
    topk: file.topk,
    numExperts: file.numExperts,
    eachRank: async (step, layer, visit, progress) => {
      const routing = await file.layer(layers[layer]);
      const ids = routing.topkIdx.data;
      const topk = file.topk;
      if (numSteps > 1 && routing.firstToken !== null) {
        throw new InvalidArgument({
          name: "steps",
          expected: "1 for a file that keeps its ranks apart",
          received: `${numSteps}`,
          where: { file: file.name },
          remedy: "leave --steps out",
        });
      }
      const numTokens = routing.topkIdx.shape[0];
      const begin = Math.floor((numTokens * step) / numSteps);
      const end = Math.floor((numTokens * (step + 1)) / numSteps);
      const first =
        numSteps === 1
          ? rankBoundaries(routing, group.numRanks)
          : Array.from(
              { length: group.numRanks + 1 },
              (_, r) => begin + Math.floor(((end - begin) * r) / group.numRanks),
            );
      for (let rank = 0; rank < group.numRanks; rank++) {
        visit(rank, ids.subarray(first[rank] * topk, first[rank + 1] * topk));
        progress?.((rank + 1) / group.numRanks);
      }
    },
  };
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}
