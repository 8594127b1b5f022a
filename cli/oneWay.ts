/**
 * Which direction between two nodes is slow. In a layer two ranks send to each other in one step, which ends for both when
 * both directions are through. Small dispatches that send one way only, one after the other, tell them apart.
 */
import type { Group, Phase } from "../core/backend.ts";
import { numLocalExperts } from "../core/layout/routing.ts";
import { tensor } from "../core/tensor.ts";
import { type OneWay, oneWayTimes, pairsSharingSteps } from "../core/topology/paths.ts";
import { gather } from "./gather.ts";
import type { Job } from "./job.ts";
import { countedWire } from "./wire.ts";

/** The shortest counts: a process that does something else for a moment makes a single one long. */
const REPEATS = 3;
/** Fills all four parts in which rows cross (docs/clusters.md). */
const NUM_TOKENS = 256;

/** Every process calls it. What it sends is part of no report. */
export async function measureOneWay(group: Group, job: Job): Promise<OneWay[]> {
  const pairs = pairsSharingSteps(job.shape);
  const ways = [pairs, pairs.map(([a, b]): [number, number] => [b, a])];
  const own: Phase[][] = [];
  for (let repeat = 0; repeat < REPEATS; repeat++) {
    for (const way of ways) own.push([...(await dispatchOneWay(group, job, way))]);
  }
  await countedWire(group);
  const all = await gather(group, "one way", own);
  const trials = own.map((_, i) => ({ pairs: ways[i % ways.length], phases: all.flatMap((phases) => phases[i]) }));
  return oneWayTimes(trials, job.shape);
}

/** Each rank of a sending node sends all its tokens to the rank of its own index on the other node. */
async function dispatchOneWay(group: Group, job: Job, pairs: readonly (readonly [number, number])[]) {
  const { ranksPerNode } = job.shape;
  const topkIdx = group.localRanks.map((rank) => {
    const pair = pairs.find(([srcNode]) => srcNode === Math.floor(rank / ranksPerNode));
    const ids = tensor("i32", [NUM_TOKENS, 1]);
    const dst = pair === undefined ? -1 : pair[1] * ranksPerNode + (rank % ranksPerNode);
    return { ...ids, data: ids.data.fill(dst < 0 ? -1 : dst * numLocalExperts(job.shape)) };
  });
  const x = group.localRanks.map(() => tensor("bf16", [NUM_TOKENS, job.hidden]));
  const { phases } = await group.dispatch({
    kind: "fused",
    x,
    scales: null,
    routing: { topkIdx, topkWeights: null },
    settings: { ...job.settings, numWorstTokens: 0, numPermutedTokens: null },
  });
  return phases;
}
