/** The edges of a process: worker threads, an exit in the middle, groups that nobody closes. Runs the built package. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { packageFolder } from "../../backends/cuda/loader.ts";
import { built, why } from "./open.ts";

const program = fileURLToPath(new URL("process/program.mjs", import.meta.url));

function run(scenario: string) {
  if (!existsSync(join(packageFolder(), "dist/backends/cuda/index.js")))
    throw new Error("dist/ is missing: npm run build");
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [program, scenario], {
    encoding: "utf8",
    timeout: 50_000,
  });
  return { status, signal, stdout: stdout.trim(), stderr };
}

describe.skipIf(!built)(`process edges${why}`, () => {
  test.each([
    ["workers", "main ok, worker ok, worker ok, worker ok"],
    ["exit-in-flight", "leaving"],
    ["terminate-in-flight", "terminated, main ok"],
    ["never-closed", "ok"],
    ["unhandled-event", "ok"],
  ])("%s", (scenario, expected) => {
    expect(run(scenario)).toEqual({ status: 0, signal: null, stdout: expected, stderr: "" });
  });

  test("an operation that fails with nobody listening ends the process like any rejection", () => {
    const { status, stderr } = run("unhandled-rejection");
    expect(status).toBe(1);
    expect(stderr).toContain("InvalidArgument: numExperts: expected");
  });
});
