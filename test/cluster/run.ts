/** Real processes on this machine that make up one group. */
import { type ChildProcess, spawn } from "node:child_process";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";

/** What rank.mjs prints, a field per kind of step. */
export interface Line {
  readonly met?: readonly number[];
  readonly done?: number;
  readonly differing?: readonly string[];
  readonly agreeUs?: number | null;
  readonly phases?: readonly string[];
  readonly code?: string;
  readonly message?: string;
  readonly reserved?: number;
  readonly alive?: boolean;
}

const RANK = fileURLToPath(new URL("rank.mjs", import.meta.url));

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Runs one process per entry, each with its steps; processes that stop themselves are ended when the others are done. */
export async function runRanks(
  numRanks: number,
  steps: readonly (readonly unknown[])[],
  options: (processRank: number) => object = () => ({}),
): Promise<Line[][]> {
  const port = await freePort();
  const children = steps.map((own, processRank) => {
    const place = { launcher: "by hand", numProcesses: steps.length, processRank, host: "127.0.0.1", port };
    return spawn(process.execPath, [RANK, JSON.stringify({ place, numRanks, steps: own, ...options(processRank) })], {
      stdio: ["ignore", "pipe", "pipe"],
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
