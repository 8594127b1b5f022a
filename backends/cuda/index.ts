/** The CUDA backend: one process drives the GPUs of its host; `emulated` runs the same C++ and kernels on the CPU. */
import type { Backend, GroupOptions } from "../../core/backend.ts";
import { Unavailable } from "../../core/errors.ts";
import { checkGroupOptions } from "../../core/functions/validate.ts";
import { closeAll, type Operations } from "../../core/operations.ts";
import { native } from "./errors.ts";
import { CudaGroup } from "./group.ts";
import { joinGroup } from "./join.ts";
import { loadAddon } from "./loader.ts";
import type { NativeAddon, NativeEmulation } from "./native.ts";
import { type CudaOptions, checkCudaOptions, nativeGroupOptions } from "./options.ts";

export { type ClusterPlace, placeByHand, placeFromEnvironment } from "./cluster/index.ts";
export type { CudaCombineRequest } from "./combine.ts";
export type { CudaDispatchRequest } from "./dispatch.ts";
export { type CudaReport, describeCuda } from "./doctor.ts";
export { CudaEvent } from "./event.ts";
export { CudaGraph } from "./graph.ts";
export { CudaGroup } from "./group.ts";
export type { NativeEmulation, NativeMemory } from "./native.ts";
export type { BundleNotes, ClusterOptions, CudaOptions } from "./options.ts";
export { CudaTensor } from "./tensor.ts";

export interface CudaBackend extends Backend {
  readonly name: "cuda" | "cuda-emulated";
  createGroup(options: GroupOptions): Promise<CudaGroup>;
}

/** Throws Unavailable with the missing piece and how to get it, InvalidArgument for impossible options. */
export async function createCudaBackend(options: CudaOptions): Promise<CudaBackend> {
  checkCudaOptions(options);
  const addon = loadAddon(options.emulated ? "emulated" : "cuda");
  if (!options.emulated) await requireGpu(addon);
  return new CudaBackendImpl(addon, options);
}

async function requireGpu(addon: NativeAddon): Promise<void> {
  const driver = await native(() => addon.driver());
  if (driver.state !== 0) {
    throw new Unavailable(`backend cuda: ${driver.message}`);
  }
}

class CudaBackendImpl implements CudaBackend {
  readonly name: "cuda" | "cuda-emulated";
  readonly #addon: NativeAddon;
  readonly #options: CudaOptions;
  readonly #groups = new Set<Operations>();

  constructor(addon: NativeAddon, options: CudaOptions) {
    this.name = options.emulated ? "cuda-emulated" : "cuda";
    this.#addon = addon;
    this.#options = options;
  }

  async createGroup(options: GroupOptions): Promise<CudaGroup> {
    const { emulated, emulation, cluster } = this.#options;
    const settings: NativeEmulation | null = emulated ? { ...emulation } : null;
    if (cluster === undefined) return this.#alone(options, settings);
    return joinGroup(this.#addon, options, settings, { ...this.#options, cluster }, this.#groups);
  }

  async #alone(options: GroupOptions, settings: NativeEmulation | null): Promise<CudaGroup> {
    const given = nativeGroupOptions(checkGroupOptions(options, this.name), this.#options);
    const made = await native(() => this.#addon.groupCreate(given, settings));
    return new CudaGroup(this.name, this.#addon, made, given, this.#groups);
  }

  close(): Promise<void> {
    return closeAll(this.#groups);
  }
}
