/** Processes of a group that a test starts one by one: with variables of their own, or in a network namespace. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Line } from "./run.ts";

const here = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
export const MAIN = here("dist/cli/main.js");
const RANK = fileURLToPath(new URL("rank.mjs", import.meta.url));

export const built =
  existsSync(MAIN) &&
  existsSync(here("build/fused_a2a_emulated.node")) &&
  existsSync(here("build/libfused_a2a_nccl_sockets.so"));
export const whyNotBuilt = built ? "" : " (skipped: npm run build and npm run build:native)";

export interface Where {
  readonly env?: Readonly<Record<string, string>>;
  /** What runs the program: `ip netns exec NAME`. */
  readonly prefix?: readonly string[];
  /** Longest life of the process, in milliseconds, far past every deadline of the test; default 40 000. */
  readonly lifeMs?: number;
}

export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly seconds: number;
}

export interface Started {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
}

function start(
  program: string,
  args: readonly string[],
  { env = {}, prefix = [], lifeMs = 40_000 }: Where = {},
): Started {
  const [command, ...rest] = [...prefix, process.execPath, program, ...args];
  const began = performance.now();
  // Away from the repository: a failure may leave files where the process stands.
  const cwd = mkdtempSync(join(tmpdir(), "fused-a2a-cluster-"));
  const child = spawn(command, rest, { cwd, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  const limit = setTimeout(() => child.kill("SIGKILL"), lifeMs);
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk) => {
    stdout += chunk;
  });
  child.stderr.on("data", (chunk) => {
    stderr += chunk;
  });
  const ended = new Promise<Ended>((resolve) => {
    child.on("close", (status) => {
      clearTimeout(limit);
      resolve({ status, stdout, stderr, seconds: (performance.now() - began) / 1e3 });
    });
  });
  return { child, ended };
}

/** `fused-a2a ...`. */
export const startCommand = (args: readonly string[], where?: Where): Started => start(MAIN, args, where);

export interface StartedRank {
  /** What it has printed so far. */
  readonly lines: readonly Line[];
  /** Resolves with the first line that `wanted` takes, printed before or later. */
  until(wanted: (line: Line) => boolean): Promise<Line>;
  readonly ended: Promise<readonly Line[]>;
}

/** rank.mjs with these options. */
export function startRank(options: object, where?: Where): StartedRank {
  const { child, ended } = start(RANK, [JSON.stringify(options)], where);
  const lines: Line[] = [];
  const waiters = new Set<() => void>();
  let rest = "";
  child.stdout?.on("data", (chunk) => {
    const parts = `${rest}${chunk}`.split("\n");
    rest = parts.pop() ?? "";
    lines.push(...parts.map((text) => JSON.parse(text)));
    for (const tell of waiters) tell();
  });
  const finished = ended.then(({ stderr }) => {
    for (const tell of waiters) tell();
    if (stderr.includes("Error")) throw new Error(stderr);
    return lines;
  });
  finished.catch(() => {});
  return {
    lines,
    ended: finished,
    until: (wanted) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = lines.find(wanted);
          if (found !== undefined) resolve(found);
        };
        waiters.add(look);
        look();
        finished.then(() => {
          const found = lines.find(wanted);
          if (found === undefined) reject(new Error(`the process ended with ${JSON.stringify(lines)}`));
        }, reject);
      }),
  };
}
