import { parseJsonLine, readLines } from "../lines.ts";
import { invalidFile } from "../options.ts";
import { tokenFile } from "../routingFile.ts";
import { RowTable } from "../rowTable.ts";
import { jsonObject, type TextFormat } from "./format.ts";

/**
 * vLLM-MoE-Logger and its kin: a meta line, then one line per (token, layer). token_idx restarts in every forward batch,
 * so it is no token id: rows stay in the order of the file.
 */
export const vllmLogger: TextFormat = {
  name: "vllm-logger",
  description: 'vLLM logger JSON lines: {"type":"meta",...}, then {"type":"route",...}',
  recognises: (line) => ["meta", "route"].includes(`${jsonObject(line)?.type}`),
  open: async (source, options) => {
    const table = new RowTable(source.name);
    let topk = options.topk ?? null;
    let numExperts = options.numExperts ?? null;
    for await (const { line, number } of readLines(source, options.progress)) {
      const record = parseJsonLine(source.name, line, number);
      if (record.type === "meta") {
        if (Number.isSafeInteger(record.top_k)) topk ??= Number(record.top_k);
        if (Number.isSafeInteger(record.num_experts)) numExperts ??= Number(record.num_experts);
        continue;
      }
      const { type, layer, topk_ids: ids, topk_weights: weights = null } = record;
      const where = `line ${number}`;
      if (type !== "route") throw invalidFile(source.name, where, "type meta or route", `${JSON.stringify(type)}`);
      if (!Number.isSafeInteger(layer))
        throw invalidFile(source.name, where, "a layer number", `${JSON.stringify(layer)}`);
      if (!Array.isArray(ids) || (topk !== null && ids.length !== topk)) {
        const received = Array.isArray(ids) ? `${ids.length} ids` : `${JSON.stringify(ids)}`;
        throw invalidFile(source.name, where, `topk_ids with ${topk ?? "its"} ids`, received);
      }
      topk ??= ids.length;
      if (weights !== null && !Array.isArray(weights)) {
        throw invalidFile(source.name, where, "a list topk_weights", `${JSON.stringify(weights)}`);
      }
      table.add(Number(layer), ids, weights, number, { group: `${record.req_id}`, index: Number(record.token_idx) });
    }
    if (table.numRows === 0) throw invalidFile(source.name, "rows", "at least one route line", "none");
    const identity = {
      format: "vllm-logger",
      name: source.name,
      layerNames: table.layerNames,
      close: () => source.close(),
    };
    return tokenFile(identity, table.source(topk ?? 1), numExperts);
  },
};
