import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { Command } from "commander";
import { BACKEND_NAMES, createBackend } from "../backends/index.ts";
import { type BenchCase, CASES } from "../bench/cases.ts";
import { describeMachine } from "../bench/machine.ts";
import { type BenchReport, compareTable, DEFINITIONS, parseReport, reportTable } from "../bench/report.ts";
import { runCase } from "../bench/suite.ts";
import { InvalidArgument, Unavailable } from "../core/errors.ts";
import { openRouting } from "../core/routing/import/index.ts";
import { openFile } from "./files.ts";
import { whole } from "./job.ts";
import { printResult, table } from "./output.ts";
import { progressBar } from "./progress.ts";
import { version } from "./version.ts";

interface BenchOptions {
  readonly case?: string;
  readonly backend: string;
  readonly workers?: string;
  readonly routing?: string;
  readonly repeats: number;
  readonly compare?: boolean;
  readonly json?: boolean;
}

export function bench(): Command {
  const cases = CASES.map(({ name, description }) => `  ${name.padEnd(24)} ${description}`).join("\n");
  const definitions = Object.entries(DEFINITIONS).map(([name, text]) => `  ${name.padEnd(8)} ${text}`);
  return new Command("bench")
    .description("measured tables against a memcpy of the same run; --compare A B shows ratios of two kept results")
    .argument("[files...]", "with --compare: two results of --json")
    .option("--case <names>", "cases, separated by commas (default: prefill, prefill-permuted, decode)")
    .option("--backend <names>", `${BACKEND_NAMES.join(", ")}; several separated by commas`, "wasm")
    .option("--workers <list>", "wasm: worker threads, several separated by commas (default: one per core)")
    .option("--routing <file>", "routing file for the cases of real routing")
    .option("--repeats <n>", "timed rounds; the median counts", whole(7), 7)
    .option("--compare", "compare two results instead of measuring")
    .option("--json", "print the results as JSON: keep it in bench/results")
    .addHelpText("after", `\nCases:\n${cases}\n\nColumns:\n${definitions.join("\n")}\n`)
    .action(benchCommand);
}

async function benchCommand(files: string[], options: BenchOptions): Promise<void> {
  if (options.compare === true) return compare(files, options.json);
  if (files.length > 0) throw usage("files", "none without --compare", files.join(" "));
  const jobs = plan(options);
  const report = jobs.length === 1 ? await runHere(jobs[0], options) : runEach(jobs, options);
  const text = () => [...describe(report), table(reportTable(report)), ...skippedLines(report)].join("\n");
  printResult({ ...report, definitions: DEFINITIONS }, text, options.json);
}

interface BenchJob {
  readonly bench: BenchCase;
  readonly backend: string;
  readonly workers: number | undefined;
}

function plan({ case: names, backend, workers }: BenchOptions): BenchJob[] {
  const cases = (names ?? "prefill,prefill-permuted,decode").split(",").map((name) => {
    const found = CASES.find((known) => known.name === name.trim());
    if (found === undefined) throw usage("case", CASES.map((known) => known.name).join(", "), name);
    return found;
  });
  const counts = workers === undefined ? [undefined] : workers.split(",").map((text) => whole(0)(text.trim()));
  return cases.flatMap((one) =>
    backend.split(",").flatMap((name) => {
      const usesWorkers = name.trim() === "wasm" || name.trim() === "cpu";
      return (usesWorkers ? counts : [undefined]).map((count) => ({
        bench: one,
        backend: name.trim(),
        workers: count,
      }));
    }),
  );
}

async function runHere({ bench, backend: name, workers }: BenchJob, options: BenchOptions): Promise<BenchReport> {
  const machine = describeMachine(version());
  const bar = progressBar(`${bench.name} on ${name}`);
  const routing = options.routing === undefined ? null : await openRouting(await openFile(options.routing));
  const empty = { format: "fused-a2a-bench", version: 1, machine } as const;
  try {
    const backend = await createBackend(name, { workers });
    const numWorkers = "numWorkers" in backend ? (backend.numWorkers as number) : null;
    const progress = (fraction: number) => bar.update(fraction);
    try {
      const results = await runCase(bench, { backend, numWorkers, routing, repeats: options.repeats, progress });
      return { ...empty, results, skipped: [] };
    } finally {
      await backend.close();
    }
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    return { ...empty, results: [], skipped: [{ case: bench.name, why: error.message }] };
  } finally {
    bar.done();
    await routing?.close();
  }
}

/** Every job in a process of its own: none inherits the memory or the compiled code of the one before. */
function runEach(jobs: readonly BenchJob[], options: BenchOptions): BenchReport {
  const reports = jobs.map(({ bench, backend, workers }): BenchReport => {
    const args = ["bench", "--case", bench.name, "--backend", backend, "--repeats", `${options.repeats}`, "--json"];
    if (workers !== undefined) args.push("--workers", `${workers}`);
    if (options.routing !== undefined) args.push("--routing", options.routing);
    const child = spawnSync(process.execPath, [...process.execArgv, process.argv[1], ...args], {
      encoding: "utf8",
      maxBuffer: 1 << 26,
      stdio: ["ignore", "pipe", "pipe"],
    });
    if (child.status === 0) return parseReport(child.stdout, `${bench.name} on ${backend}`);
    const why = child.stderr.trim().split("\n").at(-1) || `the process ended with ${child.signal ?? child.status}`;
    return {
      format: "fused-a2a-bench",
      version: 1,
      machine: describeMachine(version()),
      results: [],
      skipped: [{ case: bench.name, why }],
    };
  });
  return {
    ...reports[0],
    results: reports.flatMap((report) => report.results),
    skipped: reports.flatMap((report) => report.skipped),
  };
}

async function compare(files: readonly string[], json: boolean | undefined): Promise<void> {
  if (files.length !== 2) throw usage("files", "two results of bench --json", `${files.length}`);
  const [a, b] = await Promise.all(files.map(async (file) => parseReport(await readText(file), file)));
  const rows = compareTable(a, b);
  const [header, ...cells] = rows;
  const value = cells.map((row) => Object.fromEntries(header.map((name, i) => [name, row[i]])));
  printResult({ a: a.machine, b: b.machine, ratios: value }, () => table(rows), json);
}

async function readText(file: string): Promise<string> {
  return readFile(file, "utf8").catch((cause) => {
    throw usage("files", "a readable file", `${file} (${cause.code ?? cause})`);
  });
}

function describe({ machine }: BenchReport): string[] {
  const { cpu, cores, memoryGiB, node, version: ours, commit, load } = machine;
  return [
    `${cpu}, ${cores} cores, ${memoryGiB} GiB, node ${node}, fused-a2a ${ours} (${commit}), load ${load}`,
    ...Object.entries(DEFINITIONS).map(([name, text]) => `${name}: ${text}`),
  ];
}

function skippedLines({ skipped }: BenchReport): string[] {
  return skipped.map((one) => `not run: ${one.case}: ${one.why}`);
}

function usage(name: string, expected: string, received: string): InvalidArgument {
  return new InvalidArgument({ name, expected, received, remedy: "see fused-a2a bench --help" });
}
