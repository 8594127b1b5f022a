/** Builds and runs the native self-test programs. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { packageFolder } from "../../backends/cuda/loader.ts";

const root = packageFolder();

export const hasCompiler = spawnSync(process.env.CXX ?? "g++", ["--version"]).status === 0;

export function buildSelftest(variant: "emulated" | "sanitized"): void {
  const flags = variant === "sanitized" ? ["--sanitize"] : ["emulated", "--selftest"];
  const { status, stderr } = spawnSync(process.execPath, ["scripts/build-native.mjs", ...flags], {
    cwd: root,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(stderr);
}

/** What the program printed. Throws with it when the program says no. */
export function selftest(variant: "emulated" | "sanitized", args: readonly string[]): string {
  const { status, signal, stdout, stderr } = spawnSync(join(root, "build", `selftest-${variant}`), args, {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`selftest ${args.join(" ")} ended with ${signal ?? status}:\n${stdout}${stderr}`);
  return stdout;
}
