import { Command } from "commander";
import type { Group } from "../core/backend.ts";
import { writeTrace } from "../core/trace/write.ts";
import { clusterOf } from "./cluster.ts";
import { executeLayer, type LayerRun } from "./execute.ts";
import { openExecutor } from "./executor.ts";
import { createFile } from "./files.ts";
import { type GroupLayer, gatherLayer, tracePhases } from "./groupLayer.ts";
import { addJobOptions, type Job, type JobOptions, openJob, ROUTING_ARGUMENT } from "./job.ts";
import { describeJob, describeLayers, GBPS_FORMULA, type LayerReport, reportLayer } from "./layerReport.ts";
import { printResult } from "./output.ts";
import { progressBar } from "./progress.ts";
import { TRAFFIC_FORMULAS, wireRowBytes } from "./traffic.ts";
import { version } from "./version.ts";

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
    printResult(
      result,
      () => [describeJob(job, backend.name), describeLayers(reports, job.shape)].join("\n"),
      options.json,
    );
    await group.close();
  } finally {
    await backend.close();
    await job.close();
  }
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
