/** `verify` of the bundles that a failed operation left: replayed on this machine alone, and the handles in them compared. */
import type { Command } from "commander";
import type { Backend } from "../core/backend.ts";
import { InvalidArgument } from "../core/errors.ts";
import { absentProcesses, type BundleFile, describeBundles, summarizeBundle } from "./bundles.ts";
import { openExecutor } from "./executor.ts";
import { checkHandles, describeHandle, type HandleReport } from "./handleCheck.ts";
import { describeJob, describeLayers } from "./layerReport.ts";
import { printResult } from "./output.ts";
import { openReferences } from "./references.ts";
import { type Replay, refuseContradictions, replaysOf } from "./replay.ts";
import { traceRuns } from "./run.ts";
import { type Verified, type VerifyOptions, verifyJob } from "./verifyJob.ts";
import { describeVerified, isVerified, type NotRun, numDiffering } from "./verifyReport.ts";

interface Replayed {
  readonly replay: Replay;
  readonly verified: Verified;
  readonly handles: readonly HandleReport[];
}

export async function verifyBundles(
  bundles: readonly BundleFile[],
  options: VerifyOptions,
  command: Command,
): Promise<void> {
  refuseContradictions(command, bundles);
  const replays = replaysOf(bundles, options.seed);
  if (options.trace !== undefined && replays.length > 1) {
    throw new InvalidArgument({
      name: "trace",
      expected: "bundles of processes that were to do the same",
      received: `${replays.length} different operations`,
      remedy: "trace the bundle of one process",
    });
  }
  const opened: Backend[] = [];
  try {
    const { backend, passedOver } = await openExecutor(options.backend, { workers: options.workers });
    opened.push(backend);
    const { backends, notRun } = await openReferences(options.against, backend.name);
    opened.push(...backends);
    const done: Replayed[] = [];
    for (const replay of replays) {
      const group = await backend.createGroup(replay.job.shape);
      const handles: HandleReport[] = [];
      const verified = await verifyJob(replay.job, group, backends, {
        keepRuns: options.trace !== undefined,
        replayed: (reference, data) => handles.push(...checkHandles(replay, reference, data)),
      });
      if (options.trace !== undefined) await traceRuns(options.trace, replay.job, group, verified.runs);
      await group.close();
      done.push({ replay, verified, handles });
    }
    const ok = done.every(isReplayed);
    const result = {
      ok,
      backend: backend.name,
      passedOver,
      notRun,
      numDiffering: done.reduce((total, one) => total + numDiffering(one.verified), 0),
      numDifferingInHandles: done.flatMap(({ handles }) => handles).reduce((sum, one) => sum + one.numDiffering, 0),
      bundles: bundles.map(summarizeBundle),
      absentProcesses: absentProcesses(bundles),
      replays: done.map(toJson),
      trace: options.trace ?? null,
    };
    const text = () =>
      [
        describeBundles(bundles),
        ...done.map((one) => describeReplay(one, backend.name, notRun)),
        verdict(done, ok),
      ].join("\n\n");
    printResult(result, text, options.json);
    if (!ok) process.exitCode = 1;
  } finally {
    for (const backend of opened) await backend.close();
  }
}

function isReplayed({ replay, verified, handles }: Replayed): boolean {
  return isVerified(verified) && handles.every((handle) => handle.numDiffering === 0) && replay.conflicts.length === 0;
}

function toJson({ replay, verified, handles }: Replayed) {
  const { job, bundles, unknownRanks, conflicts } = replay;
  const { source, shape, topk, hidden, dtype, style, settings } = job;
  const { results: references, laws, layers } = verified;
  return {
    processes: bundles.map(({ header }) => header.process),
    ...{ source, shape, topk, hidden, dtype, style, settings, unknownRanks, conflicts },
    ...{ references, laws, layers, handles },
  };
}

function describeReplay({ replay, verified, handles }: Replayed, backend: string, notRun: readonly NotRun[]): string {
  const { job, unknownRanks, conflicts } = replay;
  const ranks = unknownRanks.length === 1 ? "rank" : "ranks";
  return [
    describeJob(job, backend),
    ...(unknownRanks.length > 0
      ? [`routing of ${ranks} ${unknownRanks.join(", ")} is in no bundle: no tokens there`]
      : []),
    ...conflicts.map((conflict) => `CONFLICT: ${conflict}`),
    describeLayers(verified.layers, job.shape),
    describeVerified(verified, notRun),
    ...handles.map(describeHandle),
  ].join("\n");
}

function verdict(done: readonly Replayed[], ok: boolean): string {
  if (ok) {
    const compared = done.some(({ handles }) => handles.some((handle) => handle.numElements > 0));
    return `verified: every output equal, bit for bit${compared ? ", and so are the handles in the bundles" : ""}`;
  }
  const what = [
    done.some(({ verified }) => !isVerified(verified)) ? "outputs differ" : "",
    done.some(({ handles }) => handles.some((one) => one.numDiffering > 0)) ? "a handle in a bundle differs" : "",
    done.some(({ replay }) => replay.conflicts.length > 0) ? "processes had different routing" : "",
  ];
  return `NOT VERIFIED: ${what.filter(Boolean).join("; ")}`;
}
