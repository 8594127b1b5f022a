import { type DType, elementBytes } from "../../dtype/dtype.ts";
import { InvalidArgument } from "../../errors.ts";
import { bytesOf, numElements, type Tensor } from "../../tensor.ts";
import { type ByteSink, memorySink } from "../bytes.ts";
import { encodeText } from "../text.ts";
import { FILE_OF_DTYPE } from "./dtypes.ts";
import { MAX_HEADER_BYTES } from "./header.ts";

/**
 * A tensor to write: one in memory, or its sizes and a function that makes its bytes chunk by chunk when its turn comes
 * (chunks of any size that add up to the tensor).
 */
export type SafetensorsEntry =
  | { readonly name: string; readonly tensor: Tensor }
  | {
      readonly name: string;
      readonly dtype: DType;
      readonly shape: readonly number[];
      readonly chunks: () => Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
    };

/**
 * Writes a safetensors file and commits the sink; on any failure the sink is aborted and the error goes on. The same input
 * gives the same bytes: metadata sorted by key, tensors by descending element size and then name (as the reference
 * implementation does: with the header padded to 8 bytes every tensor is aligned to its element).
 * Errors: InvalidArgument for a name that comes twice, a reserved name, or chunks that do not add up.
 */
export async function writeSafetensors(
  sink: ByteSink,
  metadata: Readonly<Record<string, string>>,
  entries: readonly SafetensorsEntry[],
): Promise<void> {
  try {
    const parts = [...entries].map(toPart).sort((a, b) => b.elementBytes - a.elementBytes || compare(a.name, b.name));
    await sink.write(encodeHeader(metadata, parts));
    for (const part of parts) await writePart(sink, part);
    await sink.commit();
  } catch (error) {
    await sink.abort();
    throw error;
  }
}

/** The bytes of a small safetensors file. */
export async function safetensorsBytes(
  metadata: Readonly<Record<string, string>>,
  entries: readonly SafetensorsEntry[],
): Promise<Uint8Array> {
  const sink = memorySink();
  await writeSafetensors(sink, metadata, entries);
  return sink.bytes() ?? new Uint8Array(0);
}

interface Part {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly elementBytes: number;
  readonly bytes: number;
  readonly chunks: () => Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
}

function toPart(entry: SafetensorsEntry): Part {
  const { dtype, shape } = "tensor" in entry ? entry.tensor : entry;
  const chunks = "tensor" in entry ? () => [bytesOf(entry.tensor)] : entry.chunks;
  const bytes = numElements(shape) * elementBytes(dtype);
  return { name: entry.name, dtype, shape, elementBytes: elementBytes(dtype), bytes, chunks };
}

function encodeHeader(metadata: Readonly<Record<string, string>>, parts: readonly Part[]): Uint8Array {
  const members: string[] = [];
  const keys = Object.keys(metadata).sort(compare);
  if (keys.length > 0) {
    const pairs = keys.map((key) => `${JSON.stringify(key)}:${JSON.stringify(metadata[key])}`);
    members.push(`"__metadata__":{${pairs.join(",")}}`);
  }
  const names = new Set<string>();
  let offset = 0;
  for (const { name, dtype, shape, bytes } of parts) {
    if (names.has(name) || name === "__metadata__") {
      throw invalid(`tensor ${name}`, "each name once, none __metadata__", `${name}`, "rename the tensor");
    }
    names.add(name);
    const value = { dtype: FILE_OF_DTYPE[dtype], shape, data_offsets: [offset, offset + bytes] };
    members.push(`${JSON.stringify(name)}:${JSON.stringify(value)}`);
    offset += bytes;
  }
  const json = encodeText(`{${members.join(",")}}`);
  const length = Math.ceil(json.byteLength / 8) * 8;
  if (length > MAX_HEADER_BYTES) {
    throw invalid("header", `at most ${MAX_HEADER_BYTES} bytes`, `${length}`, "write fewer tensors or less metadata");
  }
  const header = new Uint8Array(8 + length).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(length), true);
  header.set(json, 8);
  return header;
}

async function writePart(sink: ByteSink, part: Part): Promise<void> {
  let written = 0;
  for await (const chunk of part.chunks()) {
    written += chunk.byteLength;
    if (written > part.bytes) break;
    if (chunk.byteLength > 0) await sink.write(chunk);
  }
  if (written === part.bytes) return;
  const received = `${written > part.bytes ? "more" : written}`;
  throw invalid(`tensor ${part.name}`, `chunks of ${part.bytes} bytes in all`, received, "produce every row once");
}

function invalid(name: string, expected: string, received: string, remedy: string): InvalidArgument {
  return new InvalidArgument({ name, expected, received, remedy });
}

/** Code unit order, the same in every locale. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
