/** One GPUDevice with its limits, and everything that can go wrong with it turned into the project's errors. */
import { BackendFailure, FusedA2AError, InvalidArgument, OutOfMemory } from "../../core/errors.ts";
import { Turns } from "../../core/operations.ts";
import type { AdapterDescription } from "./adapters/report.ts";
import { DEFAULT_MEMORY_BUDGET, LEAST_MEMORY_BUDGET, type WebGpuOptions } from "./options.ts";

/** SwiftShader really allocates 256 bytes less than the limit it reports. */
const ALLOCATION_SLACK = 256;

export class Device {
  readonly gpu: GPUDevice;
  readonly adapter: AdapterDescription;
  /** Largest buffer and largest binding, whichever is smaller: a multiple of 256. */
  readonly maxBufferBytes: number;
  readonly memoryBudgetBytes: number;
  /** Invocations per workgroup of row kernels (a power of two). */
  readonly workgroupSize: number;
  /** One operation at a time holds the memory. */
  readonly turns = new Turns();
  #failure: FusedA2AError | null = null;
  #closed = false;

  private constructor(gpu: GPUDevice, adapter: AdapterDescription, options: WebGpuOptions) {
    this.gpu = gpu;
    this.adapter = adapter;
    const { maxBufferSize, maxStorageBufferBindingSize } = gpu.limits;
    const largest = Math.min(maxBufferSize - ALLOCATION_SLACK, maxStorageBufferBindingSize);
    this.maxBufferBytes = Math.floor(Math.min(largest, options.maxBufferBytes ?? largest) / 256) * 256;
    this.memoryBudgetBytes = options.memoryBudgetBytes ?? DEFAULT_MEMORY_BUDGET;
    this.workgroupSize = options.workgroupSize ?? (adapter.isCpu ? 8 : 64);
    gpu.onuncapturederror = ({ error }) => {
      this.#failure ??= asFailure("webgpu device", error);
      options.onUncapturedError?.(error.message);
    };
    gpu.lost.then(({ reason, message }) => {
      if (this.#closed) return;
      this.#failure = lostError(reason, message);
    });
  }

  static async open(adapter: GPUAdapter, description: AdapterDescription, options: WebGpuOptions): Promise<Device> {
    checkOptions(options);
    const { limits } = adapter;
    const requiredLimits = {
      maxBufferSize: limits.maxBufferSize,
      maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
    };
    try {
      return new Device(await adapter.requestDevice({ requiredLimits }), description, options);
    } catch (error) {
      throw asFailure("webgpu device", error);
    }
  }

  expectUsable(): void {
    if (this.#failure !== null) throw this.#failure;
    if (this.#closed) throw closedError();
  }

  /**
   * Runs `work`, which must be synchronous (error scopes are a stack of the device), and resolves when the device says
   * that nothing in it was wrong. `what` names the kernel or buffer in the error.
   */
  guard<T>(what: string, work: () => T): { value: T; checked: Promise<void> } {
    this.expectUsable();
    const kinds: GPUErrorFilter[] = ["validation", "out-of-memory", "internal"];
    for (const kind of kinds) this.gpu.pushErrorScope(kind);
    let value: T;
    let scopes: Promise<GPUError | null>[] = [];
    try {
      value = work();
    } finally {
      scopes = kinds.map(() => this.gpu.popErrorScope());
      for (const scope of scopes) scope.catch(() => {});
    }
    const checked = Promise.all(scopes).then(
      (errors) => {
        const error = errors.find((found) => found !== null);
        if (error) throw asFailure(what, error);
      },
      (error) => {
        throw this.#failure ?? asFailure(what, error);
      },
    );
    checked.catch(() => {});
    return { value, checked };
  }

  /** The error behind a rejected promise of the device: its loss where that is the reason. */
  async explain(what: string, error: unknown): Promise<FusedA2AError> {
    if (error instanceof FusedA2AError) return error;
    // A lost device rejects mapAsync before `lost` resolves.
    await Promise.race([this.gpu.lost, new Promise((resolve) => setTimeout(resolve, 0))]);
    return this.#failure ?? (this.#closed ? closedError() : asFailure(what, error));
  }

  /** Waits for the operations given so far, then frees the device. */
  async close(): Promise<void> {
    await this.turns.take(async () => {
      this.#closed = true;
      this.gpu.destroy();
    });
  }
}

/** GPUError or exception -> error of the project. */
export function asFailure(what: string, error: unknown): FusedA2AError {
  if (error instanceof FusedA2AError) return error;
  const message = (error as { message?: string })?.message ?? String(error);
  const kind = (error as object)?.constructor?.name ?? "";
  if (kind === "GPUOutOfMemoryError" || /out of memory|OutOfMemory|allocation (size|failed)/i.test(message)) {
    return new OutOfMemory(`${what}: the device is out of memory (${firstLine(message)}); lower memoryBudgetBytes`);
  }
  return new BackendFailure(`${what}: ${firstLine(message)}`);
}

function firstLine(message: string): string {
  return message.split("\n")[0];
}

function closedError(): BackendFailure {
  return new BackendFailure("webgpu device: closed; create a new backend");
}

function lostError(reason: string, message: string): BackendFailure {
  return new BackendFailure(`webgpu device: lost (${reason}: ${firstLine(message)}); create a new backend`);
}

function checkOptions(options: WebGpuOptions): void {
  const least = (name: "memoryBudgetBytes" | "maxBufferBytes" | "workgroupSize", value: number) => {
    const given = options[name];
    if (given === undefined || (Number.isSafeInteger(given) && given >= value)) return;
    throw new InvalidArgument({
      name,
      expected: `a whole number of at least ${value}`,
      received: `${given}`,
      remedy: "leave it out for the default",
    });
  };
  least("memoryBudgetBytes", LEAST_MEMORY_BUDGET);
  least("maxBufferBytes", 4096);
  least("workgroupSize", 1);
  const size = options.workgroupSize ?? 1;
  if ((size & (size - 1)) !== 0 || size > 256) {
    throw new InvalidArgument({
      name: "workgroupSize",
      expected: "a power of two up to 256",
      received: `${size}`,
      remedy: "leave it out for the default",
    });
  }
}
