/** A script told something that it does not know says so and does nothing: `build-native.mjs --help` used to build. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const script = (name: string) => fileURLToPath(new URL(`../../scripts/${name}.mjs`, import.meta.url));

function run(name: string, ...args: string[]) {
  const temporary = mkdtempSync(join(tmpdir(), "fused-a2a-options-"));
  const env = { ...process.env, FUSED_A2A_NATIVE: "off", TMPDIR: temporary };
  const { status, stdout, stderr } = spawnSync(process.execPath, [script(name), ...args], { encoding: "utf8", env });
  rmSync(temporary, { recursive: true });
  return { status, stdout, stderr };
}

test.each([
  ["build-native", ["--selftests"], "'--selftests'"],
  ["build-native", ["cpu"], "expected cuda or emulated, received cpu"],
  ["build-native", ["--jobs", "two"], "expected a whole number, received two"],
  ["native-mutants", ["--seed", "3"], "'--seed'"],
  ["native-mutants", ["--first", "-1"], "--first"],
  ["test", ["--sweeps"], "'--sweeps'"],
  ["test", ["laws"], "expected options alone, received laws"],
])("%s %j is refused", (name, args, why) => {
  const { status, stdout, stderr } = run(name, ...args);
  expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
  expect(stderr).toContain(why);
});

test.each(["build-native", "native-mutants", "test"])("%s --help", (name) => {
  const { status, stdout } = run(name, "--help");
  expect({ status, stdout }).toEqual({
    status: 0,
    stdout: expect.stringMatching(/^usage: node scripts\/.*\.mjs .*\n$/),
  });
});

test("what is known is taken", () => {
  const { status, stdout, stderr } = run("build-native", "emulated", "--selftest", "--jobs", "2");
  expect({ status, text: stdout + stderr }).toEqual({
    status: 0,
    text: expect.stringContaining("FUSED_A2A_NATIVE=off"),
  });
});
