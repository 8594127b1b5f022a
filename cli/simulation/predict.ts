import {
  balancedPlacement,
  contiguousPlacement,
  countLayer,
  DeadRanks,
  expertLoad,
  PHASES,
  type PhaseName,
  type PipelineResult,
  type Placement,
  phaseOperation,
  predictLayer,
  simulatePipeline,
  type TrafficCounter,
} from "../../core/topology/index.ts";
import { printResult } from "../output.ts";
import { progressBar } from "../progress.ts";
import {
  badOption,
  numPhysicalExperts,
  openSource,
  perRank,
  readMachine,
  readSetup,
  type SimulateOptions,
  whole,
  wholeList,
} from "./options.ts";
import { balanceText, predictionText, toJson } from "./report.ts";
import type { Predicted, Run } from "./run.ts";
import { writePredictedTrace } from "./trace.ts";

/** `simulate` without a question: every (step, layer), before and after balancing when asked. */
export async function runPredict(routing: string | undefined, options: SimulateOptions): Promise<void> {
  if (options.dead !== undefined && options.trace !== undefined) {
    throw badOption("trace", "no --dead beside it", options.trace, "a trace holds the routing as given");
  }
  if ((options.late || options.slowLink) && !options.events) {
    throw badOption(
      options.late ? "late" : "slow-link",
      "--events beside it",
      "none",
      "the closed form knows no order",
    );
  }
  const machine = await readMachine(options);
  const { source, group, close } = await openSource(routing, options, machine);
  try {
    const setup = await readSetup(options, machine, group);
    const run: Run = { source, group, setup, options, phases: options.backward ? PHASES : PHASES.slice(0, 2) };
    const plain = contiguousPlacement(source.numExperts, numPhysicalExperts(options, source.numExperts), group);
    const identity = Array.from({ length: source.numLayers }, () => plain);
    if (options.balance === undefined) {
      const predicted = await predictAll(run, identity, "counting");
      if (options.trace) await writePredictedTrace(options.trace, run, identity, predicted);
      printResult(toJson(run, predicted), () => predictionText(run, predicted), options.json);
      return;
    }
    const before = await predictAll(run, unreplicated(run) ?? identity, "counting");
    const placements = await balance(run, plain.replicas.length);
    const after = await predictAll(run, placements, "counting, balanced");
    if (options.trace) await writePredictedTrace(options.trace, run, placements, after);
    printResult(
      {
        before: toJson(run, before),
        after: toJson(run, after),
        physicalToLogical: placements.map((placement) => placement.physicalToLogical),
      },
      () => balanceText(run, before, after, plain.replicas.length),
      options.json,
    );
  } finally {
    await close();
  }
}

/** Contiguous placement without redundancy, when the experts divide over the ranks. */
function unreplicated({ source, group }: Run): Placement[] | null {
  if (source.numExperts % group.numRanks !== 0) return null;
  const placement = contiguousPlacement(source.numExperts, source.numExperts, group);
  return Array.from({ length: source.numLayers }, () => placement);
}

/** One balanced placement per layer, from the load of the training steps (default: all). */
async function balance({ source, group, options }: Run, numPhysical: number): Promise<Placement[]> {
  const steps = options.trainSteps === undefined ? source.numSteps : whole("train-steps", options.trainSteps);
  if (options.trainSteps !== undefined && steps >= source.numSteps) {
    throw badOption("train-steps", `fewer than --steps ${source.numSteps}`, `${steps}`, "keep steps to predict");
  }
  const placements: Placement[] = [];
  for (let layer = 0; layer < source.numLayers; layer++) {
    const load = new Float64Array(source.numExperts);
    for (let step = 0; step < steps; step++) {
      const counted = await expertLoad(source, step, layer);
      for (let e = 0; e < load.length; e++) load[e] += counted[e];
    }
    const mode = options.balance ?? "global";
    const numGroups = options.groups === undefined ? undefined : whole("groups", options.groups);
    placements.push(balancedPlacement({ load, numPhysical, ...group, mode, numGroups }));
  }
  return placements;
}

async function predictAll(run: Run, placements: readonly Placement[], label: string): Promise<Predicted[]> {
  const { source, options } = run;
  const bar = progressBar(label);
  const predicted: Predicted[] = [];
  const firstStep = options.balance && options.trainSteps ? whole("train-steps", options.trainSteps) : 0;
  const total = (source.numSteps - firstStep) * source.numLayers;
  for (let step = firstStep; step < source.numSteps; step++) {
    for (let layer = 0; layer < source.numLayers; layer++) {
      const progress = (fraction: number) => bar.update((predicted.length + fraction) / total);
      predicted.push(await predictOne(run, placements[layer], step, layer, progress));
    }
  }
  bar.done();
  return predicted;
}

async function predictOne(
  run: Run,
  placement: Placement,
  step: number,
  layer: number,
  progress: (fraction: number) => void,
): Promise<Predicted> {
  const { source, setup, options, phases } = run;
  const dead = options.dead === undefined ? null : new DeadRanks(placement, wholeList("dead", options.dead));
  const counter = await countLayer(source, step, layer, placement, {
    choice: options.replicaChoice,
    keepPairs: options.events,
    dead,
    progress,
  });
  const shape = { topk: source.topk, numExperts: placement.replicas.length };
  const place = { step, layer, name: source.layerNames[layer] };
  const prediction = predictLayer(counter.traffic, setup, shape, phases, place);
  const events = options.events ? phases.map((phase) => runEvents(run, counter, phase)) : null;
  return { prediction, events, degradation: dead?.degradation() ?? null };
}

export function runEvents(
  run: Pick<Run, "setup" | "options">,
  counter: TrafficCounter,
  phase: PhaseName,
): PipelineResult {
  const { setup, options } = run;
  const { numRanks } = counter.traffic;
  const { operation, isBackward } = phaseOperation(phase);
  const [result] = simulatePipeline([
    {
      ...setup,
      rowKind: isBackward && setup.rowKind === "fp8" ? "bf16" : setup.rowKind,
      operation,
      counter,
      numChunks: whole("chunks", options.chunks),
      readyUs: options.late && perRank("late", options.late, numRanks, 0, 0, Number.POSITIVE_INFINITY),
      slowPair: options.slowLink === undefined ? undefined : slowPair(options.slowLink, numRanks),
    },
  ]);
  return result;
}

function slowPair(text: string, numRanks: number): { src: number; dst: number; speed: number } {
  const [, src, dst, speed] = /^(\d+)-(\d+)=([\d.eE+-]+)$/.exec(text) ?? [];
  const isLegal = Number(src) < numRanks && Number(dst) < numRanks && Number(speed) > 0 && Number(speed) <= 1;
  if (!isLegal) throw badOption("slow-link", `src-dst=fraction with ranks 0..${numRanks - 1}`, text);
  return { src: Number(src), dst: Number(dst), speed: Number(speed) };
}
