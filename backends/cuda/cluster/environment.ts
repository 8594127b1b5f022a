/**
 * Which process of a launch this one is, from the environment of torchrun, Open MPI, MPICH/PMI or Slurm. All variables that
 * the backend reads about launching are read here, and listed in docs/clusters.md.
 */
import { InvalidArgument } from "../../../core/errors.ts";

export interface ClusterPlace {
  /** Who started the processes: "torchrun", "Open MPI", "PMI", "Slurm" or "by hand". */
  readonly launcher: string;
  readonly numProcesses: number;
  readonly processRank: number;
  /** Where process 0 listens. */
  readonly host: string;
  readonly port: number;
}

export type Environment = Readonly<Record<string, string | undefined>>;

interface Launcher {
  readonly name: string;
  readonly rank: string;
  readonly size: string;
  /** Present only under this launcher; the rank variable itself when absent. */
  readonly mark?: string;
}

/** In order of how specific their variables are: torchrun's RANK is also set by others. */
const LAUNCHERS: readonly Launcher[] = [
  { name: "Open MPI", rank: "OMPI_COMM_WORLD_RANK", size: "OMPI_COMM_WORLD_SIZE" },
  { name: "PMI", rank: "PMI_RANK", size: "PMI_SIZE" },
  { name: "torchrun", rank: "RANK", size: "WORLD_SIZE", mark: "MASTER_ADDR" },
  { name: "Slurm", rank: "SLURM_PROCID", size: "SLURM_NTASKS", mark: "SLURM_STEP_ID" },
];

/** Port when the launcher names a host but no port. */
export const DEFAULT_PORT = 29_517;

/**
 * The place of this process, or null when no launcher's variables are set (or the launch has one process). MPI and Slurm
 * name no meeting point: MASTER_ADDR, or FUSED_A2A_RENDEZVOUS (host:port), must. Throws InvalidArgument naming the variable.
 */
export function placeFromEnvironment(env: Environment): ClusterPlace | null {
  const launcher = LAUNCHERS.find(({ rank, mark }) => env[rank] !== undefined && env[mark ?? rank] !== undefined);
  if (launcher === undefined) return null;
  const numProcesses = wholeVariable(env, launcher.size, 1);
  const processRank = wholeVariable(env, launcher.rank, 0);
  checkRank(launcher.rank, processRank, numProcesses);
  if (numProcesses === 1) return null;
  const rendezvous = env.FUSED_A2A_RENDEZVOUS;
  if (rendezvous !== undefined) {
    return { launcher: launcher.name, numProcesses, processRank, ...parseAddress("FUSED_A2A_RENDEZVOUS", rendezvous) };
  }
  if (env.MASTER_ADDR === undefined || env.MASTER_ADDR === "") {
    throw new InvalidArgument({
      name: "FUSED_A2A_RENDEZVOUS",
      expected: `host:port of process 0 (${launcher.name} names none)`,
      received: "neither it nor MASTER_ADDR",
      remedy: "export FUSED_A2A_RENDEZVOUS=HOST:PORT on every process",
    });
  }
  const port = env.MASTER_PORT === undefined ? DEFAULT_PORT : checkPort("MASTER_PORT", Number(env.MASTER_PORT) + 1);
  return { launcher: launcher.name, numProcesses, processRank, host: env.MASTER_ADDR, port };
}

/** A place given by hand: `--nodes 2 --node-rank 0 --rendezvous HOST:PORT`. */
export function placeByHand(nodes: number, nodeRank: number, rendezvous: string): ClusterPlace {
  checkRank("node-rank", nodeRank, nodes);
  return { launcher: "by hand", numProcesses: nodes, processRank: nodeRank, ...parseAddress("rendezvous", rendezvous) };
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

function checkRank(name: string, rank: number, size: number): void {
  if (rank < size) return;
  throw new InvalidArgument({
    name,
    expected: `0..${size - 1}`,
    received: `${rank}`,
    remedy: "start each process with its own number, counted from 0",
  });
}

function wholeVariable(env: Environment, name: string, least: number): number {
  const value = Number(env[name]);
  if (env[name] !== undefined && env[name] !== "" && Number.isSafeInteger(value) && value >= least) return value;
  throw new InvalidArgument({
    name,
    expected: `a whole number of at least ${least}`,
    received: env[name] ?? "nothing",
    remedy: "start the processes with one launcher, or by hand with --nodes, --node-rank and --rendezvous",
  });
}
