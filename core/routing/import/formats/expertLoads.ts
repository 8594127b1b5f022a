import type { SafetensorsFile } from "../../../io/safetensors/index.ts";
import { arrayOf } from "../arrays.ts";
import { invalidFile, metadataLayers } from "../options.ts";
import { countsFile } from "../routingFile.ts";
import type { TensorFormat } from "./format.ts";

/** Tables of loads per expert: tensors whose last dimension is experts, all others are told apart as layers. */
export const expertLoads: TensorFormat = {
  name: "expert-loads",
  description: "safetensors *_counts [..., experts]: loads per expert only",
  recognises: (file) => tables(file).length > 0,
  open: async (file, options) => {
    const names = tables(file);
    const name = options.table ?? names[0];
    const table = names.includes(name) ? arrayOf(file, name) : null;
    if (table === null) throw invalidFile(file.name, "table", names.join(", "), name, "choose one with --table");
    const { data } = await table.readRows(0, table.shape[0]);
    const numExperts = table.shape[table.shape.length - 1];
    const outer = table.shape.slice(0, -1);
    const numLayers = outer.reduce((product, size) => product * size, 1);
    const loads = Array.from({ length: numLayers }, (_, layer) =>
      Float64Array.from({ length: numExperts }, (_, e) => Number(data[layer * numExperts + e])),
    );
    const others = names.filter((other) => other !== name);
    const identity = {
      format: "expert-loads",
      name: file.name,
      layerNames: metadataLayers(file.metadata, numLayers) ?? loads.map((_, layer) => position(layer, outer)),
      remarks: others.length > 0 ? [`table ${name}; others in the file: ${others.join(", ")} (--table)`] : [],
      close: () => file.close(),
    };
    return countsFile(identity, loads);
  },
};

function tables(file: SafetensorsFile): string[] {
  const names = [...file.tensors].filter(
    ([name, { dtype, shape }]) =>
      /(^|_)(counts?|loads?)$/.test(name) && shape.length >= 2 && ["i32", "i64", "fp32"].includes(dtype),
  );
  return names.map(([name]) => name);
}

/** "2.0": the place of a flattened index in the outer dimensions. */
function position(index: number, sizes: readonly number[]): string {
  const parts: number[] = [];
  let rest = index;
  for (const size of sizes.toReversed()) {
    parts.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return parts.join(".");
}
