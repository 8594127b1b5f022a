/** How an adapter was found: what `doctor` prints and what the error without an adapter is made of. */

/** Where an adapter may come from, in the order they are tried. */
export type AdapterSourceName = "system" | "chromium" | "npm" | "browser";

export interface AdapterAttempt {
  readonly source: AdapterSourceName;
  /** What was asked, for people: a folder, a package, "the system's Vulkan drivers". */
  readonly detail: string;
  readonly outcome: "chosen" | "no adapter" | "absent" | "not tried";
  /** Why it was not chosen, or what it is. */
  readonly reason: string;
}

export interface AdapterReport {
  readonly attempts: readonly AdapterAttempt[];
  readonly chosen: AdapterDescription | null;
  /** The shortest way to an adapter on this machine; null when there is one. */
  readonly remedy: string | null;
}

export interface AdapterDescription {
  readonly source: AdapterSourceName;
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  /** A CPU pretends to be a GPU (SwiftShader, lavapipe). */
  readonly isCpu: boolean;
  readonly maxBufferBytes: number;
  readonly maxBindingBytes: number;
}

export function describeAdapter(source: AdapterSourceName, adapter: GPUAdapter): AdapterDescription {
  const { info, limits } = adapter;
  return {
    source,
    vendor: info.vendor,
    architecture: info.architecture,
    device: info.device,
    description: info.description,
    isCpu: info.isFallbackAdapter,
    maxBufferBytes: limits.maxBufferSize,
    maxBindingBytes: limits.maxStorageBufferBindingSize,
  };
}

/** One line: "SwiftShader Device (LLVM 10.0.0) from chromium". */
export function adapterTitle(adapter: AdapterDescription): string {
  const name = adapter.description || adapter.device || adapter.architecture || adapter.vendor || "unnamed adapter";
  return `${name}${adapter.isCpu ? " (on the CPU)" : ""}, source ${adapter.source}`;
}
