import { Command } from "commander";
import { createBackend } from "../backends/index.ts";
import type { Backend } from "../core/backend.ts";
import { Unavailable } from "../core/errors.ts";
import { conservationLaws, type Law } from "../core/layout/conservation.ts";
import { rankRouting } from "../core/layout/routing.ts";
import { clusterOf } from "./cluster.ts";
import { verifyOwnRanks } from "./clusterVerify.ts";
import { describeReport, type OutputReport } from "./compare.ts";
import { executeLayer, type LayerRun } from "./execute.ts";
import { openExecutor } from "./executor.ts";
import { addJobOptions, type Job, type JobOptions, openJob } from "./job.ts";
import { printResult } from "./output.ts";
import { progressBar } from "./progress.ts";
import { describeJob, describeLayers, type LayerReport, reportLayer, traceRuns } from "./run.ts";
import { merge, Verifier } from "./verifier.ts";

/** Above this the dispatched rows are not kept beside the expert's output: the expert stage is then not compared. */
const KEEP_BYTES = 2 ** 30;

interface VerifyOptions extends JobOptions {
  readonly against?: string;
  readonly trace?: string;
  readonly json?: boolean;
}

interface ReferenceResult {
  readonly reference: string;
  readonly layer: string;
  readonly outputs: readonly OutputReport[];
  readonly notCompared: readonly string[];
  readonly elapsedMs: number;
}

export function verify(): Command {
  return addJobOptions(new Command("verify"))
    .description("run one backend, replay on another, compare every output bit for bit; exit 1 on any difference")
    .option("--against <names>", "reference backends, comma-separated (default: webgpu where it runs, and the oracle)")
    .option("--trace <file>", "write a trace for the viewer")
    .option("--json", "print the report as JSON")
    .action(verifyCommand);
}

async function verifyCommand(path: string | undefined, options: VerifyOptions): Promise<void> {
  const job = await openJob(path, options);
  const opened: Backend[] = [];
  try {
    const { backend, passedOver } = await openExecutor(options.backend, {
      workers: options.workers,
      cluster: await clusterOf(options, options.backend),
    });
    opened.push(backend);
    const references = await openReferences(options.against, backend.name);
    opened.push(...references.backends);
    const group = await backend.createGroup(job.shape);
    const results: ReferenceResult[] = [];
    const laws: (Law & { layer: string })[] = [];
    const reports: LayerReport[] = [];
    const runs: LayerRun[] = [];
    const bar = progressBar("verify");
    const numSteps = job.layers.length * references.backends.length;
    for (const index of job.layers) {
      for (const [i, reference] of references.backends.entries()) {
        const progress = (fraction: number) =>
          bar.update((results.length + fraction) / numSteps, `layer ${index} against ${reference.name}`);
        const replay = await reference.createGroup(job.shape);
        if (group.localRanks.length < group.numRanks) {
          const started = performance.now();
          const { run, reports: outputs } = await verifyOwnRanks(group, replay, job, index, progress);
          const notCompared = [`ranks of other processes: here ${group.localRanks.join(", ")}`];
          const elapsedMs = performance.now() - started;
          results.push({ reference: reference.name, layer: run.layer.name, outputs, notCompared, elapsedMs });
          await replay.close();
          if (i > 0) continue;
          reports.push(reportLayer(job, run));
          if (options.trace !== undefined) runs.push(run);
          continue;
        }
        const verifier = new Verifier(replay, rowBytesTotal(job) <= KEEP_BYTES, progress);
        const one = await executeLayer(group, job, index, withProgress(verifier, progress));
        results.push({
          reference: reference.name,
          layer: one.layer.name,
          outputs: verifier.reports,
          notCompared: verifier.keepDispatched ? [] : ["expert output (over 1 GiB: kept in place to save memory)"],
          elapsedMs: verifier.elapsedMs,
        });
        await replay.close();
        if (i > 0) continue;
        const routings = one.layer.topkIdx.map((ids, rank) => rankRouting(rank, ids, null, job.shape.numExperts));
        laws.push(...conservationLaws(one.data, routings).map((law) => ({ ...law, layer: one.layer.name })));
        reports.push(reportLayer(job, one));
        if (options.trace !== undefined) runs.push(one);
      }
    }
    bar.done();
    if (options.trace !== undefined) await traceRuns(options.trace, job, group, runs);
    await group.close();
    const numDiffering = results.flatMap((one) => one.outputs).reduce((total, one) => total + one.numDiffering, 0);
    const ok = numDiffering === 0 && laws.every((law) => law.ok);
    const summary = { ok, backend: backend.name, passedOver, source: job.source, shape: job.shape, numDiffering };
    printResult(
      {
        ...summary,
        notRun: references.notRun,
        references: results,
        laws,
        layers: reports,
        trace: options.trace ?? null,
      },
      () =>
        [describeJob(job, backend.name), describeLayers(reports), describe(results, laws, references.notRun, ok)].join(
          "\n\n",
        ),
      options.json,
    );
    if (!ok) process.exitCode = 1;
  } finally {
    for (const backend of opened) await backend.close();
    await job.close();
  }
}

/** The named references; by default WebGPU where it can run, and the oracle. A backend is no reference for itself. */
async function openReferences(names: string | undefined, executor: string) {
  const backends: Backend[] = [];
  const notRun: { name: string; why: string }[] = [];
  for (const name of names?.split(",") ?? ["webgpu", "oracle"].filter((one) => one !== executor)) {
    try {
      backends.push(await createBackend(name.trim()));
    } catch (error) {
      // Asked for by name it must run; by default the oracle still verifies, and the report says what was not run.
      if (names !== undefined || !(error instanceof Unavailable)) throw error;
      notRun.push({ name, why: error.message });
    }
  }
  return { backends, notRun };
}

function withProgress(verifier: Verifier, progress: (fraction: number) => void) {
  return {
    keepDispatched: verifier.keepDispatched,
    dispatched: verifier.dispatched.bind(verifier),
    scaled: verifier.scaled.bind(verifier),
    combined: verifier.combined.bind(verifier),
    progress,
  };
}

/** Most bytes that the dispatched rows of a layer can take. */
function rowBytesTotal(job: Job): number {
  return job.maxTokens * Math.min(job.topk, job.style === "fused" ? job.shape.numRanks : job.topk) * job.hidden * 4;
}

function describe(
  results: readonly ReferenceResult[],
  laws: readonly (Law & { layer: string })[],
  notRun: readonly { name: string; why: string }[],
  ok: boolean,
): string {
  const lines: string[] = [];
  for (const reference of new Set(results.map((one) => one.reference))) {
    const mine = results.filter((one) => one.reference === reference);
    const byOutput = new Map<string, OutputReport>();
    for (const report of mine.flatMap((one) => one.outputs)) {
      const before = byOutput.get(report.output);
      byOutput.set(report.output, before === undefined ? report : merge(before, report));
    }
    const seconds = mine.reduce((total, one) => total + one.elapsedMs, 0) / 1e3;
    lines.push(
      `against ${reference}, ${mine.length} ${mine.length === 1 ? "layer" : "layers"}, ${seconds.toFixed(2)} s:`,
    );
    lines.push(...summarize([...byOutput.values()]).map((line) => `  ${line}`));
    lines.push(...new Set(mine.flatMap((one) => one.notCompared.map((what) => `  not compared: ${what}`))));
  }
  for (const { name, why } of notRun) lines.push(`not run: ${name}: ${why}`);
  const broken = laws.filter((law) => !law.ok);
  lines.push(`conservation: ${laws.length - broken.length} of ${laws.length} laws hold`);
  lines.push(...[...new Set(laws.map((law) => law.law))].map((law) => `  ${law}`));
  lines.push(
    ...broken.map(
      (law) => `  BROKEN in layer ${law.layer}: ${law.law}: expected ${law.expected}, received ${law.received}`,
    ),
  );
  lines.push(ok ? "verified: every output equal, bit for bit" : "NOT VERIFIED: outputs differ");
  return lines.join("\n");
}

/** Outputs line by line; the handle's arrays as one line while they are all equal. */
function summarize(reports: readonly OutputReport[]): string[] {
  const isArray = (report: OutputReport) => report.output.startsWith("handle.") && report.numDiffering === 0;
  const arrays = reports.filter(isArray);
  const numElements = arrays.reduce((total, one) => total + one.numElements, 0).toLocaleString("en-US");
  const handle = arrays.length > 0 ? [`handle (${arrays.length} arrays): ${numElements} elements, 0 bits differ`] : [];
  return [...reports.filter((report) => !isArray(report)).map(describeReport), ...handle];
}
