import { InvalidFile } from "../errors.ts";

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

/** Throws InvalidFile unless [offset, offset + length) lies inside a file of `size` bytes. */
export function checkRange(name: string, size: number, offset: number, length: number): void {
  if (offset >= 0 && length >= 0 && offset + length <= size) return;
  throw new InvalidFile({
    name: "file size",
    expected: `at least ${offset + length} bytes`,
    received: `${size}`,
    where: { file: name, offset },
    remedy: "the file is cut short: fetch or write it again",
  });
}

/** A source over bytes in memory. */
export function memorySource(bytes: Uint8Array, name = "memory"): ByteSource {
  return {
    name,
    size: bytes.byteLength,
    read: async (offset, length) => {
      checkRange(name, bytes.byteLength, offset, length);
      return bytes.subarray(offset, offset + length);
    },
    close: async () => {},
  };
}

/** A sink that keeps its bytes: `bytes()` is what was committed, null before that and after an abort. */
export interface MemorySink extends ByteSink {
  bytes(): Uint8Array | null;
}

export function memorySink(name = "memory"): MemorySink {
  let chunks: Uint8Array[] = [];
  let committed: Uint8Array | null = null;
  return {
    name,
    write: async (bytes) => {
      chunks.push(bytes.slice());
    },
    commit: async () => {
      const size = chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0);
      committed = new Uint8Array(size);
      let at = 0;
      for (const chunk of chunks) {
        committed.set(chunk, at);
        at += chunk.byteLength;
      }
      chunks = [];
    },
    abort: async () => {
      chunks = [];
    },
    bytes: () => committed,
  };
}

/** One read of a source; larger ranges are read in pieces, because Node refuses reads of 2 GiB and more. */
const PIECE_BYTES = 64 << 20;

/** Fills `target` from `offset` on: a copy, so that typed arrays may be laid over it whatever the file's alignment. */
export async function readInto(source: ByteSource, offset: number, target: Uint8Array): Promise<void> {
  checkRange(source.name, source.size, offset, target.byteLength);
  for (let at = 0; at < target.byteLength; at += PIECE_BYTES) {
    const length = Math.min(PIECE_BYTES, target.byteLength - at);
    target.set(await source.read(offset + at, length), at);
  }
}
