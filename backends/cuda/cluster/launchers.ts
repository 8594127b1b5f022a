/** The variables of each launcher, and how they are read. */
import { InvalidArgument } from "../../../core/errors.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

export interface Launcher {
  readonly name: string;
  readonly rank: string;
  readonly size: string;
  /** Present only under this launcher; the rank variable itself when absent. */
  readonly mark?: string;
  readonly localRank: string;
  /** Processes on this host: the first that is set. */
  readonly localSizes: readonly string[];
  readonly sizePerNode: (env: Environment, name: string) => number;
  /** The hosts of the launch; process 0 is on the first. */
  readonly hosts?: string;
}

const plain = (env: Environment, name: string) => wholeVariable(env, name, 1);

/** In order of how specific their variables are: torchrun's RANK is also set by others. */
const LAUNCHERS: readonly Launcher[] = [
  {
    name: "Open MPI",
    rank: "OMPI_COMM_WORLD_RANK",
    size: "OMPI_COMM_WORLD_SIZE",
    localRank: "OMPI_COMM_WORLD_LOCAL_RANK",
    localSizes: ["OMPI_COMM_WORLD_LOCAL_SIZE"],
    sizePerNode: plain,
  },
  {
    name: "PMI",
    rank: "PMI_RANK",
    size: "PMI_SIZE",
    localRank: "MPI_LOCALRANKID",
    localSizes: ["MPI_LOCALNRANKS"],
    sizePerNode: plain,
  },
  {
    name: "torchrun",
    rank: "RANK",
    size: "WORLD_SIZE",
    mark: "MASTER_ADDR",
    localRank: "LOCAL_RANK",
    localSizes: ["LOCAL_WORLD_SIZE"],
    sizePerNode: plain,
  },
  {
    name: "Slurm",
    rank: "SLURM_PROCID",
    size: "SLURM_NTASKS",
    mark: "SLURM_STEP_ID",
    localRank: "SLURM_LOCALID",
    localSizes: ["SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE"],
    sizePerNode: tasksPerNode,
    hosts: "SLURM_STEP_NODELIST",
  },
];

export function findLauncher(env: Environment): Launcher | null {
  return LAUNCHERS.find(({ rank, mark }) => env[rank] !== undefined && env[mark ?? rank] !== undefined) ?? null;
}

/** Slurm's "4(x2)" or "4": tasks of every host. Throws InvalidArgument when hosts differ. */
function tasksPerNode(env: Environment, name: string): number {
  const text = env[name] ?? "";
  const counts = new Set(text.split(",").map((one) => one.trim().replace(/\(x\d+\)$/, "")));
  const [first] = counts;
  if (counts.size === 1 && /^[1-9]\d*$/.test(first)) return Number(first);
  throw new InvalidArgument({
    name,
    expected: "the same number of tasks on every host",
    received: text === "" ? "an empty string" : text,
    remedy: "start the step with --ntasks-per-node",
  });
}

/** The first of Slurm's "rack[1-2]n[07-09,12],login": rack1n07. */
export function firstHost(hosts: string): string {
  const [first] = /^(\[[^\]]*\]|[^,[])*/.exec(hosts) ?? [""];
  return first.replace(/\[([^\],-]*)[^\]]*\]/g, "$1");
}

/** Throws InvalidArgument unless the variable is a whole number of at least `least`. */
export function wholeVariable(env: Environment, name: string, least: number): number {
  const value = Number(env[name]);
  if (env[name] !== undefined && env[name] !== "" && Number.isSafeInteger(value) && value >= least) return value;
  throw new InvalidArgument({
    name,
    expected: `a whole number of at least ${least}`,
    received: env[name] ?? "nothing",
    remedy: "start the processes with one launcher, or by hand with --nodes, --node-rank and --rendezvous",
  });
}
