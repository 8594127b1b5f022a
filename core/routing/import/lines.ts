import type { ByteSource } from "../../io/bytes.ts";
import { decodeText } from "../../io/text.ts";
import { invalidFile } from "./options.ts";

const PIECE_BYTES = 1 << 20;
/** A text file with a longer line is not one of ours. */
const MAX_LINE_BYTES = 256 << 20;

/** Lines of a text file, read piece by piece, without their ends; empty lines keep their number but are not given. */
export async function* readLines(
  source: ByteSource,
  progress?: (fraction: number) => void,
): AsyncGenerator<{ readonly line: string; readonly number: number }> {
  let rest = new Uint8Array(0);
  let number = 0;
  for (let offset = 0; offset < source.size; ) {
    const piece = await source.read(offset, Math.min(PIECE_BYTES, source.size - offset));
    offset += piece.byteLength;
    progress?.(offset / source.size);
    const isLast = offset >= source.size;
    const end = isLast ? piece.byteLength : piece.lastIndexOf(0x0a) + 1;
    if (end === 0 && rest.byteLength + piece.byteLength > MAX_LINE_BYTES) {
      throw invalidFile(source.name, `line ${number + 1}`, `at most ${MAX_LINE_BYTES} bytes`, "more");
    }
    const text = joined(rest, piece.subarray(0, end));
    if (end === 0) {
      rest = text;
      continue;
    }
    rest = piece.slice(end);
    const lines = decode(source.name, text, number).split("\n");
    // What follows the last line end is the beginning of the next piece, or nothing.
    if (lines[lines.length - 1] === "") lines.pop();
    for (const line of lines) {
      number++;
      const trimmed = line.endsWith("\r") ? line.slice(0, -1) : line;
      if (trimmed.trim() !== "") yield { line: trimmed, number };
    }
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(a.byteLength + b.byteLength);
  bytes.set(a);
  bytes.set(b, a.byteLength);
  return bytes;
}

function decode(file: string, bytes: Uint8Array, firstLine: number): string {
  try {
    return decodeText(bytes);
  } catch {
    throw invalidFile(file, "text", "UTF-8", `other bytes after line ${firstLine}`);
  }
}

/** One line as a JSON object. Python writes NaN and Infinity, which JSON has not: they are read as null. */
export function parseJsonLine(file: string, line: string, number: number): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    try {
      value = JSON.parse(line.replace(/(?<=[[,:\s])-?(NaN|Infinity)(?=[\],}\s])/g, "null"));
    } catch (error) {
      throw invalidFile(file, `line ${number}`, "a JSON object", (error as Error).message.split("\n")[0].slice(0, 80));
    }
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw invalidFile(file, `line ${number}`, "a JSON object", `${JSON.stringify(value)?.slice(0, 80)}`);
}
