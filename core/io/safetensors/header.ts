import type { DType } from "../../dtype/dtype.ts";
import { InvalidFile } from "../../errors.ts";
import { type ByteSource, readInto } from "../bytes.ts";
import { decodeText } from "../text.ts";
import { DTYPE_OF_FILE, FILE_DTYPE_BITS } from "./dtypes.ts";

/**
 * A header of more bytes than this is refused, as the reference implementation does: the header is parsed in memory, and
 * a damaged length field must not make us allocate it. 100 MB are about a million tensors.
 */
export const MAX_HEADER_BYTES = 100_000_000;

/** Where a tensor lies: `offset` is absolute in the file, `bytes` its length. */
export interface TensorEntry {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly bytes: number;
}

/** A tensor whose dtype the project cannot hold: it may be in the file, reading it is an InvalidFile. */
export interface UnsupportedEntry {
  readonly fileDtype: string;
  readonly shape: readonly number[];
}

export interface SafetensorsHeader {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly unsupported: ReadonlyMap<string, UnsupportedEntry>;
}

/** Reads and checks the header: every rule of the format, each violation an InvalidFile that names field and offset. */
export async function readHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const bad = (name: string, expected: string, received: string, offset = 8) =>
    new InvalidFile({
      name: printable(name),
      expected,
      received: printable(received),
      where: { file: source.name, offset },
      remedy: "the file is damaged or not safetensors: write it again",
    });
  if (source.size < 8) throw bad("safetensors", "at least the 8 bytes of the header length", `${source.size} bytes`, 0);
  const prefix = new Uint8Array(8);
  await readInto(source, 0, prefix);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    const reason = `at most ${MAX_HEADER_BYTES} bytes (it is parsed in memory)`;
    throw bad("header length", reason, `${length}`, 0);
  }
  const headerBytes = Number(length);
  if (headerBytes < 2 || 8 + headerBytes > source.size) {
    throw bad("header length", `2..${source.size - 8} (the file has ${source.size} bytes)`, `${headerBytes}`, 0);
  }
  const bytes = new Uint8Array(headerBytes);
  await readInto(source, 8, bytes);
  const json = parseHeader(bytes, bad);
  const dataStart = 8 + headerBytes;
  const tensors = new Map<string, TensorEntry>();
  const unsupported = new Map<string, UnsupportedEntry>();
  const spans: Span[] = [];
  for (const [name, value] of Object.entries(json)) {
    if (name === "__metadata__") continue;
    const { fileDtype, shape, begin, end } = parseEntry(name, value, source.size - dataStart, bad);
    spans.push({ name, begin, end });
    const dtype = DTYPE_OF_FILE.get(fileDtype);
    if (dtype === undefined) unsupported.set(name, { fileDtype, shape });
    else tensors.set(name, { dtype, shape, offset: dataStart + begin, bytes: end - begin });
  }
  checkSpans(spans, dataStart, source.size, bad);
  return { metadata: parseMetadata(json, bad), tensors, unsupported };
}

type Bad = (name: string, expected: string, received: string, offset?: number) => InvalidFile;

interface Span {
  readonly name: string;
  readonly begin: number;
  readonly end: number;
}

function parseHeader(bytes: Uint8Array, bad: Bad): Record<string, unknown> {
  let text: string;
  let json: unknown;
  try {
    text = decodeText(bytes);
  } catch {
    throw bad("header", "UTF-8 text", "other bytes");
  }
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw bad("header", "a JSON object", `${(error as Error).message.split("\n")[0]}`);
  }
  if (!isObject(json)) throw bad("header", "a JSON object", Array.isArray(json) ? "an array" : `${json}`);
  const duplicate = duplicateKey(text);
  if (duplicate !== null) throw bad(`tensor ${duplicate}`, "each name once", "the name a second time");
  return json;
}

function parseEntry(name: string, value: unknown, dataBytes: number, bad: Bad) {
  const field = `tensor ${name}`;
  if (!isObject(value)) throw bad(field, "an object with dtype, shape, data_offsets", describe(value));
  const { dtype, shape, data_offsets: offsets } = value;
  const bits = typeof dtype === "string" ? FILE_DTYPE_BITS.get(dtype) : undefined;
  if (bits === undefined) throw bad(`${field}.dtype`, "a dtype of the safetensors format", describe(dtype));
  if (!isSizes(shape)) throw bad(`${field}.shape`, "a list of whole numbers >= 0", describe(shape));
  if (!isSizes(offsets) || offsets.length !== 2) {
    throw bad(`${field}.data_offsets`, "[begin, end]", describe(offsets));
  }
  const [begin, end] = offsets;
  if (begin > end || end > dataBytes) {
    throw bad(
      `${field}.data_offsets`,
      `begin <= end <= ${dataBytes} (bytes of data in the file)`,
      `[${begin}, ${end}]`,
    );
  }
  const numBits = shape.reduce((product, size) => product * size, bits);
  if (numBits !== (end - begin) * 8) {
    throw bad(`${field}.data_offsets`, `${numBits / 8} bytes for ${dtype} [${shape.join(", ")}]`, `${end - begin}`);
  }
  return { fileDtype: dtype as string, shape, begin, end };
}

/** The data section must be covered exactly: no overlap, no gap, nothing behind the last tensor. */
function checkSpans(spans: Span[], dataStart: number, fileSize: number, bad: Bad): void {
  spans.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  let last = "the header";
  for (const { name, begin, end } of spans) {
    if (begin !== at) {
      const what =
        begin < at ? `${at - begin} bytes that overlap ${last}` : `a gap of ${begin - at} bytes after ${last}`;
      throw bad(`tensor ${name}.data_offsets`, `begin ${at}, the end of ${last}`, what, dataStart + begin);
    }
    at = end;
    last = name;
  }
  if (dataStart + at !== fileSize) {
    const behind = `${fileSize - dataStart - at} bytes behind ${last}`;
    throw bad("file size", `${dataStart + at} bytes`, behind, dataStart + at);
  }
}

function parseMetadata(json: Record<string, unknown>, bad: Bad): Record<string, string> {
  const metadata = json.__metadata__;
  if (metadata === undefined) return {};
  if (!isObject(metadata)) throw bad("__metadata__", "an object of strings", describe(metadata));
  const entries = Object.entries(metadata).map(([key, value]): [string, string] => {
    if (typeof value !== "string") throw bad(`__metadata__.${key}`, "a string", describe(value));
    return [key, value];
  });
  return Object.fromEntries(entries);
}

/** The first top-level key that comes twice in `text`, which is valid JSON; JSON.parse would keep the last silently. */
function duplicateKey(text: string): string | null {
  const seen = new Set<string>();
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === "{" || c === "[") depth++;
    else if (c === "}" || c === "]") depth--;
    else if (c === '"') {
      const start = i++;
      while (text[i] !== '"') i += text[i] === "\\" ? 2 : 1;
      if (depth !== 1) continue;
      // At depth 1 every string is a key: the values there are objects.
      const key: string = JSON.parse(text.slice(start, i + 1));
      if (seen.has(key)) return key;
      seen.add(key);
    }
  }
  return null;
}

/** One line, not too long, whatever the file holds. */
function printable(text: string): string {
  const line = JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text).slice(1, -1);
  return line.replaceAll('\\"', '"');
}

/** A value as JSON; values nested too deeply for that are only named. */
function describe(value: unknown): string {
  try {
    return JSON.stringify(value) ?? "nothing";
  } catch {
    return "a deeply nested value";
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}
