import type { ByteSource } from "../../../io/bytes.ts";
import type { SafetensorsFile } from "../../../io/safetensors/index.ts";
import type { OpenRoutingOptions } from "../options.ts";
import type { RoutingFile } from "../routingFile.ts";

/** A routing format inside the safetensors container, recognised by its tensors and metadata. */
export interface TensorFormat {
  readonly name: string;
  /** One line: what it is, for errors and docs. */
  readonly description: string;
  recognises(file: SafetensorsFile): boolean;
  open(file: SafetensorsFile, options: OpenRoutingOptions): Promise<RoutingFile>;
}

/** A text format, recognised by its first lines (those without anything but white space left out). */
export interface TextFormat {
  readonly name: string;
  readonly description: string;
  recognises(firstLine: string): boolean;
  open(source: ByteSource, options: OpenRoutingOptions): Promise<RoutingFile>;
}

/** The first line as a JSON object, or null. */
export function jsonObject(line: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}
