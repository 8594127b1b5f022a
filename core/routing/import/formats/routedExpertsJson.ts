import { parseJsonLine, readLines } from "../lines.ts";
import { invalidFile, type OpenRoutingOptions } from "../options.ts";
import { tokenFile } from "../routingFile.ts";
import { RowTable } from "../rowTable.ts";
import { jsonObject, type TextFormat } from "./format.ts";

/**
 * Responses of vLLM or SGLang with routed_experts, one JSON object per line: nested lists [tokens, layers, topk] (vLLM,
 * prompt_routed_experts first), or SGLang's base64 of little-endian int32 in that order, whose layers and topk the caller
 * states. The field may lie in the object, in meta_info, or in each of choices.
 */
export const routedExpertsJson: TextFormat = {
  name: "routed-experts-json",
  description: "vLLM / SGLang responses with routed_experts, one JSON object per line",
  recognises: (line) => {
    const record = jsonObject(line);
    return record !== null && holders(record).length > 0;
  },
  open: async (source, options) => {
    const table = new RowTable(source.name);
    for await (const { line, number } of readLines(source, options.progress)) {
      for (const holder of holders(parseJsonLine(source.name, line, number))) {
        for (const value of [holder.prompt_routed_experts, holder.routed_experts]) {
          if (value === undefined || value === null) continue;
          if (typeof value === "string") addBase64(source.name, table, value, number, options);
          else addNested(source.name, table, value, number);
        }
      }
    }
    if (table.numRows === 0) throw invalidFile(source.name, "rows", "at least one routed_experts", "none");
    const identity = {
      format: "routed-experts-json",
      name: source.name,
      layerNames: table.layerNames,
      close: () => source.close(),
    };
    return tokenFile(identity, table.source(), options.numExperts ?? null);
  },
};

function holders(record: Record<string, unknown>): Record<string, unknown>[] {
  const choices = Array.isArray(record.choices) ? record.choices : [];
  const places: unknown[] = [record, record.meta_info, ...choices, ...choices.map((choice) => choice?.meta_info)];
  return places.filter(
    (place): place is Record<string, unknown> =>
      typeof place === "object" && place !== null && ("routed_experts" in place || "prompt_routed_experts" in place),
  );
}

function addNested(file: string, table: RowTable, value: unknown, line: number): void {
  const isList = (list: unknown): list is unknown[] => Array.isArray(list);
  if (!isList(value) || !value.every((token) => isList(token) && token.every(isList))) {
    throw invalidFile(
      file,
      `line ${line}`,
      "routed_experts as lists [tokens][layers][topk] or base64",
      "something else",
    );
  }
  for (const token of value as unknown[][][]) token.forEach((ids, layer) => table.add(layer, ids, null, line));
}

function addBase64(file: string, table: RowTable, text: string, line: number, options: OpenRoutingOptions): void {
  const { numLayers, topk } = options;
  if (numLayers === undefined || topk === undefined) {
    const remedy = "state --layers and --topk: base64 has no shape";
    throw invalidFile(file, `line ${line}`, "the shape of routed_experts", "base64", remedy);
  }
  const ids = decodeBase64(text);
  if (ids === null || ids.length % (numLayers * topk) !== 0) {
    const expected = `base64 of int32 [tokens, ${numLayers}, ${topk}]`;
    throw invalidFile(file, `line ${line}`, expected, ids === null ? "other text" : `${ids.length} numbers`);
  }
  for (let at = 0; at < ids.length; ) {
    for (let layer = 0; layer < numLayers; layer++, at += topk)
      table.add(layer, [...ids.subarray(at, at + topk)], null, line);
  }
}

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** Little-endian int32 numbers in base64; null when it is none. */
function decodeBase64(text: string): Int32Array | null {
  const clean = text.replace(/=+$/, "");
  const bytes = new Uint8Array(Math.floor((clean.length * 3) / 4));
  let bits = 0;
  let numBits = 0;
  let length = 0;
  for (const character of clean) {
    const value = ALPHABET.indexOf(character);
    if (value < 0) return null;
    bits = ((bits << 6) | value) & 0xffffff;
    numBits += 6;
    if (numBits >= 8) {
      numBits -= 8;
      bytes[length++] = (bits >> numBits) & 0xff;
    }
  }
  return length % 4 === 0 ? new Int32Array(bytes.buffer, 0, length / 4) : null;
}
