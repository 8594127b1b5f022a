import { availableParallelism, totalmem } from "node:os";
import { Command } from "commander";
import { BACKEND_NAMES, createBackend } from "../backends/index.ts";
import type { BackendName } from "../core/backend.ts";
import { FusedA2AError } from "../core/errors.ts";
import { formatBytes, printResult, table } from "./output.ts";
import { version } from "./version.ts";

interface Diagnosis {
  readonly backend: BackendName;
  readonly runs: boolean;
  /** What it runs on, or the missing piece and how to get it. */
  readonly detail: string;
  /** What was looked at, in order. */
  readonly tried: readonly string[];
}

export function doctor(): Command {
  return new Command("doctor")
    .description("what can run here, what is missing, how to get it")
    .option("--json", "print the report as JSON")
    .addHelpText("after", "\nExit code 1 when no backend but the oracle runs.")
    .action(runDoctor);
}

async function runDoctor(options: { json?: boolean }): Promise<void> {
  const machine = {
    version: version(),
    node: process.versions.node,
    platform: `${process.platform} ${process.arch}`,
    cores: availableParallelism(),
    memoryBytes: totalmem(),
  };
  const backends: Diagnosis[] = [];
  for (const name of BACKEND_NAMES) backends.push(await diagnose(name));
  printResult({ machine, backends }, () => describe(machine, backends), options.json);
  if (!backends.some((one) => one.runs && one.backend !== "oracle")) process.exitCode = 1;
}

async function diagnose(backend: BackendName): Promise<Diagnosis> {
  const about = await DETAILS[backend]().catch((error: Error) => ({ detail: error.message, tried: [] }));
  try {
    await (await createBackend(backend)).close();
    return { backend, runs: true, ...about };
  } catch (error) {
    // A broken driver or build is this command's subject, so any error is an answer here.
    const detail = error instanceof FusedA2AError ? error.message : `unexpected: ${(error as Error).message}`;
    return { backend, runs: false, detail, tried: about.tried };
  }
}

type About = Pick<Diagnosis, "detail" | "tried">;

const DETAILS: Record<BackendName, () => Promise<About>> = {
  oracle: async () => ({ detail: "TypeScript, runs anywhere; obvious rather than fast", tried: [] }),
  wasm: async () => ({
    detail: `WebAssembly SIMD on ${availableParallelism()} worker threads`,
    tried: [],
  }),
  webgpu: async () => {
    const { adapterTitle, describeAdapters } = await import("../backends/webgpu/index.ts");
    const report = await describeAdapters();
    return {
      detail: report.chosen === null ? (report.remedy ?? "no adapter") : adapterTitle(report.chosen),
      tried: report.attempts.map((one) => `${one.source} (${one.detail}): ${one.outcome}; ${one.reason}`),
    };
  },
  cuda: () => cuda("cuda"),
  "cuda-emulated": async () => {
    const { detail, tried } = await cuda("emulated");
    return { detail: `the CUDA backend's C++ and kernels on the CPU, for tests: ${detail}`, tried };
  },
};

async function cuda(variant: "cuda" | "emulated"): Promise<About> {
  const { cudaLines, describeCuda } = await import("../backends/cuda/doctor.ts");
  const report = await describeCuda(variant);
  return { detail: report.summary, tried: cudaLines(report) };
}

function describe(machine: Record<string, string | number>, backends: readonly Diagnosis[]): string {
  const memory = formatBytes(machine.memoryBytes as number);
  const lines = [
    `fused-a2a ${machine.version}, Node ${machine.node}, ${machine.platform}, ${machine.cores} cores, ${memory}`,
    table([
      ["backend", "runs", "detail"],
      ...backends.map((one) => [one.backend, one.runs ? "yes" : "no", one.detail]),
    ]),
  ];
  for (const { backend, tried } of backends.filter((one) => one.tried.length > 0)) {
    lines.push(`${backend} looked at:`, ...tried.map((attempt, i) => `  ${i + 1}. ${attempt}`));
  }
  return lines.join("\n");
}
