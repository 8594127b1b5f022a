/**
 * Finds an adapter with no root and no questions: the system's own drivers (a real GPU, or lavapipe where Dawn accepts
 * it), else SwiftShader from an installed Chromium-family browser, else SwiftShader from an npm package.
 */
import { existsSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { Unavailable } from "../../../core/errors.ts";
import { candidateFolders, hasSwiftShader } from "./folders.ts";
import { SWIFTSHADER_PACKAGE, unpackSwiftShader } from "./package.ts";
import { type AdapterAttempt, type AdapterReport, adapterTitle, describeAdapter } from "./report.ts";

/** Which source to use; "auto" tries them in order. */
export type AdapterChoice = "auto" | "system" | "chromium" | "npm";
export const ADAPTER_CHOICES: readonly AdapterChoice[] = ["auto", "system", "chromium", "npm"];
/** Environment variable with an AdapterChoice. */
export const ADAPTER_VARIABLE = "FUSED_A2A_WEBGPU_ADAPTER";

const DRIVER_VARIABLES = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] as const;
/** Not in os.constants.dlopen; keeps a library mapped after Node gives up on it. */
const RTLD_NODELETE = 0x1000;

export interface FoundAdapter {
  readonly adapter: GPUAdapter;
  readonly report: AdapterReport;
}

interface Source {
  readonly name: "system" | "chromium" | "npm";
  readonly detail: string;
  /** Folder of SwiftShader, null for the system's drivers. */
  readonly folder: string | null;
  /** Set when there is nothing to try. */
  readonly absent: string | null;
}

/** What decides which drivers an instance sees: an instance keeps those it started with. */
function driversOf(source: Source): string {
  return JSON.stringify([source.name, source.folder, ...DRIVER_VARIABLES.map((name) => process.env[name])]);
}

/**
 * Every object that `create()` returned, for the life of the process: a GPUDevice does not keep it alive, and when it is
 * collected the next asynchronous call crashes or never returns.
 */
const instances: GPU[] = [];
/** Why a source had nothing, by its drivers: not asked again, as Dawn warns on stderr every time. */
const silent = new Map<string, string>();
/** The instance that answered last time, for the next device on the same drivers. */
let answered: { gpu: GPU; drivers: string } | null = null;

export async function findAdapter(choice: AdapterChoice = "auto"): Promise<FoundAdapter> {
  const { adapter, report } = await search(choice);
  if (adapter !== null) return { adapter, report };
  const tried = report.attempts.map(({ detail, reason }) => `${detail}: ${reason}`).join("; ");
  throw new Unavailable({
    name: "webgpu adapter",
    expected: "a GPU, or SwiftShader or lavapipe to stand in for one",
    received: `none (${tried})`,
    remedy: report.remedy ?? "",
  });
}

/** What was tried, in order, what was chosen and why the others were not; never throws for want of an adapter. */
export async function describeAdapters(choice: AdapterChoice = adapterChoice()): Promise<AdapterReport> {
  return (await search(choice)).report;
}

/** The source named in the environment, or "auto". */
export function adapterChoice(): AdapterChoice {
  const value = process.env[ADAPTER_VARIABLE] ?? "auto";
  if ((ADAPTER_CHOICES as readonly string[]).includes(value)) return value as AdapterChoice;
  throw new Unavailable({
    name: ADAPTER_VARIABLE,
    expected: ADAPTER_CHOICES.join(", "),
    received: value,
    remedy: "unset it or use one of these",
  });
}

async function search(choice: AdapterChoice): Promise<{ adapter: GPUAdapter | null; report: AdapterReport }> {
  const attempts: AdapterAttempt[] = [];
  let chosen: GPUAdapter | null = null;
  let report: AdapterReport["chosen"] = null;
  for (const source of sources(choice)) {
    const { name, detail } = source;
    if (chosen !== null) {
      attempts.push({ source: name, detail, outcome: "not tried", reason: "an earlier source answered" });
    } else if (source.absent !== null) {
      attempts.push({ source: name, detail, outcome: "absent", reason: source.absent });
    } else {
      const answer = await ask(source);
      if (typeof answer === "string") {
        attempts.push({ source: name, detail, outcome: "no adapter", reason: answer });
      } else {
        chosen = answer;
        report = describeAdapter(name, answer);
        attempts.push({ source: name, detail, outcome: "chosen", reason: adapterTitle(report) });
      }
    }
  }
  return { adapter: chosen, report: { attempts, chosen: report, remedy: chosen === null ? remedy(choice) : null } };
}

function* sources(choice: AdapterChoice): Generator<Source> {
  const wanted = (name: AdapterChoice) => choice === "auto" || choice === name;
  const set = DRIVER_VARIABLES.filter((name) => process.env[name]);
  if (wanted("system")) {
    const detail = set.length > 0 ? `drivers of ${set.join(" and ")}` : "the system's own GPU drivers";
    const source: Source = { name: "system", detail, folder: null, absent: null };
    const drivers = driversOf(source);
    // Looked for once: our own loader stays mapped and would be found next time.
    if (!silent.has(drivers) && answered?.drivers !== drivers && !hasVulkanLoader()) {
      silent.set(drivers, "no Vulkan loader (libvulkan.so.1) installed");
    }
    yield source;
  }
  if (process.platform !== "linux") return;
  // A user's choice of drivers is respected: ours would replace it.
  const fixed = set.length > 0 ? `${set.join(" and ")} is set, which this would override` : null;
  if (wanted("chromium")) {
    const folders = candidateFolders().filter(hasSwiftShader);
    if (folders.length === 0) {
      const absent = fixed ?? "no libvk_swiftshader.so in the usual folders";
      yield { name: "chromium", detail: "SwiftShader of an installed browser", folder: null, absent };
    }
    for (const folder of folders) yield { name: "chromium", detail: `SwiftShader in ${folder}`, folder, absent: fixed };
  }
  if (wanted("npm")) yield packageSource(fixed);
}

function packageSource(fixed: string | null): Source {
  const source = { name: "npm", detail: `SwiftShader of npm package ${SWIFTSHADER_PACKAGE}`, folder: null } as const;
  if (fixed !== null) return { ...source, absent: fixed };
  if (process.arch !== "x64") return { ...source, absent: `it holds x64 programs only, this is ${process.arch}` };
  try {
    const folder = unpackSwiftShader();
    return { ...source, folder, absent: folder === null ? "not installed" : null };
  } catch (error) {
    return { ...source, absent: `could not be unpacked: ${(error as Error).message}` };
  }
}

/** An adapter of the source, or the reason why there is none. */
async function ask(source: Source): Promise<GPUAdapter | string> {
  let webgpu: typeof import("webgpu");
  try {
    webgpu = await import("webgpu");
  } catch (error) {
    return `the webgpu package cannot be loaded here (${firstLine(error)})`;
  }
  const drivers = driversOf(source);
  const known = silent.get(drivers);
  if (known !== undefined) return known;
  const same = answered !== null && answered.drivers === drivers;
  const restore = source.folder === null ? () => {} : useDrivers(source.folder);
  try {
    const gpu = same && answered !== null ? answered.gpu : webgpu.create([]);
    if (!same) instances.push(gpu);
    const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    if (adapter === null) {
      const reason = source.folder === null ? "no driver that Dawn accepts" : "the driver did not load";
      silent.set(drivers, reason);
      return reason;
    }
    answered = { gpu, drivers };
    return adapter;
  } catch (error) {
    return firstLine(error);
  } finally {
    restore();
  }
}

/** Points the Vulkan loader at SwiftShader and makes a loader available; returns what undoes the former. */
function useDrivers(folder: string): () => void {
  const before = [...DRIVER_VARIABLES, "NODEVICE_SELECT"].map((name) => [name, process.env[name]] as const);
  for (const name of DRIVER_VARIABLES) process.env[name] = join(folder, "vk_swiftshader_icd.json");
  // Mesa's device-select layer otherwise complains about XDG_RUNTIME_DIR on stderr.
  process.env.NODEVICE_SELECT = "1";
  const loader = join(folder, "libvulkan.so.1");
  if (existsSync(loader)) {
    try {
      process.dlopen({ exports: {} }, loader, constants.dlopen.RTLD_NOW | RTLD_NODELETE);
    } catch {
      // It is no addon, so Node refuses it; but it stays mapped, and Dawn's dlopen finds it by its SONAME.
    }
  }
  return () => {
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  };
}

/** Whether Dawn can load a Vulkan loader; asking it without one prints warnings that the report says better. */
function hasVulkanLoader(): boolean {
  if (process.platform !== "linux") return true;
  if (existsSync(join(dirname(process.execPath), "libvulkan.so.1"))) return true;
  try {
    process.dlopen({ exports: {} }, "libvulkan.so.1", constants.dlopen.RTLD_NOW);
    return true;
  } catch (error) {
    return !firstLine(error).includes("cannot open shared object file");
  }
}

function remedy(choice: AdapterChoice): string {
  if (choice !== "auto") return `choose another source (${ADAPTER_VARIABLE}=auto)`;
  if (DRIVER_VARIABLES.some((name) => process.env[name])) return `unset ${DRIVER_VARIABLES.join(" and ")}`;
  if (process.platform !== "linux") return "update the graphics driver";
  if (process.arch === "x64") return `npm install ${SWIFTSHADER_PACKAGE}@147.0.0 (no root needed)`;
  return "install Chromium (Debian: apt-get install chromium)";
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0];
}
