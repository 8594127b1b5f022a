/**
 * The launchers themselves, where they are installed: what docs/clusters.md tells to type. Hosts are names for this machine:
 * MPICH's launcher reaches them by a remote shell of ours that starts the command here.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { freePort } from "../conformance/split/port.ts";
import { built, MAIN, whyNotBuilt } from "./start.ts";

const JOB = ["--backend", "cuda-emulated", "--ranks", "4", "--tokens", "100"];
const LIMIT = 60_000;

interface Launcher {
  readonly name: string;
  /** A launch that does nothing: whether the launcher is here and works. */
  readonly probe: readonly string[];
  /** `each` processes on each host. */
  command(each: number, shell: string): readonly string[];
  readonly numHosts?: number;
  readonly perHost?: readonly number[];
}

const ROOT = { OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" };
const LAUNCHERS: readonly Launcher[] = [
  {
    name: "Open MPI",
    probe: ["mpirun.openmpi", "-np", "1", "true"],
    // Two daemons of it on one machine crash now and then, whatever they start (4.1.4: 3 of 150 with `true`).
    numHosts: 1,
    perHost: [4],
    command: (each) => ["mpirun.openmpi", "--oversubscribe", "-np", `${each}`, "-x", "FUSED_A2A_RENDEZVOUS"],
  },
  {
    name: "MPICH",
    probe: ["mpiexec.hydra", "-np", "1", "true"],
    command: (each, shell) => [
      ...["mpiexec.hydra", "-launcher", "ssh", "-launcher-exec", shell],
      ...["-hosts", "host-a,host-b", "-ppn", `${each}`, "-np", `${2 * each}`],
    ],
  },
  {
    name: "Slurm",
    probe: ["srun", "--immediate=5", "--nodes", "2", "true"],
    command: (each) => ["srun", "--nodes", "2", "--ntasks-per-node", `${each}`, "--overcommit"],
  },
  {
    name: "torchrun",
    probe: ["torchrun", "--no_python", "--nnodes", "1", "--nproc_per_node", "1", "true"],
    // A host is an agent that is started there by hand: here one.
    numHosts: 1,
    perHost: [4],
    command: (each) => ["torchrun", "--no_python", "--nnodes", "1", "--nproc_per_node", `${each}`],
  },
];

function launch(command: readonly string[], env: Record<string, string> = {}) {
  const [program, ...args] = command;
  const cwd = mkdtempSync(join(tmpdir(), "fused-a2a-launcher-"));
  return spawnSync(program, args, {
    cwd,
    encoding: "utf8",
    timeout: 40_000,
    env: { ...process.env, ...ROOT, ...env },
  });
}

/** Takes options and a host as ssh does, and starts the rest here. */
function remoteShell(): string {
  const path = join(mkdtempSync(join(tmpdir(), "fused-a2a-shell-")), "shell");
  const script = `#!/bin/sh\nwhile [ "\${1#-}" != "$1" ]; do shift; done\nshift\nexec sh -c "$*"\n`;
  writeFileSync(path, script, { mode: 0o755 });
  return path;
}

for (const { name, probe, command, numHosts = 2, perHost = [1, 2] } of LAUNCHERS) {
  const works = built && launch(probe).status === 0;
  const why = works ? "" : built ? ` (skipped: ${probe[0]} is not here, or does not work)` : whyNotBuilt;
  describe.skipIf(!works)(`${name} starts the processes${why}`, () => {
    test.each(perHost)(
      "%i on each host: every process verifies its ranks",
      async (each) => {
        const program = [process.execPath, MAIN, "verify", ...JOB, "--hidden", "128", "--against", "oracle"];
        const { status, stdout, stderr } = launch([...command(each, remoteShell()), ...program], await rendezvous());
        expect(stderr).not.toMatch(/fused-a2a:/);
        expect(status).toBe(0);
        const on = `4 ranks on ${numHosts} ${numHosts === 1 ? "node" : "nodes"}`;
        expect(stdout.match(/\d+ ranks on \d+ nodes?/g)).toEqual(Array(numHosts * each).fill(on));
        expect(stdout.match(/verified: every output equal, bit for bit/g)).toHaveLength(numHosts * each);
      },
      LIMIT,
    );

    test(
      "settings that differ: one line names them, the exit code is not 0",
      async () => {
        // biome-ignore lint/suspicious/noTemplateCurlyInString: the shell puts the launcher's variable there.
        const own = "${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-${RANK:-$SLURM_PROCID}}}";
        const script = `exec "${process.execPath}" "${MAIN}" run ${JOB.join(" ")} --hidden $((128 + ${own}))`;
        const each = perHost[0];
        const { status, stderr } = launch([...command(each, remoteShell()), "sh", "-c", script], await rendezvous());
        expect(status).not.toBe(0);
        expect(stderr).toMatch(/fused-a2a: .*hidden: 128 on process 0, 129 on process 1/);
      },
      LIMIT,
    );
  });
}

async function rendezvous(): Promise<Record<string, string>> {
  return { FUSED_A2A_RENDEZVOUS: `127.0.0.1:${await freePort()}` };
}
