import { describe, expect, test } from "vitest";
import { DEFAULT_PORT, parseAddress, placeByHand, placeFromEnvironment } from "../../backends/cuda/cluster/index.ts";

describe("the place of a process, from its launcher's variables", () => {
  test("nothing set: one process", () => {
    expect(placeFromEnvironment({})).toBeNull();
  });

  test("torchrun: its meeting port is taken, so the next one is ours", () => {
    const env = { RANK: "3", WORLD_SIZE: "8", LOCAL_RANK: "3", MASTER_ADDR: "node-a", MASTER_PORT: "29500" };
    const place = { launcher: "torchrun", numProcesses: 8, processRank: 3, host: "node-a", port: 29501 };
    expect(placeFromEnvironment(env)).toEqual(place);
  });

  test("mpirun names no meeting point: FUSED_A2A_RENDEZVOUS does", () => {
    const env = { OMPI_COMM_WORLD_RANK: "1", OMPI_COMM_WORLD_SIZE: "2", FUSED_A2A_RENDEZVOUS: "10.0.0.1:4000" };
    const place = { launcher: "Open MPI", numProcesses: 2, processRank: 1, host: "10.0.0.1", port: 4000 };
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

  test("a Slurm allocation without a step (salloc) is no launch", () => {
    expect(placeFromEnvironment({ SLURM_PROCID: "0", SLURM_NTASKS: "4" })).toBeNull();
  });

  test.each([
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

  test("addresses", () => {
    expect(parseAddress("rendezvous", "[::1]:80")).toEqual({ host: "::1", port: 80 });
    expect(parseAddress("rendezvous", "host")).toEqual({ host: "host", port: DEFAULT_PORT });
    expect(() => parseAddress("rendezvous", "a:b:c")).toThrow(/expected HOST:PORT, received a:b:c/);
    expect(() => placeByHand(2, 2, "a:1")).toThrow(/node-rank: expected 0\.\.1, received 2/);
  });
});
