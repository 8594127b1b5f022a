/** Real processes on this machine that make up one group. */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Wait } from "../../core/errors.ts";
import { freePort } from "../conformance/split/port.ts";

/** What rank.mjs prints, a field per kind of step. */
export interface Line {
  readonly met?: readonly number[];
  readonly done?: number;
  readonly differing?: readonly string[];
  readonly topk?: number;
  readonly agreeUs?: number | null;
  /** Ranks that the process's first rank waited for, longer than any transfer. */
  readonly lateRanks?: readonly number[];
  readonly exchanged?: readonly unknown[];
  readonly waits?: readonly Wait[];
  readonly phases?: readonly string[];
  readonly code?: string;
  readonly message?: string;
  readonly reserved?: number;
  readonly alive?: boolean;
}

const RANK = fileURLToPath(new URL("rank.mjs", import.meta.url));

/**
 * Runs one process per entry, each with its steps; `env` of its options goes into its environment. Processes that stop
 * themselves are ended when the others are done.
 */
export async function runRanks(
  numRanks: number,
  steps: readonly (readonly unknown[])[],
  options: (processRank: number) => { env?: Record<string, string>; processesPerNode?: number } & object = () => ({}),
  program = RANK,
): Promise<Line[][]> {
  const port = await freePort();
  const children = steps.map((own, processRank) => {
    const { env, processesPerNode = 1, ...more } = options(processRank);
    const which = { processRank, processesPerNode, localProcess: processRank % processesPerNode };
    const place = { launcher: "by hand", numProcesses: steps.length, ...which, host: "127.0.0.1", port };
    return spawn(process.execPath, [program, JSON.stringify({ place, numRanks, steps: own, ...more })], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...env },
    });
  });
  const outputs = children.map(linesOf);
  const stops = steps.map((own) => own.some((step) => /stop/.test(JSON.stringify(step))));
  await Promise.all(outputs.filter((_, i) => !stops[i]));
  children.forEach((child, i) => stops[i] && child.kill("SIGKILL"));
  return Promise.all(outputs);
}

function linesOf(child: ChildProcess): Promise<Line[]> {
  let text = "";
  let complaints = "";
  child.stdout?.on("data", (chunk) => {
    text += chunk;
  });
  child.stderr?.on("data", (chunk) => {
    complaints += chunk;
  });
  const limit = setTimeout(() => child.kill("SIGKILL"), 40_000);
  return new Promise((resolve, reject) => {
    child.on("close", () => {
      clearTimeout(limit);
      if (complaints.includes("Error")) reject(new Error(complaints));
      resolve(
        text
          .split("\n")
          .filter(Boolean)
          .map((line) => JSON.parse(line)),
      );
    });
  });
}
