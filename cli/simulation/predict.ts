import {
  balancedPlacement,
  contiguousPlacement,
  countLayer,
  describeBottleneck,
  expertLoad,
  type LayerPrediction,
  PHASES,
  type PhaseName,
  type PhasePrediction,
  type PipelineResult,
  type Placement,
  phaseOperation,
  predictLayer,
  type RoutingSource,
  type Setup,
  simulatePipeline,
  type TrafficCounter,
} from "../../core/topology/index.ts";
import { formatBytes, formatNumber, printResult, table } from "../output.ts";
import { progressBar } from "../progress.ts";
import {
  badOption,
  type GroupSize,
  openSource,
  perRank,
  readMachine,
  readSetup,
  type SimulateOptions,
  whole,
} from "./options.ts";
import { writePredictedTrace } from "./trace.ts";

/** One (step, layer) as predicted, and chunk by chunk when --events asks for it. */
export interface Predicted {
  readonly prediction: LayerPrediction;
  readonly events: readonly PipelineResult[] | null;
}

export interface Run {
  readonly source: RoutingSource;
  readonly group: GroupSize;
  readonly setup: Setup;
  readonly options: SimulateOptions;
  readonly phases: readonly PhaseName[];
}

/** `simulate` without a question: every (step, layer), before and after balancing when asked. */
export async function runPredict(routing: string | undefined, options: SimulateOptions): Promise<void> {
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
    const numPhysical = options.physicalExperts
      ? whole("physical-experts", options.physicalExperts)
      : source.numExperts;
    const plain = contiguousPlacement(source.numExperts, Math.max(numPhysical, source.numExperts), group);
    const identity = Array.from({ length: source.numLayers }, () => plain);
    if (options.balance === undefined) {
      const predicted = await predictAll(run, identity, "counting");
      if (options.trace) await writePredictedTrace(options.trace, run, identity, predicted);
      printResult(toJson(run, predicted), () => text(run, predicted), options.json);
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
  const counter = await countLayer(source, step, layer, placement, {
    choice: options.replicaChoice,
    keepPairs: options.events,
    progress,
  });
  const shape = { topk: source.topk, numExperts: placement.replicas.length };
  const place = { step, layer, name: source.layerNames[layer] };
  const prediction = predictLayer(counter.traffic, setup, shape, phases, place);
  return { prediction, events: options.events ? phases.map((phase) => runEvents(run, counter, phase)) : null };
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

function toJson(run: Run, predicted: readonly Predicted[]): object {
  const { setup, group, source } = run;
  return {
    machine: setup.machine,
    path: setup.path.name,
    scope: setup.scope,
    parameters: setup.parameters,
    ...group,
    topk: source.topk,
    numExperts: source.numExperts,
    hidden: setup.hidden,
    dtype: setup.rowKind,
    numSms: setup.numSms,
    layers: predicted.map(({ prediction, events }) => ({
      step: prediction.step,
      layer: prediction.name,
      numTokens: prediction.numTokens,
      timeUs: prediction.timeUs,
      uniformUs: prediction.uniformUs,
      slowdown: prediction.slowdown,
      rowImbalance: prediction.rowImbalance,
      slotImbalance: prediction.slotImbalance,
      phases: prediction.phases.map((phase, i) => ({
        ...phase,
        bound: describeBottleneck(phase),
        bandwidth: bandwidths(phase),
        ...(events ? { eventsUs: events[i].timeUs, waitUs: events[i].waitUs } : {}),
      })),
    })),
  };
}

/** Logical and wire GB/s, each over the phase's time. */
function bandwidths(phase: PhasePrediction): Record<string, number> {
  const gbps = (bytes: number) => (phase.timeUs === 0 ? 0 : bytes / phase.timeUs / 1e3);
  const most = (a: Float64Array, b: Float64Array) => a.reduce((top, value, i) => Math.max(top, value, b[i]), 0);
  return {
    logicalNvlinkGBps: gbps(phase.logical.nvlink),
    logicalRdmaGBps: gbps(phase.logical.rdma),
    messagesGBps: gbps(phase.logical.messages),
    wireNvlinkGBps: gbps(most(phase.nvlinkOutBytes, phase.nvlinkInBytes)),
    wireNicGBps: gbps(most(phase.nicOutBytes, phase.nicInBytes)),
  };
}

const MAX_LINES = 100;

function text(run: Run, predicted: readonly Predicted[]): string {
  const lines = [heading(run)];
  if (predicted.length === 1) lines.push("", phaseText(run, predicted[0]));
  else {
    lines.push("", layersTable(run, predicted));
    const slowest = predicted.reduce((a, b) => (b.prediction.timeUs > a.prediction.timeUs ? b : a));
    const { name, step } = slowest.prediction;
    lines.push(
      "",
      `The slowest: layer ${name}${run.source.numSteps > 1 ? `, step ${step}` : ""}`,
      phaseText(run, slowest),
    );
  }
  return lines.join("\n");
}

function heading({ setup, group, source }: Run): string {
  const { machine, path } = setup;
  const nodes = group.numRanks / group.ranksPerNode;
  const sms = setup.numSms > 0 ? `, ${setup.numSms} SMs` : "";
  return [
    `${group.numRanks} ranks on ${machine.title}: ${nodes} NVLink domain${nodes === 1 ? "" : "s"} of ${group.ranksPerNode} at ${machine.nvlinkGBps.value} GB/s${nodes > 1 ? `, NICs of ${machine.nicGBps.value} GB/s` : ""} (nominal, per GPU and direction)`,
    `${path.name}: ${path.title}; top-${source.topk} of ${source.numExperts}, hidden ${setup.hidden}, ${setup.rowKind}${sms}; times contain ${{ main: "the main kernel", kernels: "all kernels", call: "the whole call" }[setup.scope]}`,
  ].join("\n");
}

function phaseText(run: Run, { prediction, events }: Predicted): string {
  const isLowLatency = run.setup.path.mode === "low-latency";
  const rows = prediction.phases.map((phase, i) => {
    const gbps = bandwidths(phase);
    return [
      phase.phase,
      us(phase.timeUs),
      describeBottleneck(phase),
      formatBytes(largest(phase.nvlinkOutBytes)),
      formatBytes(largest(phase.nvlinkInBytes)),
      formatBytes(largest(phase.nicOutBytes)),
      formatBytes(largest(phase.nicInBytes)),
      `${formatNumber(Math.round(gbps.wireNvlinkGBps))} / ${formatNumber(Number(gbps.wireNicGBps.toFixed(1)))}`,
      isLowLatency
        ? formatNumber(Math.round(gbps.messagesGBps))
        : `${formatNumber(Math.round(gbps.logicalNvlinkGBps))} / ${formatNumber(Math.round(gbps.logicalRdmaGBps))}`,
      ...(events ? [us(events[i].timeUs)] : []),
    ];
  });
  const header = ["phase", "us", "bound by", "NVLink out", "in", "NIC out", "in", "wire GB/s", "logical GB/s"];
  const terms = prediction.phases.flatMap((phase) =>
    phase.terms.map((term) => [phase.phase, term.name, us(term.timeUs), term.formula]),
  );
  return [
    table([[...header, ...(events ? ["events us"] : [])], ...rows]),
    `Bytes are the largest of all ranks; GB/s are NVLink / NIC: wire counts what crosses the link, logical ${isLowLatency ? "every message, the own rank's too" : "also the own rank's or node's rows"}.`,
    "",
    table([["phase", "term", "us", "formula"], ...terms]),
    "",
    `received rows per rank, max/mean ${prediction.rowImbalance.toFixed(3)}; slots ${prediction.slotImbalance.toFixed(3)}; ${us(prediction.timeUs)} us against ${us(prediction.uniformUs)} us for uniform routing: ${prediction.slowdown.toFixed(3)}x`,
    ...(run.options.events
      ? ["events: from the first rank's entry to the last rank's end, without start-up, epilogue and call"]
      : []),
  ].join("\n");
}

function layersTable({ source }: Run, predicted: readonly Predicted[]): string {
  const shown = predicted.slice(0, MAX_LINES);
  const rows = shown.map(({ prediction }) => [
    ...(source.numSteps > 1 ? [`${prediction.step}`] : []),
    prediction.name,
    ...prediction.phases.map((phase) => us(phase.timeUs)),
    us(prediction.uniformUs),
    prediction.slowdown.toFixed(3),
    prediction.rowImbalance.toFixed(3),
    describeBottleneck(prediction.phases[0]),
  ]);
  const names = predicted[0].prediction.phases.map((phase) => `${phase.phase} us`);
  const header = ["layer", ...names, "uniform us", "slow-down", "rows max/mean", "dispatch bound by"];
  const more = predicted.length > MAX_LINES ? `\n... and ${predicted.length - MAX_LINES} more (--json has all)` : "";
  return table([[...(source.numSteps > 1 ? ["step"] : []), ...header], ...rows]) + more;
}

function balanceText(run: Run, before: readonly Predicted[], after: readonly Predicted[], numPhysical: number): string {
  const { source, options } = run;
  const rows = before.slice(0, MAX_LINES).map(({ prediction: a }, i) => {
    const b = after[i].prediction;
    const lost = a.timeUs - a.uniformUs;
    return [
      ...(source.numSteps > 1 ? [`${a.step}`] : []),
      a.name,
      us(a.timeUs),
      us(b.timeUs),
      us(a.uniformUs),
      a.slowdown.toFixed(3),
      (b.timeUs / a.uniformUs).toFixed(3),
      lost > 0.005 * a.uniformUs ? `${Math.round((100 * (a.timeUs - b.timeUs)) / lost)} %` : "-",
      a.slotImbalance.toFixed(3),
      b.slotImbalance.toFixed(3),
      a.rowImbalance.toFixed(3),
      b.rowImbalance.toFixed(3),
    ];
  });
  const header = [
    "layer",
    "before us",
    "after us",
    "uniform us",
    "slow-down",
    "after",
    "recovered",
    "slots max/mean",
    "after",
    "rows max/mean",
    "after",
  ];
  const trained = options.trainSteps
    ? `placed from the first ${options.trainSteps} steps`
    : "placed from the same tokens";
  const sum = (list: readonly Predicted[], of: (p: LayerPrediction) => number) =>
    list.reduce((total, { prediction }) => total + of(prediction), 0);
  const total = sum(before, (p) => p.timeUs);
  const balanced = sum(after, (p) => p.timeUs);
  const uniform = sum(before, (p) => p.uniformUs);
  return [
    heading(run),
    `${options.balance} balancing, ${source.numExperts} experts in ${numPhysical} places, ${trained}`,
    "",
    table([[...(source.numSteps > 1 ? ["step"] : []), ...header], ...rows]),
    "",
    `all: ${us(total)} us before, ${us(balanced)} us after, ${us(uniform)} us uniform: ${(total / uniform).toFixed(3)}x -> ${(balanced / uniform).toFixed(3)}x`,
    "recovered = (before - after) / (before - uniform); uniform = the same tokens spread evenly, in the unbalanced placement",
  ].join("\n");
}

function largest(values: Float64Array): number {
  return Math.round(values.reduce((a, b) => Math.max(a, b), 0));
}

export function us(value: number): string {
  return formatNumber(value >= 100 ? Math.round(value) : Number(value.toFixed(1)));
}
