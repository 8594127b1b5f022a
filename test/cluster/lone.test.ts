/** One process per rank: rows of the node travel between processes too. */
import { describe, expect, test } from "vitest";
import { createCudaBackend, placeByHand } from "../../backends/cuda/index.ts";
import { InvalidArgument } from "../../core/errors.ts";
import { freePort } from "../conformance/split/port.ts";
import { runRanks } from "./run.ts";
import { built, startCommand, whyNotBuilt } from "./start.ts";

const LIMIT = 60_000;
const numExperts = 12;
const CASES = [
  { style: "fused" },
  { style: "hybrid-ep" },
  { style: "fused", dtype: "fp8e4m3", tokens: 150, hidden: 128 },
  { style: "hybrid-ep", multihot: "device", topk: 5 },
  { style: "hybrid-ep", settings: { numPermutedTokens: 64 } },
].map((one) => ({ ...one, numExperts }));

describe.skipIf(!built)(`one process per rank${whyNotBuilt}`, () => {
  test.each([
    [4, 4, 1],
    [4, 2, 2],
    [6, 3, 2],
  ])(
    "%i processes, %i on each of %i hosts, equal the oracle; bytes equal the layout",
    async (processes, processesPerNode) => {
      const all = await runRanks(processes, Array(processes).fill(CASES), () => ({ processesPerNode }));
      all.forEach((lines, process) => {
        expect(lines[0].met).toEqual([process]);
        const done = lines.filter((line) => line.done !== undefined);
        expect(
          done.map((line) => line.differing),
          JSON.stringify(lines),
        ).toEqual(CASES.map(() => []));
        expect(done[0].phases).toEqual(expect.arrayContaining(["agree", "node rows"]));
      });
    },
    LIMIT,
  );

  const SMALL = ["--backend", "cuda-emulated", "--ranks", "4", "--tokens", "40", "--hidden", "64", "--json"];
  const VERIFY = ["verify", ...SMALL, "--against", "oracle"];
  const expectVerified = async (runs: ReturnType<typeof startCommand>[], ranksPerNode: number) => {
    for (const { status, stdout, stderr } of await Promise.all(runs.map(({ ended }) => ended))) {
      expect(stderr).toBe("");
      expect(JSON.parse(stdout)).toMatchObject({ ok: true, numDiffering: 0, shape: { numRanks: 4, ranksPerNode } });
      const { laws } = JSON.parse(stdout);
      expect(laws.map(({ ok }: { ok: boolean }) => ok)).toEqual(Array(7).fill(true));
      for (const i of [3, 4]) expect(laws[i].received > 0, "crosses hosts").toBe(ranksPerNode < 4);
      for (const i of [5, 6]) expect(laws[i].received).toBeGreaterThan(0);
      expect(status).toBe(0);
    }
  };

  test(
    "verify by hand, 2 hosts of 2 processes",
    async () => {
      const meet = ["--rendezvous", `127.0.0.1:${await freePort()}`, "--nodes", "2", "--processes-per-node", "2"];
      const runs = [0, 1, 2, 3].map((i) =>
        startCommand([...VERIFY, ...meet, "--node-rank", `${i >> 1}`, "--local-process", `${i % 2}`]),
      );
      await expectVerified(runs, 2);
    },
    LIMIT,
  );

  test.each([
    ["2 hosts of 2", 2],
    ["1 host of 4", 4],
  ])(
    "verify under torchrun's variables, %s",
    async (_, perHost) => {
      const port = await freePort();
      const runs = [0, 1, 2, 3].map((rank) =>
        startCommand(VERIFY, {
          env: {
            RANK: `${rank}`,
            WORLD_SIZE: "4",
            LOCAL_RANK: `${rank % perHost}`,
            LOCAL_WORLD_SIZE: `${perHost}`,
            MASTER_ADDR: "127.0.0.1",
            MASTER_PORT: `${port - 1}`,
          },
        }),
      );
      await expectVerified(runs, perHost);
    },
    LIMIT,
  );

  /** The group of a host's process that has these devices. */
  const groupOn = async (devices: number | readonly number[], processes: number, process: number, port: number) => {
    const place = placeByHand(1, 0, `127.0.0.1:${port}`, processes, process);
    const cluster = { place, timeoutMs: 20_000, deadlineMs: 20_000 };
    const backend = await createCudaBackend({ emulated: true, emulation: { numDevices: 8 }, devices, cluster });
    return backend.createGroup({ numRanks: processes });
  };

  test.each([
    ["a list of one is the process's own device", [[5], [2]], [5, 2]],
    [
      "a longer list is the host's, by process",
      [
        [6, 3],
        [6, 3],
      ],
      [6, 3],
    ],
    ["one device for all", [1, 1], [0, 0]],
  ])(
    "devices: %s",
    async (_, devices, expected) => {
      const port = await freePort();
      const groups = await Promise.all(devices.map((own, process) => groupOn(own, 2, process, port)));
      const tensors = await Promise.all(groups.map((group, rank) => group.tensor(rank, "fp32", [1])));
      expect(tensors.map(({ device }) => device)).toEqual(expected);
      await Promise.all(groups.map((group) => group.close()));
    },
    LIMIT,
  );

  test("a list of devices that is neither the process's nor the host's is refused before anybody is met", async () => {
    const refused = groupOn([0, 1, 2, 3], 2, 1, 1);
    await expect(refused).rejects.toThrow(InvalidArgument);
    await expect(refused).rejects.toThrow(
      "devices: expected 1 (this process's) or 2 (one for each process of the host), received 4 (0, 1, 2, 3); ",
    );
    await expect(groupOn([], 2, 0, 1)).rejects.toThrow("of the host), received 0; ");
  });

  test(
    "two ranks in each of two processes of a host are refused by name",
    async () => {
      const flags = ["--nodes", "1", "--node-rank", "0", "--processes-per-node", "2", "--rendezvous", "127.0.0.1:1"];
      const { status, stderr } = await startCommand(["run", ...SMALL, ...flags]).ended;
      expect(stderr).toContain("numRanks: expected 2: one rank per process, as 2 processes share a host, received 4");
      expect(status).toBe(2);
    },
    LIMIT,
  );
});
