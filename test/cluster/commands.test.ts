/** `run` and `verify` as several processes, by hand and under a launcher's variables. */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { freePort } from "../conformance/split/port.ts";

const here = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const MAIN = here("dist/cli/main.js");
const built = existsSync(MAIN) && existsSync(here("build/libfused_a2a_nccl_sockets.so"));
const why = built ? "" : " (skipped: npm run build and npm run build:native)";
const GPT_OSS = here("../shared/routing/gpt-oss-20b.decode.small.safetensors");

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** One process per environment; the arguments may differ. */
function start(processes: readonly { args: readonly string[]; env?: Record<string, string> }[]): Promise<Ended[]> {
  // Away from the repository: a failure leaves its bundle where the process stands.
  const cwd = mkdtempSync(join(tmpdir(), "fused-a2a-commands-"));
  const runs = processes.map(({ args, env }) => {
    const child = spawn(process.execPath, [MAIN, ...args], { cwd, env: { ...process.env, ...env } });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk) => {
      stdout += chunk;
    });
    child.stderr.on("data", (chunk) => {
      stderr += chunk;
    });
    return new Promise<Ended>((resolve) => child.on("close", (status) => resolve({ status, stdout, stderr })));
  });
  return Promise.all(runs);
}

const SMALL = ["--backend", "cuda-emulated", "--tokens", "40", "--hidden", "64", "--json"];

async function byHand(nodes: number, args: readonly string[], more: (node: number) => string[] = () => []) {
  const rendezvous = `127.0.0.1:${await freePort()}`;
  return start(
    Array.from({ length: nodes }, (_, node) => ({
      args: [
        ...args,
        ...["--nodes", `${nodes}`, "--node-rank", `${node}`, "--rendezvous", rendezvous, "--join-timeout-ms", "8000"],
        ...more(node),
      ],
    })),
  );
}

describe.skipIf(!built)(`commands over several processes${why}`, () => {
  test("verify by hand on 2 and 4 nodes: every process finds its ranks equal", async () => {
    for (const nodes of [2, 4]) {
      for (const { status, stdout, stderr } of await byHand(nodes, ["verify", ...SMALL, "--against", "oracle"])) {
        expect(stderr).toBe("");
        expect(JSON.parse(stdout)).toMatchObject({ ok: true, numDiffering: 0, shape: { ranksPerNode: 8 / nodes } });
        expect(JSON.parse(stdout).references[0].outputs.length).toBeGreaterThan(4);
        const { laws } = JSON.parse(stdout);
        expect(laws.map(({ ok }: { ok: boolean }) => ok)).toEqual(Array(7).fill(true));
        for (const { received } of laws) expect(received).toBeGreaterThan(0);
        expect(status).toBe(0);
      }
    }
  }, 60_000);

  test.skipIf(!existsSync(GPT_OSS))(
    `a real gpt-oss layer is verified${existsSync(GPT_OSS) ? "" : " (skipped: no routing data)"}`,
    async () => {
      const args = ["verify", GPT_OSS, "--layer", "3", "--backend", "cuda-emulated", "--hidden", "128", "--json"];
      for (const { stdout, stderr } of await byHand(2, [...args, "--against", "oracle"])) {
        expect(stderr).toBe("");
        expect(JSON.parse(stdout)).toMatchObject({ ok: true, numDiffering: 0 });
      }
    },
    60_000,
  );

  test.each([
    ["torchrun", (rank: number) => ({ RANK: `${rank}`, WORLD_SIZE: "2" })],
    ["mpirun", (rank: number) => ({ OMPI_COMM_WORLD_RANK: `${rank}`, OMPI_COMM_WORLD_SIZE: "2" })],
    ["Slurm", (rank: number) => ({ SLURM_PROCID: `${rank}`, SLURM_NTASKS: "2", SLURM_STEP_ID: "0" })],
  ])(
    "run under the variables of %s",
    async (_, variables) => {
      const port = await freePort();
      const env = (rank: number) => ({
        ...variables(rank),
        MASTER_ADDR: "127.0.0.1",
        FUSED_A2A_RENDEZVOUS: `127.0.0.1:${port}`,
      });
      const both = await start([0, 1].map((rank) => ({ args: ["run", ...SMALL], env: env(rank) })));
      for (const { stdout, stderr } of both) {
        expect(stderr).toBe("");
        expect(JSON.parse(stdout).shape).toMatchObject({ numRanks: 8, ranksPerNode: 4 });
      }
    },
    30_000,
  );

  test("different settings: one line on each, exit code 2", async () => {
    const both = await byHand(2, ["run", ...SMALL], (node) => ["--hidden", node === 0 ? "64" : "32"]);
    for (const { status, stderr } of both) {
      expect(stderr).toContain("hidden: 64 on process 0, 32 on process 1");
      expect(stderr.trim().split("\n")).toHaveLength(1);
      expect(status).toBe(2);
    }
  }, 30_000);

  test("different numbers of repeats are an error that names them", async () => {
    for (const [here, there] of [
      ["--repeats 3", "--repeats 2"],
      ["--repeats 3", ""],
    ]) {
      const more = (node: number) => (node === 0 ? here : there).split(" ").filter(Boolean);
      for (const { status, stderr } of await byHand(2, ["run", ...SMALL], more)) {
        const other = there === "" ? "dispatch" : `exchange ${there}`;
        expect(stderr).toContain(`operation: exchange ${here} on process 0, ${other} on process 1`);
        expect(status).toBe(2);
      }
    }
  }, 30_000);

  test("references that not every process has are left out and named; none in common is an error", async () => {
    const differing = await byHand(2, ["verify", ...SMALL], (node) => [
      "--against",
      node === 0 ? "oracle" : "oracle,wasm",
    ]);
    for (const { stdout, stderr } of differing) {
      expect(stderr).toBe("");
      expect(JSON.parse(stdout).references.map((one: { reference: string }) => one.reference)).toEqual(["oracle"]);
    }
    expect(JSON.parse(differing[1].stdout).notRun).toEqual([{ name: "wasm", why: "process 0 has none" }]);
    for (const { status, stderr } of await byHand(2, ["verify", ...SMALL], (node) => [
      ...["--against", node === 0 ? "oracle" : "wasm"],
    ])) {
      expect(stderr).toContain(
        "against: expected a reference that every process has, received oracle on process 0; wasm",
      );
      expect(status).toBe(2);
    }
  }, 40_000);

  test("a process that never calls: the table of who waits for whom, as text and as JSON", async () => {
    const SLOW = { NODE_OPTIONS: `--require ${here("test/cluster/slow.cjs")}`, SLOW_MS: "3000" };
    const rendezvous = `127.0.0.1:${await freePort()}`;
    const args = (node: number) => [
      ...[
        "run",
        ...SMALL.filter((one) => one !== "--json" || node === 1),
        "--bundle-dir",
        mkdtempSync(`${tmpdir()}/w-`),
      ],
      ...["--nodes", "3", "--node-rank", `${node}`, "--rendezvous", rendezvous, "--ranks", "6", "--experts", "12"],
      ...["--topk", "4", "--deadline-ms", "800"],
    ];
    const [first, second] = await start([0, 1, 2].map((node) => ({ args: args(node), env: node === 2 ? SLOW : {} })));
    expect([first.status, second.status]).toEqual([2, 2]);
    const [line, ...table] = first.stderr.trim().split("\n");
    expect(line).toMatch(/^fused-a2a: operation 0: after 800 ms process 2 did not come; process 0 waits in dispatch/);
    expect(table[0].split(/ {2,}/)).toEqual(["rank", "waits for", "phase", "expected", "received"]);
    expect(table.slice(1).map((row) => row.split(/ {2,}/))).toEqual([
      ["0..3", "4..5", "agree", "its call of dispatch (operation 0)", "nothing within 800 ms"],
    ]);
    expect(second.stderr.trim().split("\n")).toHaveLength(1);
    const { error } = JSON.parse(second.stdout);
    expect(error.code).toBe("TIMEOUT");
    expect(error.waits).toHaveLength(8);
    expect(error.waits[0]).toMatchObject({ rank: 0, srcRank: 4, phase: "agree" });
  }, 40_000);

  test("options that do not belong together are refused before anything starts", async () => {
    const [one, other] = await start([
      { args: ["run", ...SMALL, "--nodes", "2"] },
      { args: ["run", "--backend", "wasm", "--nodes", "2", "--node-rank", "0", "--rendezvous", "127.0.0.1:1"] },
    ]);
    expect(one.stderr).toMatch(/nodes: expected --nodes, --node-rank and --rendezvous together, received 1 of them/);
    expect(other.stderr).toMatch(/backend: expected cuda or cuda-emulated with --nodes, received wasm/);
    expect([one.status, other.status]).toEqual([2, 2]);
  }, 30_000);
});
