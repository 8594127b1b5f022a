import { InvalidFile } from "../../errors.ts";
import type { ByteSource } from "../../io/bytes.ts";

/** `__metadata__.format` and `.version` of the routing files that this project writes. */
export const ROUTING_FORMAT = "fused-a2a-routing";
export const ROUTING_VERSION = "1";

/** What a file may not say itself. */
export interface OpenRoutingOptions {
  /** Experts of the model; default: what the file states, else its largest id + 1. */
  readonly numExperts?: number;
  /** Slots per token, for flat dumps (SGLang base64, llama.cpp). */
  readonly topk?: number;
  /** Layers, for flat dumps (SGLang base64). */
  readonly numLayers?: number;
  /** npy: the file of weights that goes with the file of ids. */
  readonly weights?: ByteSource;
  /** npy with three dimensions: [tokens, layers, topk] instead of [layers, tokens, topk]. */
  readonly tokensFirst?: boolean;
  /** Files with several tables of loads: which one. */
  readonly table?: string;
  /** Called with 0..1 while a text file is read. */
  readonly progress?: (fraction: number) => void;
}

/** An InvalidFile about `name` in `file`; the remedy defaults to the one for damaged files. */
export function invalidFile(
  file: string,
  name: string,
  expected: string,
  received: string,
  remedy = "check the file, or convert it as docs/formats.md shows",
): InvalidFile {
  return new InvalidFile({ name, expected, received, where: { file }, remedy });
}

/** Throws InvalidFile for a routing file of this project whose version this program does not know. */
export function checkVersion(file: string, metadata: Readonly<Record<string, string>>): void {
  if (metadata.format !== ROUTING_FORMAT || metadata.version === ROUTING_VERSION) return;
  const received = metadata.version ?? "none";
  throw invalidFile(file, "__metadata__.version", ROUTING_VERSION, received, "update fused-a2a or convert it again");
}

/** A whole number of a metadata string, or null when it is absent. */
export function metadataNumber(
  file: string,
  metadata: Readonly<Record<string, string>>,
  ...keys: string[]
): number | null {
  const key = keys.find((name) => metadata[name] !== undefined);
  if (key === undefined) return null;
  const value = Number(metadata[key]);
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw invalidFile(file, `__metadata__.${key}`, "a whole number of at least 1", metadata[key]);
}

/** `layers` of the metadata, a JSON list of what the model calls each layer; undefined when absent or of another length. */
export function metadataLayers(metadata: Readonly<Record<string, string>>, numLayers: number): string[] | undefined {
  try {
    const list: unknown = JSON.parse(metadata.layers ?? "null");
    return Array.isArray(list) && list.length === numLayers ? list.map(String) : undefined;
  } catch {
    return undefined;
  }
}
