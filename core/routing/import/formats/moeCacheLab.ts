import { parseJsonLine, readLines } from "../lines.ts";
import { invalidFile } from "../options.ts";
import { tokenFile } from "../routingFile.ts";
import { RowTable } from "../rowTable.ts";
import { jsonObject, type TextFormat } from "./format.ts";

const FORMAT = "moe-cache-lab.routing-jsonl";

/**
 * moe-cache-lab's TRACE_FORMAT.md, versions 1 and 2: strict JSON lines of (phase, token, layer). In version 2 a record may
 * be unassigned: a token without experts.
 */
export const moeCacheLab: TextFormat = {
  name: "moe-cache-lab",
  description: "moe-cache-lab routing JSON lines, format_version 1 or 2",
  recognises: (line) => jsonObject(line)?.format === FORMAT,
  open: async (source, options) => {
    const table = new RowTable(source.name);
    let numExperts = options.numExperts ?? null;
    let topk: number | null = null;
    let numUnassigned = 0;
    let isFirst = true;
    for await (const { line, number } of readLines(source, options.progress)) {
      const record = parseJsonLine(source.name, line, number);
      const where = `line ${number}`;
      if (isFirst) {
        isFirst = false;
        if (record.format_version !== 1 && record.format_version !== 2) {
          throw invalidFile(source.name, "format_version", "1 or 2", `${JSON.stringify(record.format_version)}`);
        }
        if (Number.isSafeInteger(record.num_experts)) numExperts ??= Number(record.num_experts);
        if (Number.isSafeInteger(record.experts_per_token)) topk = Number(record.experts_per_token);
        continue;
      }
      if (record.record_type !== "routing_selection") {
        throw invalidFile(source.name, where, "record_type routing_selection", `${JSON.stringify(record.record_type)}`);
      }
      const { phase, token_position: position, layer } = record;
      if ((phase !== "prompt" && phase !== "generated") || !isCount(position) || !isCount(layer)) {
        const received = JSON.stringify({ phase, token_position: position, layer });
        throw invalidFile(source.name, where, "phase prompt or generated, token_position and layer >= 0", received);
      }
      const unassigned = record.assignment_state === "unassigned";
      const ids = unassigned ? [] : record.selected_experts;
      const probabilities = record.selected_probabilities ?? null;
      if (!Array.isArray(ids) || (topk !== null && ids.length > topk)) {
        const received = Array.isArray(ids) ? `${ids.length} experts` : `${JSON.stringify(ids)}`;
        throw invalidFile(source.name, where, `selected_experts, at most ${topk ?? "a list"}`, received);
      }
      if (probabilities !== null && !Array.isArray(probabilities)) {
        throw invalidFile(source.name, where, "a list selected_probabilities", `${JSON.stringify(probabilities)}`);
      }
      if (unassigned) numUnassigned++;
      const weights = unassigned ? [] : probabilities;
      const key = { group: `${phase} ${record.routing_stage ?? ""}`, index: position };
      table.add(layer, ids, weights, number, key);
    }
    if (table.numRows === 0) throw invalidFile(source.name, "rows", "at least one routing_selection", "none");
    const identity = {
      format: "moe-cache-lab",
      name: source.name,
      layerNames: table.layerNames,
      remarks: numUnassigned > 0 ? [`${numUnassigned} records are unassigned: tokens without experts`] : [],
      close: () => source.close(),
    };
    return tokenFile(identity, table.source(topk ?? undefined), numExperts);
  },
};

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}
