import { invalidFile } from "../options.ts";
import { countsFile } from "../routingFile.ts";
import { columns, LoadTable, readNumbers } from "./csv.ts";
import type { TextFormat } from "./format.ts";

/** Older SGLang: expert_distribution_rank{r}_timestamp{t}.csv, one file per rank; the ranks' files are to be summed. */
export const sglangCsv: TextFormat = {
  name: "sglang-csv",
  description: "SGLang CSV layer_id,expert_id,count: loads per expert only",
  recognises: (line) => columns(line) === "layer_id,expert_id,count",
  open: async (source, options) => {
    const table = new LoadTable(source.name);
    await readNumbers(source, options, 3, ([layer, expert, count], line) => table.add(layer, expert, count, line));
    const { layerNames, loads } = table.finish(options.numExperts);
    if (loads.length === 0) throw invalidFile(source.name, "rows", "at least one", "none");
    return countsFile({ format: "sglang-csv", name: source.name, layerNames, close: () => source.close() }, loads);
  },
};
