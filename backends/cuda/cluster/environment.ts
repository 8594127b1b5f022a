/**
 * Which process of a launch this one is: by hand, or from the environment of torchrun, Open MPI, MPICH/PMI or Slurm. All
 * variables that the backend reads about launching are named here, and listed in docs/clusters.md.
 */
import { InvalidArgument } from "../../../core/errors.ts";
import { type Environment, findLauncher, firstHost, type Launcher, wholeVariable } from "./launchers.ts";

export interface ClusterPlace {
  /** Who started the processes: "torchrun", "Open MPI", "PMI", "Slurm" or "by hand". */
  readonly launcher: string;
  readonly numProcesses: number;
  readonly processRank: number;
  /** Processes on each host; default 1. With more, each drives one rank. Numbered host by host. */
  readonly processesPerNode?: number;
  /** Which of its host's processes this is; default 0. */
  readonly localProcess?: number;
  /** Where process 0 listens. */
  readonly host: string;
  readonly port: number;
}

/** Port when the launcher names a host but no port. */
export const DEFAULT_PORT = 29_517;

/**
 * The place of this process, or null when no launcher's variables are set (or the launch has one process). Slurm names its
 * hosts; MPI names no meeting point: MASTER_ADDR, or FUSED_A2A_RENDEZVOUS (host:port), must. Throws InvalidArgument naming
 * the variable.
 */
export function placeFromEnvironment(env: Environment): ClusterPlace | null {
  const launcher = findLauncher(env);
  if (launcher === null) return null;
  const numProcesses = wholeVariable(env, launcher.size, 1);
  const processRank = wholeVariable(env, launcher.rank, 0);
  checkRank(launcher.rank, processRank, numProcesses);
  if (numProcesses === 1) return null;
  const place = { launcher: launcher.name, numProcesses, processRank, ...hostOf(env, launcher) };
  checkHost(place, launcher.localRank, launcher.localSizes[0]);
  return { ...place, ...meetingPoint(env, launcher) };
}

/** How many processes share this one's host, and which of them it is; one when the launcher does not say. */
function hostOf(env: Environment, launcher: Launcher): { processesPerNode: number; localProcess: number } {
  const size = launcher.localSizes.find((name) => env[name] !== undefined);
  if (size === undefined || env[launcher.localRank] === undefined) return { processesPerNode: 1, localProcess: 0 };
  const processesPerNode = launcher.sizePerNode(env, size);
  const localProcess = wholeVariable(env, launcher.localRank, 0);
  checkRank(launcher.localRank, localProcess, processesPerNode);
  return { processesPerNode, localProcess };
}

function meetingPoint(env: Environment, launcher: Launcher): { host: string; port: number } {
  const rendezvous = env.FUSED_A2A_RENDEZVOUS;
  if (rendezvous !== undefined) return parseAddress("FUSED_A2A_RENDEZVOUS", rendezvous);
  const host = env.MASTER_ADDR || firstHost(env[launcher.hosts ?? ""] ?? "");
  if (host === "") {
    throw new InvalidArgument({
      name: "FUSED_A2A_RENDEZVOUS",
      expected: `host:port of process 0 (${launcher.name} names none)`,
      received: "neither it nor MASTER_ADDR",
      remedy: "export FUSED_A2A_RENDEZVOUS=HOST:PORT on every process",
    });
  }
  const port = env.MASTER_PORT === undefined ? DEFAULT_PORT : checkPort("MASTER_PORT", Number(env.MASTER_PORT) + 1);
  return { host, port };
}

/**
 * A place given by hand: `--nodes 2 --node-rank 0 --rendezvous HOST:PORT`, and with several processes on each host (one
 * per rank) `--processes-per-node 4 --local-process 1`. Throws InvalidArgument
 * naming the flag.
 */
export function placeByHand(
  nodes: number,
  nodeRank: number,
  rendezvous: string,
  processesPerNode = 1,
  localProcess = 0,
): ClusterPlace {
  checkCount("nodes", nodes);
  checkCount("processes-per-node", processesPerNode);
  checkRank("node-rank", nodeRank, nodes);
  checkRank("local-process", localProcess, processesPerNode);
  return {
    launcher: "by hand",
    numProcesses: nodes * processesPerNode,
    processRank: nodeRank * processesPerNode + localProcess,
    processesPerNode,
    localProcess,
    ...parseAddress("rendezvous", rendezvous),
  };
}

/** "host:port", "[::1]:port" or "host". */
export function parseAddress(name: string, address: string): { host: string; port: number } {
  const found = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(address.trim());
  if (found === null) {
    throw new InvalidArgument({
      name,
      expected: "HOST:PORT",
      received: address === "" ? "an empty string" : address,
      remedy: "name the host of process 0 and a free port on it",
    });
  }
  const port = found[3] === undefined ? DEFAULT_PORT : Number(found[3]);
  return { host: found[1] ?? found[2], port: checkPort(name, port) };
}

function checkPort(name: string, port: number): number {
  if (Number.isInteger(port) && port >= 1 && port <= 65_535) return port;
  throw new InvalidArgument({ name, expected: "a port, 1..65535", received: `${port}`, remedy: "choose a free port" });
}

function checkCount(name: string, count: number): void {
  if (Number.isSafeInteger(count) && count >= 1) return;
  throw new InvalidArgument({ name, expected: "at least 1", received: `${count}`, remedy: "pass how many there are" });
}

function checkRank(name: string, rank: number, size: number): void {
  if (Number.isSafeInteger(rank) && rank >= 0 && rank < size) return;
  throw new InvalidArgument({
    name,
    expected: `0..${size - 1}`,
    received: `${rank}`,
    remedy: "start each process with its own number, counted from 0",
  });
}

/** A node is a block of processes: hosts hold equally many, numbered host by host. */
function checkHost(place: Omit<ClusterPlace, "host" | "port">, localRank: string, localSize: string): void {
  const { numProcesses, processRank, processesPerNode = 1, localProcess = 0 } = place;
  if (numProcesses % processesPerNode !== 0) {
    throw new InvalidArgument({
      name: localSize,
      expected: `a divisor of the ${numProcesses} processes`,
      received: `${processesPerNode}`,
      remedy: "start equally many processes on every host",
    });
  }
  if (processRank % processesPerNode !== localProcess) {
    throw new InvalidArgument({
      name: localRank,
      expected: `${processRank % processesPerNode} (process ${processRank}, ${processesPerNode} per host)`,
      received: `${localProcess}`,
      remedy: "number the processes host by host (mpirun --map-by slot, srun --distribution block)",
    });
  }
}
