/** What both entries, Node and browser, accept. */
export interface WebGpuOptions {
  /** Device memory that one operation may hold at a time; larger work is done in chunks. Default 1 GiB, at least 1 MiB. */
  readonly memoryBudgetBytes?: number;
  /** Invocations per workgroup of the row kernels; default by adapter. A power of two. */
  readonly workgroupSize?: number;
  /** Lowers the adapter's limits on buffers and bindings (bytes), so that chunking can be tried on small data. */
  readonly maxBufferBytes?: number;
  /** Called with every error that no operation caught: there should be none. */
  readonly onUncapturedError?: (message: string) => void;
}

export const DEFAULT_MEMORY_BUDGET = 2 ** 30;
export const LEAST_MEMORY_BUDGET = 2 ** 20;

/** Where the text of `kernels/NAME.wgsl` comes from: files in Node, bundled strings in the browser. */
export type KernelText = (name: string) => string;
