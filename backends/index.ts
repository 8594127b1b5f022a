/**
 * The package entry: everything of the core, and backends by name. Each backend is loaded on first use, so that nobody
 * pays for one they do not run.
 */
export * from "../core/index.ts";

import type { Backend, BackendName, Group, GroupOptions } from "../core/backend.ts";
import { InvalidArgument } from "../core/errors.ts";
import { createOracleBackend } from "../core/oracle/group.ts";
import type { ClusterOptions } from "./cuda/options.ts";

export interface BackendOptions {
  /** wasm: worker threads; default one per core. */
  readonly workers?: number;
  /** webgpu: bytes of device memory that one operation may hold at a time; larger work is done in chunks. */
  readonly memoryBudgetBytes?: number;
  /** cuda, cuda-emulated: how many devices the ranks are spread over, in blocks; default all there are. */
  readonly devices?: number;
  /** cuda, cuda-emulated: this process is one of several that make up each group (docs/clusters.md). */
  readonly cluster?: ClusterOptions;
}

const LOADERS: Record<BackendName, (options: BackendOptions) => Promise<Backend>> = {
  oracle: async () => createOracleBackend(),
  wasm: async (options) => (await import("./wasm/index.ts")).createWasmBackend(options),
  webgpu: async (options) => (await import("./webgpu/index.ts")).createWebGpuBackend(options),
  cuda: async ({ devices, cluster }) =>
    (await import("./cuda/index.ts")).createCudaBackend({ emulated: false, devices, cluster }),
  "cuda-emulated": async ({ devices, cluster }) =>
    (await import("./cuda/index.ts")).createCudaBackend({ emulated: true, devices, cluster }),
};

export const BACKEND_NAMES = Object.keys(LOADERS) as BackendName[];

/** Other names that are accepted. */
const ALIASES: Record<string, BackendName> = { cpu: "wasm" };

/** The backend's name, or its alias's. Throws InvalidArgument listing the names. */
export function backendName(name: string): BackendName {
  const found = ALIASES[name] ?? BACKEND_NAMES.find((known) => known === name);
  if (found !== undefined) return found;
  throw new InvalidArgument({
    name: "backend",
    expected: [...BACKEND_NAMES, ...Object.keys(ALIASES)].join(", "),
    received: name,
    remedy: "choose one of them; `fused-a2a doctor` says which can run here",
  });
}

/** Opens a backend. Throws Unavailable with the missing piece when it cannot run here. */
export async function createBackend(name: string, options: BackendOptions = {}): Promise<Backend> {
  return LOADERS[backendName(name)](options);
}

/** A group on a backend of its own, which closes with the group: `createGroup({ backend: "wasm", ranks: 8 })`. */
export async function createGroup(
  options: { readonly backend: string; readonly ranks: number } & Omit<GroupOptions, "numRanks"> & BackendOptions,
): Promise<Group> {
  const { backend: name, ranks, ranksPerNode, localRanks, ...rest } = options;
  const backend = await createBackend(name, rest);
  const group = await backend.createGroup({ numRanks: ranks, ranksPerNode, localRanks }).catch(async (error) => {
    await backend.close();
    throw error;
  });
  const closeGroup = group.close.bind(group);
  let closed: Promise<void> | null = null;
  group.close = () => {
    closed ??= closeGroup().then(() => backend.close());
    return closed;
  };
  return group;
}
