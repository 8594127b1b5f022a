import { describe, expect, test } from "vitest";
import {
  type ClusterPlace,
  DEFAULT_PORT,
  parseAddress,
  placeByHand,
  placeFromEnvironment,
  ranksOfProcess,
  ranksPerNodeOf,
} from "../../backends/cuda/cluster/index.ts";

describe("the place of a process, from its launcher's variables", () => {
  test("nothing set: one process", () => {
    expect(placeFromEnvironment({})).toBeNull();
  });

  test("torchrun: its meeting port is taken, so the next one is ours", () => {
    const env = { RANK: "3", WORLD_SIZE: "8", LOCAL_RANK: "3", MASTER_ADDR: "node-a", MASTER_PORT: "29500" };
    const which = { numProcesses: 8, processRank: 3, processesPerNode: 1, localProcess: 0 };
    const place = { launcher: "torchrun", ...which, host: "node-a", port: 29501 };
    expect(placeFromEnvironment(env)).toEqual(place);
  });

  test("mpirun names no meeting point: FUSED_A2A_RENDEZVOUS does", () => {
    const env = { OMPI_COMM_WORLD_RANK: "1", OMPI_COMM_WORLD_SIZE: "2", FUSED_A2A_RENDEZVOUS: "10.0.0.1:4000" };
    const which = { numProcesses: 2, processRank: 1, processesPerNode: 1, localProcess: 0 };
    const place = { launcher: "Open MPI", ...which, host: "10.0.0.1", port: 4000 };
    expect(placeFromEnvironment(env)).toEqual(place);
  });

  test("Slurm with MASTER_ADDR", () => {
    const env = { SLURM_PROCID: "0", SLURM_NTASKS: "4", SLURM_STEP_ID: "0", MASTER_ADDR: "n1" };
    expect(placeFromEnvironment(env)).toMatchObject({
      launcher: "Slurm",
      numProcesses: 4,
      processRank: 0,
      port: DEFAULT_PORT,
    });
  });

  test.each([
    ["n1", "n1"],
    ["n1,n2", "n1"],
    ["n[1-2]", "n1"],
    ["gpu-[007-009,012],login", "gpu-007"],
    ["rack[3,5]n[01-04].site,other[1-2]", "rack3n01.site"],
  ])("Slurm names its hosts: process 0 is on the first of %s", (hosts, first) => {
    const env = { SLURM_PROCID: "1", SLURM_NTASKS: "2", SLURM_STEP_ID: "0", SLURM_STEP_NODELIST: hosts };
    expect(placeFromEnvironment(env)).toMatchObject({ host: first, port: DEFAULT_PORT });
    expect(placeFromEnvironment({ ...env, MASTER_ADDR: "other" })).toMatchObject({ host: "other" });
  });

  test("a Slurm allocation without a step (salloc) is no launch", () => {
    expect(placeFromEnvironment({ SLURM_PROCID: "0", SLURM_NTASKS: "4" })).toBeNull();
  });

  test.each([
    ["torchrun", { RANK: "5", WORLD_SIZE: "8", LOCAL_RANK: "1", LOCAL_WORLD_SIZE: "4" }],
    [
      "Open MPI",
      {
        OMPI_COMM_WORLD_RANK: "5",
        OMPI_COMM_WORLD_SIZE: "8",
        OMPI_COMM_WORLD_LOCAL_RANK: "1",
        OMPI_COMM_WORLD_LOCAL_SIZE: "4",
      },
    ],
    ["PMI", { PMI_RANK: "5", PMI_SIZE: "8", MPI_LOCALRANKID: "1", MPI_LOCALNRANKS: "4" }],
    [
      "Slurm",
      {
        SLURM_PROCID: "5",
        SLURM_NTASKS: "8",
        SLURM_STEP_ID: "0",
        SLURM_LOCALID: "1",
        SLURM_STEP_TASKS_PER_NODE: "4(x2)",
      },
    ],
    [
      "Slurm",
      { SLURM_PROCID: "5", SLURM_NTASKS: "8", SLURM_STEP_ID: "0", SLURM_LOCALID: "1", SLURM_NTASKS_PER_NODE: "4" },
    ],
  ])("%s says how many processes share the host: %o", (launcher, env) => {
    const place = placeFromEnvironment({ ...env, MASTER_ADDR: "a" });
    expect(place).toMatchObject({ launcher, numProcesses: 8, processRank: 5, processesPerNode: 4, localProcess: 1 });
    expect(ranksOfProcess(place as ClusterPlace, 8)).toEqual([5]);
    expect(ranksPerNodeOf(place as ClusterPlace, 8)).toBe(4);
  });

  const local = (rank: string, localRank: string, localSize: string, size = "8") => ({
    RANK: rank,
    WORLD_SIZE: size,
    MASTER_ADDR: "a",
    LOCAL_RANK: localRank,
    LOCAL_WORLD_SIZE: localSize,
  });
  const slurm = { SLURM_PROCID: "0", SLURM_NTASKS: "7", SLURM_STEP_ID: "0", SLURM_LOCALID: "0", MASTER_ADDR: "a" };

  test.each([
    [local("1", "0", "4"), /LOCAL_RANK: expected 1 \(process 1, 4 per host\), received 0; .*host by host/],
    [local("1", "4", "4"), /LOCAL_RANK: expected 0\.\.3, received 4/],
    [local("1", "1", "3"), /LOCAL_WORLD_SIZE: expected a divisor of the 8 processes, received 3/],
    [
      { ...slurm, SLURM_STEP_TASKS_PER_NODE: "4,3" },
      /SLURM_STEP_TASKS_PER_NODE: expected the same number of tasks on every host, received 4,3/,
    ],
    [
      { OMPI_COMM_WORLD_RANK: "1", OMPI_COMM_WORLD_SIZE: "2" },
      /FUSED_A2A_RENDEZVOUS: expected host:port.*Open MPI names none/,
    ],
    [{ PMI_RANK: "2", PMI_SIZE: "2", MASTER_ADDR: "a" }, /PMI_RANK: expected 0\.\.1, received 2/],
    [{ RANK: "x", WORLD_SIZE: "2", MASTER_ADDR: "a" }, /RANK: expected a whole number of at least 0, received x/],
    [{ RANK: "0", MASTER_ADDR: "a" }, /WORLD_SIZE: .*received nothing/],
    [
      { RANK: "0", WORLD_SIZE: "2", MASTER_ADDR: "a", MASTER_PORT: "70000" },
      /MASTER_PORT: expected a port, 1\.\.65535/,
    ],
  ])("%o is refused by name", (env, message) => {
    expect(() => placeFromEnvironment(env)).toThrow(message);
  });

  test("by hand: hosts, and processes on each", () => {
    expect(placeByHand(2, 1, "a:1")).toMatchObject({ numProcesses: 2, processRank: 1, processesPerNode: 1 });
    const place = placeByHand(2, 1, "a:1", 4, 3);
    expect(place).toMatchObject({ numProcesses: 8, processRank: 7, processesPerNode: 4, localProcess: 3 });
    expect(() => placeByHand(2, 1, "a:1", 4, 4)).toThrow(/local-process: expected 0\.\.3, received 4/);
    expect(() => placeByHand(2, -1, "a:1")).toThrow(/node-rank: expected 0\.\.1, received -1/);
    expect(() => placeByHand(2, 0.5, "a:1")).toThrow(/node-rank: expected 0\.\.1, received 0\.5/);
    expect(() => placeByHand(2.5, 1, "a:1")).toThrow(/nodes: expected at least 1, received 2\.5/);
    expect(() => placeByHand(2, 1, "a:1", 0, 0)).toThrow(/processes-per-node: expected at least 1, received 0/);
  });

  test("ranks: blocks; processes that share a host hold one each", () => {
    expect(ranksOfProcess(placeByHand(2, 1, "a:1"), 8)).toEqual([4, 5, 6, 7]);
    expect(() => ranksOfProcess(placeByHand(2, 1, "a:1"), 7)).toThrow(
      /numRanks: expected a multiple of the 2 processes/,
    );
    expect(() => ranksOfProcess(placeByHand(2, 1, "a:1", 2, 0), 8)).toThrow(
      /numRanks: expected 4: one rank per process, as 2 processes share a host, received 8/,
    );
  });

  test("addresses", () => {
    expect(parseAddress("rendezvous", "[::1]:80")).toEqual({ host: "::1", port: 80 });
    expect(parseAddress("rendezvous", "host")).toEqual({ host: "host", port: DEFAULT_PORT });
    expect(() => parseAddress("rendezvous", "a:b:c")).toThrow(/expected HOST:PORT, received a:b:c/);
    expect(() => placeByHand(2, 2, "a:1")).toThrow(/node-rank: expected 0\.\.1, received 2/);
  });
});
