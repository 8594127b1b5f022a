/**
 * Where bytes come from and go to, so that formats know neither Node nor the browser. Sources read ranges, so that files
 * larger than memory are read lazily; sinks append, so that files larger than memory are written as they are made.
 */
export interface ByteSource {
  /** Shown in errors: a path or a URL. */
  readonly name: string;
  readonly size: number;
  /** Exactly `length` bytes from `offset`; rejects with InvalidFile past the end. */
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** An output that becomes visible only when `commit` is called: a failure leaves no partial file behind. */
export interface ByteSink {
  readonly name: string;
  write(bytes: Uint8Array): Promise<void>;
  commit(): Promise<void>;
  /** Throws the output away. */
  abort(): Promise<void>;
}

/** A source over bytes in memory. */
export function memorySource(bytes: Uint8Array, name = "memory"): ByteSource {
  return {
    name,
    size: bytes.byteLength,
    read: async (offset, length) => bytes.subarray(offset, offset + length),
    close: async () => {},
  };
}
