#!/usr/bin/env node
/**
 * Builds, then runs every fast test: types and format of the code, Vitest for Node, Playwright for the browser, and ends with
 * one line that adds them up; before it, every failure again by name, so that the end of a log is enough.
 * `--sweep` runs the long ones (*.sweep.test.ts) instead, file by file; `--budget SECONDS` starts no further file after that
 * time and counts those as skipped, by name. `--no-build` and `--no-browser` leave parts out.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { numberOf, optionsOf } from "./options.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const given = optionsOf(
  "usage: node scripts/test.mjs [--no-build] [--no-browser], or --sweep [--no-build] [--budget SECONDS]",
  {
    ...Object.fromEntries(["sweep", "no-build", "no-browser"].map((name) => [name, { type: "boolean" }])),
    budget: { type: "string" },
  },
);
const reports = join(root, "test-results");
const totals = { passed: 0, failed: 0, skipped: 0 };
const failures = [];

rmSync(reports, { recursive: true, force: true });
mkdirSync(reports, { recursive: true });
if (!given["no-build"]) run("build", ["scripts/build.mjs"]);
if (given.sweep) sweeps(numberOf(given.budget, Number.POSITIVE_INFINITY));
else {
  checks();
  vitest("vitest", []);
  if (!given["no-browser"]) playwright();
}
for (const name of failures) console.log(`FAILED: ${name}`);
console.log(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
process.exit(totals.failed > 0 ? 1 : 0);

/** `npm run check`, each part as one test. */
function checks() {
  const parts = {
    "types of everything (tsc)": ["node_modules/typescript/bin/tsc", "--noEmit"],
    "types of core without Node (tsc -p core)": ["node_modules/typescript/bin/tsc", "-p", "core", "--noEmit"],
    "format and lint (biome check; npm run format mends most)": [
      "node_modules/@biomejs/biome/bin/biome",
      "check",
      "--error-on-warnings",
    ],
  };
  for (const [name, args] of Object.entries(parts)) {
    if (node(args) === 0) totals.passed++;
    else fail(name);
  }
}

function sweeps(budgetSeconds) {
  const started = performance.now();
  const files = readdirSync(join(root, "test"), { recursive: true })
    .filter((name) => name.endsWith(".sweep.test.ts"))
    .sort();
  for (const file of files) {
    const seconds = (performance.now() - started) / 1e3;
    if (seconds > budgetSeconds) {
      console.log(`SKIPPED test/${file}: ${Math.round(seconds)} s of ${budgetSeconds} s are spent`);
      totals.skipped++;
      continue;
    }
    vitest(file.replaceAll("/", "-"), [`test/${file}`, "--mode", "sweep"]);
    console.log(`test/${file}: ${((performance.now() - started) / 1e3 - seconds).toFixed(0)} s`);
  }
}

function vitest(name, args) {
  const report = join(reports, `${name}.json`);
  const status = node([
    ...["node_modules/vitest/vitest.mjs", "run", ...args],
    ...["--reporter=dot", "--reporter=json", `--outputFile.json=${report}`],
  ]);
  if (!existsSync(report)) return broken(name);
  const { numPassedTests, numFailedTests, numPendingTests, numTodoTests, testResults } = JSON.parse(
    readFileSync(report, "utf8"),
  );
  // A file that fails to load has no failed test of its own.
  const unloaded = testResults.filter(
    (file) => file.status === "failed" && file.assertionResults.every((one) => one.status !== "failed"),
  );
  totals.passed += numPassedTests;
  totals.failed += numFailedTests + unloaded.length;
  totals.skipped += numPendingTests + numTodoTests;
  for (const file of testResults) {
    for (const one of file.assertionResults) {
      if (one.status !== "failed") continue;
      console.log(`FAILED ${one.fullName}\n  ${one.failureMessages[0]}`);
      failures.push(`${relative(root, file.name)}: ${one.fullName}`);
    }
  }
  for (const file of unloaded) {
    console.log(`FAILED to load ${file.name}\n  ${file.message}`);
    failures.push(`${relative(root, file.name)} did not load`);
  }
  if (status !== 0 && numFailedTests + unloaded.length === 0) broken(name);
}

function playwright() {
  const config = "test/viz/playwright.config.ts";
  if (!existsSync(join(root, config))) return;
  const report = join(reports, "playwright.json");
  const status = node(["node_modules/playwright/cli.js", "test", "-c", config, "--reporter=dot,json"], {
    PLAYWRIGHT_JSON_OUTPUT_NAME: report,
  });
  if (!existsSync(report)) return broken("playwright");
  const { stats, errors, suites } = JSON.parse(readFileSync(report, "utf8"));
  totals.passed += stats.expected + stats.flaky;
  totals.failed += stats.unexpected + errors.length;
  totals.skipped += stats.skipped;
  failures.push(...suites.flatMap(brokenSpecs), ...errors.map(({ message }) => `playwright: ${message}`));
  if (status !== 0 && stats.unexpected + errors.length === 0) broken("playwright");
}

function brokenSpecs({ file, specs = [], suites = [] }) {
  const own = specs.filter(({ ok }) => !ok).map(({ title }) => `test/viz/${file}: ${title}`);
  return [...own, ...suites.flatMap(brokenSpecs)];
}

/** A runner that died without a report is a failure, not an empty success. */
function broken(what) {
  fail(`${what} ended without a usable report`);
}

function fail(name) {
  failures.push(name);
  totals.failed++;
}

function run(what, args) {
  if (node(args) === 0) return;
  console.log(`FAILED: ${what}\n0 passed, 1 failed, 0 skipped`);
  process.exit(1);
}

function node(args, env = {}) {
  return spawnSync(process.execPath, args, {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, ...env },
  }).status;
}
