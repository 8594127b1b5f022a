/** The WebGPU backend in Node: package `webgpu` (Dawn), kernels read from the files beside this module. */
import { readFileSync } from "node:fs";
import { type AdapterChoice, adapterChoice, findAdapter } from "./adapters/finder.ts";
import { openBackend, type WebGpuBackend } from "./backend.ts";
import type { WebGpuOptions } from "./options.ts";

export { ADAPTER_CHOICES, ADAPTER_VARIABLE, type AdapterChoice, describeAdapters } from "./adapters/finder.ts";
export { type AdapterReport, adapterTitle } from "./adapters/report.ts";
export type { WebGpuBackend } from "./backend.ts";
export type { WebGpuOptions } from "./options.ts";

export interface NodeWebGpuOptions extends WebGpuOptions {
  /** Where the adapter comes from; default: environment variable FUSED_A2A_WEBGPU_ADAPTER, else "auto". */
  readonly adapter?: AdapterChoice;
}

/** Throws Unavailable when no adapter can be had, with the shortest way to get one. */
export async function createWebGpuBackend(options: NodeWebGpuOptions = {}): Promise<WebGpuBackend> {
  const { adapter, report } = await findAdapter(options.adapter ?? adapterChoice());
  return openBackend(adapter, report, readKernel, options);
}

function readKernel(name: string): string {
  return readFileSync(new URL(`./kernels/${name}.wgsl`, import.meta.url), "utf8");
}
