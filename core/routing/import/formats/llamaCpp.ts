import { invalidFile } from "../options.ts";
import { countsFile, tokenFile } from "../routingFile.ts";
import { RowTable } from "../rowTable.ts";
import { columns, LoadTable, readNumbers } from "./csv.ts";
import type { TextFormat } from "./format.ts";

/**
 * llama.cpp's moe-trace: layer,expert, one line per routed activation. Token boundaries are not in the file: it gives
 * loads, unless the caller states topk; then every topk successive activations of a layer are a token.
 */
export const llamaCpp: TextFormat = {
  name: "llama-cpp",
  description: "llama.cpp moe-trace CSV layer,expert: loads, or tokens when topk is stated",
  recognises: (line) => columns(line) === "layer,expert",
  open: async (source, options) => {
    const { topk } = options;
    const close = () => source.close();
    if (topk === undefined) {
      const table = new LoadTable(source.name);
      await readNumbers(source, options, 2, ([layer, expert], line) => table.add(layer, expert, 1, line));
      const { layerNames, loads } = table.finish(options.numExperts);
      if (loads.length === 0) throw invalidFile(source.name, "rows", "at least one", "none");
      const remarks = ["no token boundaries in this format: state topk (--topk) to read tokens"];
      return countsFile({ format: "llama-cpp", name: source.name, layerNames, remarks, close }, loads);
    }
    const table = new RowTable(source.name);
    const pending = new Map<number, number[]>();
    await readNumbers(source, options, 2, ([layer, expert], line) => {
      let row = pending.get(layer);
      if (row === undefined) pending.set(layer, (row = []));
      row.push(expert);
      if (row.length < topk) return;
      table.add(layer, row, null, line);
      row.length = 0;
    });
    for (const [layer, row] of pending) {
      if (row.length === 0) continue;
      const expected = `a multiple of topk ${topk} activations`;
      throw invalidFile(source.name, `layer ${layer}`, expected, `${row.length} over`, "state the model's own topk");
    }
    if (table.numRows === 0) throw invalidFile(source.name, "rows", "at least one", "none");
    const remarks = [`tokens are every ${topk} successive activations of a layer: the file does not say so itself`];
    const identity = { format: "llama-cpp", name: source.name, layerNames: table.layerNames, remarks, close };
    return tokenFile(identity, table.source(topk), options.numExperts ?? null);
  },
};
