/** What a prediction says: as JSON, and as text for people. */
import { fusedBufferBytes, hybridEpBufferBytes } from "../../core/functions/bufferSize.ts";
import {
  type Degradation,
  describeBottleneck,
  type LayerPrediction,
  type PhasePrediction,
  rowBytes,
} from "../../core/topology/index.ts";
import { formatBytes, formatNumber, table } from "../output.ts";
import { numPhysicalExperts } from "./options.ts";
import type { Predicted, Run } from "./run.ts";

export function toJson(run: Run, predicted: readonly Predicted[]): object {
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
    memory: memory(run, predicted),
    layers: predicted.map(({ prediction, events, degradation }) => ({
      ...(degradation ? { degraded: degradation } : {}),
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

/** Per rank: the buffers that this project allocates for the shape, and the largest receive of the routing. */
function memory({ setup, group, source, options }: Run, predicted: readonly Predicted[]) {
  const hiddenBytes = 2 * setup.hidden;
  const most = (of: (prediction: LayerPrediction) => Float64Array) =>
    predicted.reduce((top, { prediction }) => Math.max(top, largest(of(prediction))), 0);
  const rows = most((prediction) => prediction.traffic.recvRows);
  const seqLen = most((prediction) => prediction.traffic.numTokens);
  const numLocalExperts = numPhysicalExperts(options, source.numExperts) / group.numRanks;
  const sizes = {
    ...group,
    hiddenDim: setup.hidden,
    seqLen,
    numLocalExperts,
    fp8Dispatch: setup.rowKind === "fp8",
  };
  return {
    fusedBuffer: fusedBufferBytes(group, hiddenBytes),
    hybridEpBuffer: hybridEpBufferBytes(sizes),
    recvBytes: rows * rowBytes("dispatch", setup.hidden, setup.rowKind, setup.path),
    worstRecvBytes: seqLen * group.numRanks * rowBytes("dispatch", setup.hidden, setup.rowKind, setup.path),
  };
}

function memoryText(run: Run, prediction: LayerPrediction): string {
  const { fusedBuffer, hybridEpBuffer, recvBytes, worstRecvBytes } = memory(run, [
    { prediction, events: null, degradation: null },
  ]);
  const sum = (bytes: { numNvlBytes: number; numRdmaBytes: number }) =>
    formatBytes(bytes.numNvlBytes + bytes.numRdmaBytes);
  return `memory per rank: communication buffer ${sum(fusedBuffer)} (fused) or ${sum(hybridEpBuffer)} (hybrid-ep); received rows ${formatBytes(recvBytes)}, ${formatBytes(worstRecvBytes)} if every token came here; fewer tokens per rank lower all but the first (\`check\` has the formulas)`;
}

function degradedText(lost: Degradation): string {
  const experts =
    lost.lostExperts.length === 0
      ? "none"
      : `${lost.lostExperts.length} (${lost.lostExperts.slice(0, 8).join(", ")}${lost.lostExperts.length > 8 ? ", ..." : ""})`;
  return [
    `degraded: ranks ${lost.deadRanks.join(", ")} are dead, with ${formatNumber(lost.numTokensGone)} tokens of their own`,
    `  ${formatNumber(lost.numTokensDegraded)} tokens of the others miss contributions (${formatNumber(lost.numSlotsLost)} slots), ${formatNumber(lost.numTokensEmpty)} of them all; ${formatNumber(lost.numSlotsMoved)} slots went to other replicas`,
    `  experts without a living replica: ${experts}`,
  ].join("\n");
}

const MAX_LINES = 100;

export function predictionText(run: Run, predicted: readonly Predicted[]): string {
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

function phaseText(run: Run, { prediction, events, degradation }: Predicted): string {
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
    memoryText(run, prediction),
    ...(degradation ? [degradedText(degradation)] : []),
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

export function balanceText(
  run: Run,
  before: readonly Predicted[],
  after: readonly Predicted[],
  numPhysical: number,
): string {
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
