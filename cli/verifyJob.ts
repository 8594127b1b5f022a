/** Runs the layers of a job on the executor and compares every output with every reference. */
import type { Backend, Group } from "../core/backend.ts";
import type { HandleData } from "../core/handle/handle.ts";
import type { Law } from "../core/layout/conservation.ts";
import { verifyOwnRanks } from "./clusterVerify.ts";
import type { OutputReport } from "./compare.ts";
import { executeLayer, type LayerRun } from "./execute.ts";
import { type GroupLayer, gatherLayer } from "./groupLayer.ts";
import type { Job, JobOptions } from "./job.ts";
import { type LayerReport, reportLayer } from "./layerReport.ts";
import { progressBar } from "./progress.ts";
import type { TracedRun } from "./run.ts";
import { Verifier } from "./verifier.ts";

/** Above this the dispatched rows are not kept beside the expert's output: the expert stage is then not compared. */
const KEEP_BYTES = 2 ** 30;

export interface ReferenceResult {
  readonly reference: string;
  readonly layer: string;
  readonly outputs: readonly OutputReport[];
  readonly notCompared: readonly string[];
  readonly elapsedMs: number;
}

export interface VerifyOptions extends JobOptions {
  readonly against?: string;
  readonly trace?: string;
  readonly json?: boolean;
}

export interface Verified {
  readonly results: readonly ReferenceResult[];
  readonly laws: readonly (Law & { readonly layer: string })[];
  readonly layers: readonly LayerReport[];
  /** For a trace. */
  readonly runs: readonly TracedRun[];
}

export interface VerifyJobOptions {
  /** Keep what a trace needs of every layer. */
  readonly keepRuns: boolean;
  /** Gets the handle that each reference made. */
  readonly replayed?: (reference: string, handle: HandleData) => void;
}

export async function verifyJob(
  job: Job,
  group: Group,
  references: readonly Backend[],
  { keepRuns, replayed }: VerifyJobOptions,
): Promise<Verified> {
  const results: ReferenceResult[] = [];
  const laws: (Law & { layer: string })[] = [];
  const layers: LayerReport[] = [];
  const runs: TracedRun[] = [];
  const bar = progressBar("verify");
  const numSteps = job.layers.length * references.length;
  for (const index of job.layers) {
    for (const [i, reference] of references.entries()) {
      const progress = (fraction: number) =>
        bar.update((results.length + fraction) / numSteps, `layer ${index} against ${reference.name}`);
      const replay = await reference.createGroup(job.shape);
      const one =
        group.localRanks.length < group.numRanks
          ? await verifyPart(group, replay, job, index, progress)
          : await verifyWhole(group, replay, job, index, progress, (handle) => replayed?.(reference.name, handle));
      await replay.close();
      const { run } = one;
      results.push({ reference: reference.name, layer: run.layer.name, ...one.result });
      if (i > 0) continue;
      laws.push(...one.whole.laws.map((law) => ({ ...law, layer: run.layer.name })));
      layers.push(reportLayer(job, run, one.whole));
      if (keepRuns) runs.push({ ...run, whole: one.whole });
    }
  }
  bar.done();
  return { results, laws, layers, runs };
}

interface OneLayer {
  readonly run: LayerRun;
  readonly result: Omit<ReferenceResult, "reference" | "layer">;
  readonly whole: GroupLayer;
}

/** This process's ranks of a group over several. */
async function verifyPart(
  group: Group,
  replay: Group,
  job: Job,
  index: number,
  progress: (fraction: number) => void,
): Promise<OneLayer> {
  const started = performance.now();
  const { run, reports } = await verifyOwnRanks(group, replay, job, index, progress);
  const notCompared = [`ranks of other processes: here ${group.localRanks.join(", ")}`];
  const result = { outputs: reports, notCompared, elapsedMs: performance.now() - started };
  return { run, whole: await gatherLayer(group, job, run), result };
}

async function verifyWhole(
  group: Group,
  replay: Group,
  job: Job,
  index: number,
  progress: (fraction: number) => void,
  replayed: (handle: HandleData) => void,
): Promise<OneLayer> {
  const verifier = new Verifier(replay, rowBytesTotal(job) <= KEEP_BYTES, progress);
  const run = await executeLayer(group, job, index, withProgress(verifier, progress));
  if (verifier.expected !== null) replayed(verifier.expected);
  return {
    run,
    whole: await gatherLayer(group, job, run),
    result: {
      outputs: verifier.reports,
      notCompared: verifier.keepDispatched ? [] : ["expert output (over 1 GiB: kept in place to save memory)"],
      elapsedMs: verifier.elapsedMs,
    },
  };
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
