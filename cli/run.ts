import { Command } from "commander";
import type { Group } from "../core/backend.ts";
import { writeTrace } from "../core/trace/write.ts";
import { clusterOf } from "./cluster.ts";
import type { LayerRun } from "./execute.ts";
import { openExecutor } from "./executor.ts";
import { createFile } from "./files.ts";
import { type GroupLayer, gatherLayer, tracePhases } from "./groupLayer.ts";
import { addJobOptions, type Job, type JobOptions, openJob, ROUTING_ARGUMENT, whole } from "./job.ts";
import { describeJob, describeLayers, GBPS_FORMULA, type LayerReport, reportLayer } from "./layerReport.ts";
import { NETWORK_FORMULA } from "./network.ts";
import { printResult } from "./output.ts";
import { progressBar } from "./progress.ts";
import { repeatLayer } from "./repeats.ts";
import { TRAFFIC_FORMULAS, wireRowBytes } from "./traffic.ts";
import { version } from "./version.ts";

export function run(): Command {
  return addJobOptions(new Command("run").argument("[routing]", ROUTING_ARGUMENT))
    .description("dispatch -> experts -> combine on a backend: rows, bytes, times, GB/s")
    .option("--repeats <n>", "runs of each layer, after one more that is not counted; the medians count", whole(1), 1)
    .option("--trace <file>", "write a trace for the viewer")
    .option("--json", "print the report as JSON")
    .addHelpText(
      "after",
      `\nThe stand-in expert scales a row by its weight and (1 + e) / E. GB/s = ${GBPS_FORMULA}.
With --repeats a group over several processes also prints the GB/s of its network: ${NETWORK_FORMULA}.`,
    )
    .action(runCommand);
}

interface RunOptions extends JobOptions {
  readonly repeats: number;
  readonly trace?: string;
  readonly json?: boolean;
}

async function runCommand(path: string | undefined, options: RunOptions) {
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
      const run = await repeatLayer(group, job, index, options.repeats, progress);
      const gathered = await gatherLayer(group, job, run);
      reports.push(reportLayer(job, run, gathered));
      if (options.trace !== undefined) runs.push({ ...run, whole: gathered });
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
      formulas: { ...TRAFFIC_FORMULAS, GBps: GBPS_FORMULA, networkGBps: NETWORK_FORMULA },
      layers: reports,
      trace,
    };
    const text = () => [describeJob(job, backend.name), describeLayers(reports, job.shape)].join("\n");
    printResult(result, text, options.json);
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
