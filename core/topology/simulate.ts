import { type UniformShape, uniformTraffic } from "./closedForm.ts";
import {
  type CostInput,
  type LinkHealth,
  type OperationCost,
  operationCost,
  type RowKind,
  type Scope,
} from "./cost.ts";
import { TrafficCounter } from "./count.ts";
import type { DataPath, Operation } from "./dataPath.ts";
import type { DeadRanks } from "./degraded.ts";
import type { Machine } from "./machine.ts";
import type { Parameters } from "./parameters.ts";
import { chooseReplicas, type Placement, type ReplicaChoice } from "./placement.ts";
import type { Traffic } from "./traffic.ts";

/** Routing to predict, rank by rank: logical expert ids, any number of layers and steps. */
export interface RoutingSource {
  readonly numSteps: number;
  readonly numLayers: number;
  readonly layerNames: readonly string[];
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly topk: number;
  readonly numExperts: number;
  /** Calls `visit` once per rank, in any order, with its [tokens, topk] ids, valid during the call. */
  eachRank(
    step: number,
    layer: number,
    visit: (rank: number, ids: Int32Array) => void,
    progress?: (fraction: number) => void,
  ): Promise<void>;
}

/** Everything but the routing. */
export interface Setup {
  readonly machine: Machine;
  readonly path: DataPath;
  readonly parameters: Parameters;
  readonly hidden: number;
  readonly rowKind: RowKind;
  readonly numSms: number;
  readonly scope: Scope;
  readonly health?: LinkHealth;
}

export const PHASES = ["dispatch", "combine", "dispatch-backward", "combine-backward"] as const;
export type PhaseName = (typeof PHASES)[number];

/** The movement behind each phase: backward of dispatch is a combine of gradients, backward of combine a cached dispatch. */
export function phaseOperation(phase: PhaseName): { operation: Operation; isBackward: boolean } {
  const isBackward = phase === "dispatch-backward" || phase === "combine-backward";
  const operation = phase === "dispatch" || phase === "combine-backward" ? "dispatch" : "combine";
  return { operation, isBackward };
}

export interface PhasePrediction extends OperationCost {
  readonly phase: PhaseName;
}

export interface LayerPrediction {
  readonly step: number;
  readonly layer: number;
  readonly name: string;
  readonly numTokens: number;
  readonly traffic: Traffic;
  readonly phases: readonly PhasePrediction[];
  readonly timeUs: number;
  /** The same tokens spread uniformly over all experts. */
  readonly uniformUs: number;
  /** timeUs / uniformUs. */
  readonly slowdown: number;
  /** Received rows and slots, largest / mean over ranks. */
  readonly rowImbalance: number;
  readonly slotImbalance: number;
}

/** Counts one (step, layer) of a source on a placement, one rank at a time. */
export async function countLayer(
  source: RoutingSource,
  step: number,
  layer: number,
  placement: Placement,
  options: {
    choice: ReplicaChoice;
    keepPairs?: boolean;
    /** Masked out before anything is counted. */
    dead?: DeadRanks | null;
    progress?: (fraction: number) => void;
  },
): Promise<TrafficCounter> {
  const counter = new TrafficCounter({
    numRanks: source.numRanks,
    ranksPerNode: source.ranksPerNode,
    numExperts: placement.replicas.length,
    keepPairs: options.keepPairs,
  });
  const isIdentity = placement.physicalToLogical.every((logical, physical) => logical === physical);
  let physical = new Int32Array(0);
  await source.eachRank(
    step,
    layer,
    (rank, ids) => {
      if (isIdentity && placement.numLogical === placement.replicas.length && !options.dead) {
        counter.add(rank, ids, source.topk);
        return;
      }
      if (physical.length !== ids.length) physical = new Int32Array(ids.length);
      chooseReplicas(placement, options.choice, rank, ids, source.topk, physical);
      counter.add(rank, options.dead ? options.dead.mask(rank, physical, source.topk) : physical, source.topk);
    },
    options.progress,
  );
  return counter;
}

/** Slots per logical expert of one (step, layer). */
export async function expertLoad(source: RoutingSource, step: number, layer: number): Promise<Float64Array> {
  const load = new Float64Array(source.numExperts);
  await source.eachRank(step, layer, (_rank, ids) => {
    for (const expert of ids) if (expert >= 0 && expert < load.length) load[expert]++;
  });
  return load;
}

/** Predicts the phases of one layer from its counts; gradients are never fp8. */
export function predictPhases(
  traffic: Traffic,
  setup: Setup,
  shape: { topk: number; numExperts: number },
  phases: readonly PhaseName[],
): PhasePrediction[] {
  return phases.map((phase) => {
    const { operation, isBackward } = phaseOperation(phase);
    const rowKind = isBackward && setup.rowKind === "fp8" ? "bf16" : setup.rowKind;
    const input: CostInput = { ...setup, ...shape, traffic, operation, rowKind, isCached: isBackward };
    return { phase, ...operationCost(input) };
  });
}

/** One layer: its phases, and the time of the same tokens routed uniformly. */
export function predictLayer(
  traffic: Traffic,
  setup: Setup,
  shape: Pick<UniformShape, "topk" | "numExperts">,
  phases: readonly PhaseName[],
  place: { step: number; layer: number; name: string },
): LayerPrediction {
  const numTokens = traffic.numTokens.reduce((sum, tokens) => sum + tokens, 0);
  const predicted = predictPhases(traffic, setup, shape, phases);
  const { numRanks, ranksPerNode } = traffic;
  const uniform = uniformTraffic({ numRanks, ranksPerNode, numTokens: numTokens / numRanks, ...shape });
  const sum = (list: readonly PhasePrediction[]) => list.reduce((total, phase) => total + phase.timeUs, 0);
  const timeUs = sum(predicted);
  const uniformUs = sum(predictPhases(uniform, setup, shape, phases));
  return {
    ...place,
    numTokens,
    traffic,
    phases: predicted,
    timeUs,
    uniformUs,
    slowdown: timeUs / uniformUs,
    rowImbalance: imbalance(traffic.recvRows),
    slotImbalance: imbalance(traffic.recvSlots),
  };
}

/** max / mean; 1 when there is nothing. */
export function imbalance(values: Float64Array): number {
  const sum = values.reduce((total, value) => total + value, 0);
  return sum === 0 ? 1 : (values.reduce((a, b) => Math.max(a, b), 0) * values.length) / sum;
}

/** "NVLink in of rank 3", "NIC of every rank", "SMs": what a term's bottleneck is called. */
export function describeBottleneck({ bottleneck: term }: OperationCost): string {
  const what = { nvlink: "NVLink", network: "NIC", sm: "SMs" }[term.name as "nvlink" | "network" | "sm"] ?? term.name;
  const side = term.direction === "out" || term.direction === "in" ? ` ${term.direction}` : "";
  return `${what}${side} of ${term.rank < 0 ? "every rank" : `rank ${term.rank}`}`;
}
