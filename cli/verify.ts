import { Command } from "commander";
import type { Backend } from "../core/backend.ts";
import { InvalidArgument } from "../core/errors.ts";
import { openBundles } from "./bundles.ts";
import { verifyBundles } from "./bundleVerify.ts";
import { clusterOf } from "./cluster.ts";
import { openExecutor } from "./executor.ts";
import { addJobOptions, openJob, ROUTING_ARGUMENT } from "./job.ts";
import { describeJob, describeLayers } from "./layerReport.ts";
import { printResult } from "./output.ts";
import { openReferences, sameReferences } from "./references.ts";
import { traceRuns } from "./run.ts";
import { type VerifyOptions, verifyJob } from "./verifyJob.ts";
import { describeVerified, isVerified, numDiffering } from "./verifyReport.ts";

const HELP = `
Bundles: when an operation of a group over several processes fails, every living process writes
fused-a2a-failure-process{p}.safetensors (run and verify: into --bundle-dir). "verify BUNDLE..." replays the operation on
one machine: sizes, settings and routing come from the bundles, and the handle in each is compared with the references'.
Options that contradict a bundle are refused; ranks that no bundle knows are named and hold no tokens.
"inspect BUNDLE..." only tells what failed.
`;

export function verify(): Command {
  return addJobOptions(
    new Command("verify").argument("[files...]", `${ROUTING_ARGUMENT}; or the bundles of a failed operation`),
  )
    .description("run one backend, replay on another, compare every output bit for bit; exit 1 on any difference")
    .option("--against <names>", "reference backends, comma-separated (default: webgpu where it runs, and the oracle)")
    .option("--trace <file>", "write a trace for the viewer")
    .option("--json", "print the report as JSON")
    .addHelpText("after", HELP)
    .action(verifyCommand);
}

async function verifyCommand(paths: string[], options: VerifyOptions, command: Command): Promise<void> {
  const bundles = await openBundles(paths);
  if (bundles !== null) return verifyBundles(bundles, options, command);
  if (paths.length > 1) {
    throw new InvalidArgument({
      name: "files",
      expected: "one routing file, or bundles of a failed operation",
      received: paths.join(", "),
      remedy: "give one; `convert` joins files of one rank each",
    });
  }
  const job = await openJob(paths[0], options);
  const opened: Backend[] = [];
  try {
    const { backend, passedOver } = await openExecutor(options.backend, {
      workers: options.workers,
      cluster: await clusterOf(options, options.backend, job.notes),
    });
    opened.push(backend);
    const own = await openReferences(options.against, backend.name);
    opened.push(...own.backends);
    const group = await backend.createGroup(job.shape);
    const references = await sameReferences(group, own);
    const verified = await verifyJob(job, group, references.backends, { keepRuns: options.trace !== undefined });
    const trace = options.trace === undefined ? null : await traceRuns(options.trace, job, group, verified.runs);
    await group.close();
    const { results, laws, layers } = verified;
    const { notRun } = references;
    const ok = isVerified(verified);
    const summary = {
      ok,
      backend: backend.name,
      passedOver,
      source: job.source,
      shape: job.shape,
      numDiffering: numDiffering(verified),
    };
    printResult(
      { ...summary, notRun, references: results, laws, layers, trace },
      () =>
        [
          describeJob(job, backend.name),
          describeLayers(layers, job.shape),
          describeVerified(verified, notRun),
          ok ? "verified: every output equal, bit for bit" : "NOT VERIFIED: outputs differ",
        ].join("\n\n"),
      options.json,
    );
    if (!ok) process.exitCode = 1;
  } finally {
    for (const backend of opened) await backend.close();
    await job.close();
  }
}
