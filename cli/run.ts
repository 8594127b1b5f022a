import { Command } from "commander";
import type { Group } from "../core/backend.ts";
import { elementBytes } from "../core/dtype/dtype.ts";
import { rankRouting } from "../core/layout/routing.ts";
import type { Diagnosis } from "../core/topology/diagnose.ts";
import { writeTrace } from "../core/trace/write.ts";
import { clusterOf } from "./cluster.ts";
import { executeLayer, type LayerRun } from "./execute.ts";
import { openExecutor } from "./executor.ts";
import { createFile } from "./files.ts";
import { type GroupLayer, gatherLayer, tracePhases } from "./groupLayer.ts";
import { addJobOptions, type Job, type JobOptions, openJob, ROUTING_ARGUMENT } from "./job.ts";
import { formatBytes, formatNumber, printResult, table } from "./output.ts";
import { progressBar } from "./progress.ts";
import { countTraffic, TRAFFIC_FORMULAS, type Traffic, wireRowBytes } from "./traffic.ts";
import { version } from "./version.ts";

export interface LayerReport {
  readonly layer: string;
  readonly traffic: Traffic;
  readonly times: LayerRun["times"];
  readonly dispatchGBps: number;
  readonly combineGBps: number;
  /** Rows that did not fit a fixed budget; more than 0 = the result is degraded (design 2.7). */
  readonly numCut: number;
  /** Groups over several processes: which rank came late, which rank or link was slow. */
  readonly waits?: Pick<Diagnosis, "findings" | "words">;
}

export const GBPS_FORMULA = "logical bytes / the call's wall time, layout and permute included; 1 GB = 1e9 bytes";

export function run(): Command {
  return addJobOptions(new Command("run").argument("[routing]", ROUTING_ARGUMENT))
    .description("dispatch -> experts -> combine on a backend: rows, bytes, times, GB/s")
    .option("--trace <file>", "write a trace for the viewer")
    .option("--json", "print the report as JSON")
    .addHelpText("after", `\nThe stand-in expert scales a row by its weight and (1 + e) / E. GB/s = ${GBPS_FORMULA}.`)
    .action(runCommand);
}

async function runCommand(path: string | undefined, options: JobOptions & { trace?: string; json?: boolean }) {
  const job = await openJob(path, options);
  const { backend, passedOver } = await openExecutor(options.backend, {
    workers: options.workers,
    cluster: await clusterOf(options, options.backend, job.notes),
  });
  try {
    const group = await backend.createGroup(job.shape);
    const reports: LayerReport[] = [];
    const runs: TracedRun[] = [];
    const bar = progressBar("run");
    for (const [i, index] of job.layers.entries()) {
      const progress = (fraction: number) => bar.update((i + fraction) / job.layers.length, `layer ${index}`);
      const one = await executeLayer(group, job, index, { progress });
      const whole = await gatherLayer(group, job, one);
      reports.push(reportLayer(job, one, whole));
      if (options.trace !== undefined) runs.push({ ...one, whole });
    }
    bar.done();
    const trace = options.trace === undefined ? null : await traceRuns(options.trace, job, group, runs);
    const result = {
      backend: backend.name,
      passedOver,
      source: job.source,
      shape: job.shape,
      topk: job.topk,
      hidden: job.hidden,
      dtype: job.dtype,
      style: job.style,
      settings: job.settings,
      degraded: reports.some((one) => one.numCut > 0),
      formulas: { ...TRAFFIC_FORMULAS, GBps: GBPS_FORMULA },
      layers: reports,
      trace,
    };
    printResult(result, () => [describeJob(job, backend.name), describeLayers(reports)].join("\n"), options.json);
    await group.close();
  } finally {
    await backend.close();
    await job.close();
  }
}

/** `whole`: the layer of the whole group, where this process has but a part. */
export function reportLayer(job: Job, run: LayerRun, whole?: GroupLayer): LayerReport {
  const routings = run.layer.topkIdx.map((ids, rank) => rankRouting(rank, ids, null, job.shape.numExperts));
  const traffic = countTraffic(run.data, routings, wireRowBytes(job));
  const combineRow = job.hidden * (job.dtype === "fp8e4m3" ? 2 : elementBytes(job.dtype));
  return {
    layer: run.layer.name,
    traffic,
    times: run.times,
    dispatchGBps: traffic.logicalBytes / run.times.dispatchMs / 1e6,
    combineGBps: (traffic.numRows * combineRow) / run.times.combineMs / 1e6,
    numCut: whole?.numCut ?? run.data.ranks.reduce((total, rank) => total + rank.overflow.numCut, 0),
    ...(whole?.waits ? { waits: { findings: whole.waits.findings, words: whole.waits.words } } : {}),
  };
}

export function describeJob(job: Job, backend: string): string {
  const { numRanks, ranksPerNode, numExperts } = job.shape;
  const nodes = numRanks / ranksPerNode;
  const where = `${numRanks} ranks on ${nodes} ${nodes === 1 ? "node" : "nodes"}`;
  return `${job.source}: ${where}, top-${job.topk} of ${numExperts} experts, hidden ${job.hidden} ${job.dtype}, ${job.style}, backend ${backend}`;
}

export function describeLayers(reports: readonly LayerReport[]): string {
  const header = [
    "layer",
    "tokens",
    "slots",
    "rows",
    "logical",
    "wire",
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
    `load max/mean: ${TRAFFIC_FORMULAS.maxOverMeanRank}`,
    `GB/s: ${GBPS_FORMULA}`,
  ];
  lines.push(...describeSlow(reports));
  if (cut > 0) lines.push(`DEGRADED: ${formatNumber(cut)} slots did not fit the row budget and were left out`);
  return lines.join("\n");
}

/** Who was late or slow, layer by layer; one line when nobody was. */
function describeSlow(reports: readonly LayerReport[]): string[] {
  const measured = reports.filter(({ waits }) => waits !== undefined);
  const slow = measured.filter(({ waits }) => waits && waits.findings.length > 0);
  const told = slow.length > 0 ? slow : measured.slice(0, 1);
  return told.flatMap(({ layer, waits }) => (waits?.words ?? []).map((words) => `waits in layer ${layer}: ${words}`));
}

/** A layer as it goes into a trace. */
export type TracedRun = LayerRun & { readonly whole: GroupLayer };

/**
 * Writes the runs as a trace: one step, one layer per run. Of several processes the first writes it, for all ranks; returns
 * where it is.
 */
export async function traceRuns(path: string, job: Job, group: Group, runs: readonly TracedRun[]): Promise<string> {
  if (group.localRanks[0] !== 0) return `${path} of process 0`;
  const header = {
    producer: `fused-a2a ${version()} run --backend ${group.backend}`,
    clock: "measured" as const,
    numSteps: 1,
    numLayers: runs.length,
    numRanks: job.shape.numRanks,
    ranksPerNode: job.shape.ranksPerNode,
    numExperts: job.shape.numExperts,
    topk: job.topk,
    hidden: job.hidden,
    dtype: job.dtype,
    rowBytes: wireRowBytes(job),
    style: job.style,
    settings: job.settings,
  };
  await writeTrace(await createFile(path), header, (_step, layer) => {
    const { whole } = runs[layer];
    const phases = tracePhases(whole.phases);
    const origin = Math.min(...phases.map((phase) => phase.startUs));
    return {
      topkIdx: runs[layer].layer.topkIdx.map((ids) => ids.data),
      topkWeights: runs[layer].layer.topkWeights.map((weights) => weights.data),
      phases: phases.map((phase) => ({ ...phase, startUs: phase.startUs - origin })),
      waitUs: whole.waits?.waitUs ?? null,
    };
  });
  return path;
}
