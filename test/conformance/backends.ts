/** The backends under test. One that cannot run here is a visible skip with its reason. */
import { createBackend } from "../../backends/index.ts";
import type { Backend, GroupOptions } from "../../core/backend.ts";
import { Unavailable } from "../../core/errors.ts";
import { type Parts, type PerProcess, splitBackend, unsplittable } from "./split/backend.ts";
import { localParts } from "./split/local.ts";
import { remoteParts } from "./split/remote.ts";

export interface Candidate {
  readonly name: string;
  open(): Promise<Backend>;
  /** Why it has nothing to do for groups of this shape, or null. */
  skips?(shape: Pick<GroupOptions, "numRanks" | "ranksPerNode">): string | null;
}

const named = (name: string, label = name, options = {}): Candidate => ({
  name: label,
  open: () => createBackend(name, options),
});

/** wasm with and without workers; `smallBytes: 0` sends even these small cases to them. */
const wasm = (workers: number): Candidate => ({
  name: workers === 0 ? "wasm on the calling thread" : `wasm, workers: ${workers}`,
  open: async () => (await import("../../backends/wasm/index.ts")).createWasmBackend({ workers, smallBytes: 0 }),
});

/** webgpu as it finds its adapter; test/webgpu/conformance.sweep.test.ts has the other adapters and small buffers. */
const webgpu: Candidate = {
  name: "webgpu",
  open: async () =>
    (await import("../../backends/webgpu/index.ts")).createWebGpuBackend({
      onUncapturedError: (message) => {
        throw new Error(`uncaptured WebGPU error: ${message}`);
      },
    }),
};

/** The CUDA library on the CPU: ranks spread over that many emulated devices, several of them on one. */
const emulated = (devices: number, combinePath: "push" | "pull" = "push"): Candidate => ({
  name: `cuda-emulated, devices: ${devices}${combinePath === "pull" ? ", combine pulls" : ""}`,
  open: async () =>
    (await import("../../backends/cuda/index.ts")).createCudaBackend({ emulated: true, devices, combinePath }),
});

export const CANDIDATES: readonly Candidate[] = [
  named("oracle"),
  wasm(0),
  wasm(1),
  wasm(2),
  wasm(8),
  webgpu,
  emulated(1),
  emulated(2),
  emulated(4),
  emulated(8),
  emulated(8, "pull"),
  named("cuda"),
];

/** The CUDA library on the CPU, one group over several processes that meet over 127.0.0.1 and a stand-in for NCCL. */
const split = (name: string, per: PerProcess, parts: () => Parts): Candidate => ({
  name: `cuda-emulated, ${name} per ${per}`,
  open: async () => splitBackend(per, parts(), await createBackend("cuda-emulated")),
  skips: (shape) => unsplittable(per, shape),
});

/** Several hosts' parts of each group in this process. */
export const SPLIT_CANDIDATES: readonly Candidate[] = [
  split("a part", "node", localParts),
  split("a part", "rank", localParts),
];

/** The same in processes of their own, from dist/. */
export const PROCESS_CANDIDATES: readonly Candidate[] = [
  split("a process", "node", () => remoteParts()),
  split("a process", "rank", () => remoteParts()),
  onGpus("node"),
  onGpus("rank"),
];

/** Real processes over the real NCCL; they may share one GPU. */
function onGpus(per: PerProcess): Candidate {
  return {
    name: `cuda, a process per ${per}`,
    open: async () => {
      const whole = await createBackend("cuda");
      const { nccl } = await (await import("../../backends/cuda/index.ts")).describeCuda();
      if (nccl?.found !== true) throw new Unavailable(`NCCL not found: ${nccl?.tried ?? "no native addon"}`);
      return splitBackend(per, remoteParts({ emulated: false }), whole);
    },
    skips: (shape) => unsplittable(per, shape),
  };
}

/** The backend, or the reason why it cannot run here. */
export async function tryOpen(candidate: Candidate): Promise<Backend | string> {
  try {
    return await candidate.open();
  } catch (error) {
    if (error instanceof Unavailable) return error.message;
    throw error;
  }
}
