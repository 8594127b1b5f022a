import type { Backend, Group, GroupOptions } from "../../core/backend.ts";
import { InvalidArgument, Unavailable } from "../../core/errors.ts";
import { closeAll, type Operations, Turns } from "../../core/operations.ts";
import { type Tensor, tensor } from "../../core/tensor.ts";
import { Engine, type EngineOptions } from "./engine.ts";
import { WasmGroup } from "./group.ts";
import { sharedTensors, type TensorSpec } from "./outputs.ts";

export interface WasmOptions {
  /** Worker threads; default one per core. 0: everything on the calling thread, over ordinary memory. */
  readonly workers?: number;
  /** Cap on the shared memory of results, `allocate` and staging together; default none. */
  readonly maxMemoryBytes?: number;
  /** Operations and results of fewer bytes stay on the calling thread and in ordinary arrays; default 1 MiB. */
  readonly smallBytes?: number;
}

export function withDefaults({ maxMemoryBytes, smallBytes }: WasmOptions) {
  return { maxMemoryBytes: maxMemoryBytes ?? Number.POSITIVE_INFINITY, smallBytes: smallBytes ?? 1 << 20 };
}

export interface WasmBackend extends Backend {
  readonly numWorkers: number;
  /** Why there are fewer workers than asked for; null when there are not. */
  readonly note: string | null;
  /**
   * Tensors of undefined contents, side by side in memory that all workers read and write in place: as inputs they are not
   * copied, as `out` they are filled directly. Freed when the last view of them is garbage. Throws OutOfMemory.
   */
  allocate(specs: readonly TensorSpec[]): Tensor[];
}

export function checkWasmOptions({ workers, maxMemoryBytes }: WasmOptions): void {
  if (workers !== undefined && (!Number.isSafeInteger(workers) || workers < 0 || workers > 256)) {
    throw new InvalidArgument({
      name: "workers",
      expected: "a whole number of 0..256",
      received: `${workers}`,
      remedy: "leave it out for one per core",
    });
  }
  if (maxMemoryBytes !== undefined && !(maxMemoryBytes > 0)) {
    throw new InvalidArgument({
      name: "maxMemoryBytes",
      expected: "more than 0 bytes",
      received: `${maxMemoryBytes}`,
      remedy: "leave it out for no limit",
    });
  }
}

/** Compiles kernels; Unavailable names what the engine lacks. */
export async function compileKernels(bytes: BufferSource): Promise<WebAssembly.Module> {
  try {
    return await WebAssembly.compile(bytes);
  } catch (cause) {
    throw new Unavailable(`backend wasm: this engine cannot compile the kernels (WebAssembly SIMD): ${cause}`, {
      cause,
    });
  }
}

export class WasmBackendImpl implements WasmBackend {
  readonly name = "wasm";
  readonly note: string | null;
  readonly #engine: Engine;
  /** One engine: the groups share it. */
  readonly #turns = new Turns();
  readonly #groups = new Set<Operations>();

  constructor(options: EngineOptions, note: string | null) {
    this.#engine = new Engine(options);
    this.note = note;
  }

  get numWorkers(): number {
    return this.#engine.numWorkers;
  }

  async createGroup(options: GroupOptions): Promise<Group> {
    return new WasmGroup(this.#engine, this.#groups, this.#turns, options);
  }

  allocate(specs: readonly TensorSpec[]): Tensor[] {
    if (this.#engine.slabs === null) return specs.map(({ dtype, shape }) => tensor(dtype, shape));
    return sharedTensors(this.#engine.slabs, specs);
  }

  async close(): Promise<void> {
    await closeAll(this.#groups);
    await this.#engine.close();
  }
}
