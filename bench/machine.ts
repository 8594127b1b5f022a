import { execFileSync } from "node:child_process";
import { availableParallelism, cpus, loadavg, totalmem } from "node:os";
import type { Machine } from "./report.ts";

/** What a result depends on; no names or paths of the machine. */
export function describeMachine(version: string): Machine {
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    platform: `${process.platform} ${process.arch}`,
    node: process.version,
    version,
    commit: commit(),
    date: new Date().toISOString().slice(0, 10),
    load: Number(loadavg()[0].toFixed(2)),
  };
}

function commit(): string {
  try {
    const head = git("rev-parse", "--short=12", "HEAD");
    return git("status", "--porcelain", "-uno") === "" ? head : `${head} with changes`;
  } catch {
    return "unknown";
  }
}

function git(...args: string[]): string {
  const cwd = import.meta.dirname;
  return execFileSync("git", args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
}
