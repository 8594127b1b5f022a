/** Options of `run` and `verify` for a group over several processes: by hand, or from the launcher's variables. */
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { type ClusterPlace, placeByHand, placeFromEnvironment } from "../backends/cuda/cluster/index.ts";
import type { ClusterOptions } from "../backends/cuda/options.ts";
import { InvalidArgument } from "../core/errors.ts";

export interface ClusterFlags {
  readonly nodes?: number;
  readonly nodeRank?: number;
  readonly processesPerNode?: number;
  readonly localProcess?: number;
  readonly rendezvous?: string;
  readonly bind?: string;
  readonly secretFile?: string;
  readonly joinTimeoutMs?: number;
  readonly deadlineMs?: number;
  readonly bundleDir?: string;
}

export function addClusterOptions(command: Command, whole: (least: number) => (text: string) => number): Command {
  return command
    .option(
      "--nodes <n>",
      "hosts of the group, one process on each (default: what torchrun, mpirun or Slurm say)",
      whole(1),
    )
    .option("--node-rank <i>", "which of them this is", whole(0))
    .option("--processes-per-node <n>", "processes on each host, one per rank (default: 1)", whole(1))
    .option("--local-process <i>", "which of its host's processes this is (default: 0)", whole(0))
    .option("--rendezvous <host:port>", "where process 0 listens")
    .option("--bind <address>", "process 0: address to listen on (default: the rendezvous host)")
    .option("--secret-file <file>", "file with a secret that every process must know")
    .option("--join-timeout-ms <n>", "longest wait for all processes to come (default: 60000)", whole(1))
    .option("--deadline-ms <n>", "longest wait for another process in an operation (default: 60000)", whole(1))
    .option("--bundle-dir <dir>", "where a failed operation leaves what `verify` can replay (default: here)");
}

/** The place of this process, or null when it is alone. Only the CUDA backends look at the launcher's variables. */
export function placeOf(flags: ClusterFlags, backend: string): ClusterPlace | null {
  const { nodes, nodeRank, rendezvous } = flags;
  const given = [nodes, nodeRank, rendezvous].filter((value) => value !== undefined).length;
  const isShared = flags.processesPerNode !== undefined || flags.localProcess !== undefined;
  if (given === 0 && !isShared) return backend.startsWith("cuda") ? placeFromEnvironment(process.env) : null;
  if (nodes === undefined || nodeRank === undefined || rendezvous === undefined) {
    throw new InvalidArgument({
      name: "nodes",
      expected: "--nodes, --node-rank and --rendezvous together",
      received: `${given} of them`,
      remedy: "give all three on every process",
    });
  }
  if (!backend.startsWith("cuda")) {
    throw new InvalidArgument({
      name: "backend",
      expected: "cuda or cuda-emulated with --nodes",
      received: backend,
      remedy: "name one of them: only they span processes",
    });
  }
  const { processesPerNode = 1, localProcess = 0 } = flags;
  return nodes * processesPerNode === 1
    ? null
    : placeByHand(nodes, nodeRank, rendezvous, processesPerNode, localProcess);
}

/** `notes`: what a bundle of a failed operation should say of the job. */
export async function clusterOf(
  flags: ClusterFlags,
  backend: string,
  notes?: ClusterOptions["bundleNotes"],
): Promise<ClusterOptions | undefined> {
  const place = placeOf(flags, backend);
  if (place === null) return undefined;
  const { bind, secretFile, joinTimeoutMs: timeoutMs, deadlineMs, bundleDir = "." } = flags;
  return {
    place,
    bind,
    secret: await secretOf(secretFile),
    timeoutMs,
    deadlineMs,
    bundleDir,
    bundleNotes: notes,
  };
}

async function secretOf(path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    throw new InvalidArgument({
      name: "secret-file",
      expected: "a readable file",
      received: `${error.code} for ${path}`,
      remedy: "correct the path",
    });
  });
  const secret = text.trim();
  if (secret !== "") return secret;
  throw new InvalidArgument({
    name: "secret-file",
    expected: "a secret",
    received: `an empty ${path}`,
    remedy: "write one into it, the same on every host",
  });
}
