/** What `run` and `verify` say of each layer: rows, bytes and times, as a table with the definition of every column. */
import { type GroupShape, rankRouting } from "../core/layout/routing.ts";
import type { Diagnosis } from "../core/topology/diagnose.ts";
import type { LayerRun, Repeats } from "./execute.ts";
import type { GroupLayer } from "./groupLayer.ts";
import type { Job } from "./job.ts";
import { describeNetwork, type LayerNetwork, NETWORK_FORMULA } from "./network.ts";
import { formatBytes, formatNumber, table } from "./output.ts";
import { combineRowBytes, countTraffic, TRAFFIC_FORMULAS, type Traffic, wireRowBytes } from "./traffic.ts";

export interface LayerReport extends Partial<Repeats> {
  readonly layer: string;
  readonly traffic: Traffic;
  readonly times: LayerRun["times"];
  readonly dispatchGBps: number;
  readonly combineGBps: number;
  /** Rows that did not fit a fixed budget; more than 0 = the result is degraded (design 2.7). */
  readonly numCut: number;
  /** Groups over several processes, when the layer ran several times. */
  readonly network?: LayerNetwork;
  /** Groups over several processes: which rank came late, which rank or link was slow. */
  readonly waits?: Pick<Diagnosis, "findings" | "words">;
}

export const GBPS_FORMULA = "logical bytes / the call's wall time, layout and permute included; 1 GB = 1e9 bytes";

/** `whole`: the layer of the whole group, where this process has but a part. */
export function reportLayer(job: Job, run: LayerRun, whole?: GroupLayer): LayerReport {
  const routings = run.layer.topkIdx.map((ids, rank) => rankRouting(rank, ids, null, job.shape.numExperts));
  const traffic = countTraffic(run.data, routings, wireRowBytes(job));
  return {
    layer: run.layer.name,
    traffic,
    times: run.times,
    dispatchGBps: traffic.logicalBytes / run.times.dispatchMs / 1e6,
    combineGBps: (traffic.numRows * combineRowBytes(job)) / run.times.combineMs / 1e6,
    numCut: whole?.numCut ?? run.data.ranks.reduce((total, rank) => total + rank.overflow.numCut, 0),
    ...run.repeats,
    ...(whole?.network ? { network: whole.network } : {}),
    ...(whole?.waits ? { waits: { findings: whole.waits.findings, words: whole.waits.words } } : {}),
  };
}

export function describeJob(job: Job, backend: string): string {
  const { numRanks, ranksPerNode, numExperts } = job.shape;
  const nodes = numRanks / ranksPerNode;
  const where = `${numRanks} ranks on ${nodes} ${nodes === 1 ? "node" : "nodes"}`;
  return `${job.source}: ${where}, top-${job.topk} of ${numExperts} experts, hidden ${job.hidden} ${job.dtype}, ${job.style}, backend ${backend}`;
}

/** Bytes of the network are a column where the group has several nodes. */
export function describeLayers(reports: readonly LayerReport[], { numRanks, ranksPerNode }: GroupShape): string {
  const isMultiNode = ranksPerNode < numRanks;
  const header = [
    "layer",
    "tokens",
    "slots",
    "rows",
    "logical",
    "wire",
    ...(isMultiNode ? ["network"] : []),
    "load max/mean",
    "dispatch ms",
    "GB/s",
    "expert ms",
    "combine ms",
    "GB/s",
  ];
  const rows = reports.map(({ layer, traffic, times, dispatchGBps, combineGBps }) => [
    layer,
    traffic.numTokens,
    traffic.numSlots,
    traffic.numRows,
    formatBytes(traffic.logicalBytes),
    formatBytes(traffic.wireBytes),
    ...(isMultiNode ? [formatBytes(traffic.networkBytes)] : []),
    Number(traffic.maxOverMeanRank.toFixed(3)),
    Number(times.dispatchMs.toFixed(2)),
    Number(dispatchGBps.toFixed(2)),
    Number(times.expertMs.toFixed(2)),
    Number(times.combineMs.toFixed(2)),
    Number(combineGBps.toFixed(2)),
  ]);
  const cut = reports.reduce((total, one) => total + one.numCut, 0);
  const lines = [
    table([header, ...rows]),
    `logical: ${TRAFFIC_FORMULAS.logicalBytes}`,
    `wire: ${TRAFFIC_FORMULAS.wireBytes}`,
    ...(isMultiNode ? [`network: ${TRAFFIC_FORMULAS.networkBytes}`] : []),
    `load max/mean: ${TRAFFIC_FORMULAS.maxOverMeanRank}`,
    `GB/s: ${GBPS_FORMULA}`,
  ];
  lines.push(...describeRepeats(reports), ...describeNetworks(reports), ...describeSlow(reports));
  if (cut > 0) lines.push(`DEGRADED: ${formatNumber(cut)} slots did not fit the row budget and were left out`);
  return lines.join("\n");
}

/** What the times are when each layer ran several times; the first run of the first layer allocates and connects. */
function describeRepeats([{ layer, numRepeats, firstTimes, waits }]: readonly LayerReport[]): string[] {
  if (numRepeats === undefined || firstTimes === undefined) return [];
  const [dispatchMs, combineMs] = [firstTimes.dispatchMs, firstTimes.combineMs].map((ms) => ms.toFixed(2));
  const first = `in layer ${layer} dispatch ${dispatchMs} ms, combine ${combineMs} ms`;
  const last = waits === undefined ? "a trace is of" : "waits and a trace are of";
  return [`ms: medians of ${numRepeats} runs after a first one (${first}); ${last} the last run`];
}

function describeNetworks(reports: readonly LayerReport[]): string[] {
  const lines = reports.flatMap(({ layer, network }) =>
    network === undefined ? [] : [`network in layer ${layer}: ${describeNetwork(network)}`],
  );
  return lines.length === 0 ? [] : [`network GB/s: ${NETWORK_FORMULA}`, ...lines];
}

/** Who was late or slow, layer by layer; one line when nobody was. */
function describeSlow(reports: readonly LayerReport[]): string[] {
  const measured = reports.filter(({ waits }) => waits !== undefined);
  const slow = measured.filter(({ waits }) => waits && waits.findings.length > 0);
  const told = slow.length > 0 ? slow : measured.slice(0, 1);
  return told.flatMap(({ layer, waits }) => (waits?.words ?? []).map((words) => `waits in layer ${layer}: ${words}`));
}
