/** The CUDA backend: one process drives the GPUs of its host; `emulated` runs the same C++ and kernels on the CPU. */
import type { Backend, Group, GroupOptions } from "../../core/backend.ts";
import { Unavailable } from "../../core/errors.ts";
import { checkGroupOptions } from "../../core/functions/validate.ts";
import { FailureBundles } from "./bundle.ts";
import { meet } from "./cluster/index.ts";
import { native } from "./errors.ts";
import { CudaGroup } from "./group.ts";
import { ClusterLink, type ClusterOptions, DEFAULT_TIMEOUT_MS, ranksOfProcess } from "./link.ts";
import { ABI_VERSION, loadAddon } from "./loader.ts";
import type { NativeAddon, NativeEmulation } from "./native.ts";
import { type CudaOptions, checkCudaOptions, nativeGroupOptions } from "./options.ts";

export type { BundleNotes } from "./bundle.ts";
export { type ClusterPlace, placeByHand, placeFromEnvironment } from "./cluster/index.ts";
export type { CudaCombineRequest } from "./combine.ts";
export type { CudaDispatchRequest } from "./dispatch.ts";
export { type CudaReport, describeCuda } from "./doctor.ts";
export { CudaEvent } from "./event.ts";
export { CudaGraph } from "./graph.ts";
export { CudaGroup } from "./group.ts";
export type { ClusterOptions } from "./link.ts";
export type { NativeEmulation, NativeMemory } from "./native.ts";
export type { CudaOptions } from "./options.ts";
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
  readonly #groups = new Set<Group>();

  constructor(addon: NativeAddon, options: CudaOptions) {
    this.name = options.emulated ? "cuda-emulated" : "cuda";
    this.#addon = addon;
    this.#options = options;
  }

  async createGroup(options: GroupOptions): Promise<CudaGroup> {
    const { emulated, emulation, cluster } = this.#options;
    const settings: NativeEmulation | null = emulated ? { ...emulation } : null;
    const group =
      cluster === undefined ? await this.#alone(options, settings) : await this.#together(options, settings, cluster);
    this.#groups.add(group);
    return group;
  }

  async #alone(options: GroupOptions, settings: NativeEmulation | null): Promise<CudaGroup> {
    const given = nativeGroupOptions(checkGroupOptions(options, this.name), this.#options);
    const made = await native(() => this.#addon.groupCreate(given, settings));
    return new CudaGroup(this.name, this.#addon, made, given);
  }

  /** Meets the other processes, then makes this process's part of the group. */
  async #together(
    options: GroupOptions,
    settings: NativeEmulation | null,
    cluster: ClusterOptions,
  ): Promise<CudaGroup> {
    const { place, secret, bind, timeoutMs = DEFAULT_TIMEOUT_MS, deadlineMs = DEFAULT_TIMEOUT_MS } = cluster;
    const localRanks = options.localRanks ?? ranksOfProcess(place, options.numRanks);
    const checked = checkGroupOptions({ ranksPerNode: localRanks.length, ...options, localRanks });
    const { numRanks, ranksPerNode } = checked;
    const meeting = await meet({
      place,
      secret,
      bind,
      timeoutMs,
      contract: { backend: this.name, interface: ABI_VERSION, numRanks, ranksPerNode },
      payload: async () =>
        Buffer.from(await native(() => this.#addon.networkId(numRanks, ranksPerNode, localRanks.length))).toString(
          "base64",
        ),
    });
    const given = {
      ...nativeGroupOptions(checked, { ...this.#options, deadlineMs }),
      networkId: new Uint8Array(Buffer.from(meeting.payload, "base64")),
    };
    const made = await native(() => this.#addon.groupCreate(given, settings)).catch((error) => {
      for (const channel of meeting.channels.values()) channel.end();
      throw error;
    });
    const link = new ClusterLink(place, meeting, deadlineMs, () => {
      // What waits for the others ends; the memory goes back. Both may find the group closed already.
      void native(() => this.#addon.groupAbort(made))
        .then(() => native(() => this.#addon.groupRelease(made)))
        .catch(() => {});
    });
    if (cluster.bundleDir !== undefined) link.bundles = FailureBundles.of(cluster, meeting.payload);
    return new CudaGroup(this.name, this.#addon, made, given, link);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#groups].map((group) => group.close()));
  }
}
