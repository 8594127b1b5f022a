import { arrayLayers, arrayOf } from "../arrays.ts";
import { invalidFile, metadataNumber } from "../options.ts";
import { countsFile, tokenFile } from "../routingFile.ts";
import type { TensorFormat } from "./format.ts";

/** SGLang's recorder in modes stat and stat_approx: logical_count [steps, layers, experts], steps a ring buffer. */
export const sglangCounts: TensorFormat = {
  name: "sglang-counts",
  description: "SGLang recorder, stat: logical_count [steps, layers, experts] (converted from .pt)",
  recognises: (file) => file.tensors.has("logical_count") && !file.tensors.has("topk_ids_of_layer"),
  open: async (file) => {
    const counts = arrayOf(file, "logical_count");
    const shape = counts?.shape ?? [];
    if (
      counts === null ||
      (shape.length !== 3 && shape.length !== 2) ||
      !["i32", "i64", "fp32"].includes(counts.dtype)
    ) {
      const expected = "i32, i64 or fp32 [steps, layers, experts] or [layers, experts]";
      throw invalidFile(file.name, "logical_count", expected, `${counts?.dtype} [${shape.join(", ")}]`);
    }
    const [numSteps, numLayers, numExperts] = shape.length === 3 ? shape : [1, ...shape];
    const loads = Array.from({ length: numLayers }, () => new Float64Array(numExperts));
    let numEmptySteps = 0;
    for (let step = 0; step < numSteps; step++) {
      const { data } = shape.length === 3 ? await counts.readRows(step, 1) : await counts.readRows(0, numLayers);
      let total = 0;
      for (let i = 0; i < data.length; i++) {
        const count = Number(data[i]);
        if (!(count >= 0)) {
          throw invalidFile(file.name, "logical_count", "counts of at least 0", `${count} at step ${step}`);
        }
        loads[Math.floor(i / numExperts)][i % numExperts] += count;
        total += count;
      }
      if (total === 0) numEmptySteps++;
    }
    const unused = `${numEmptySteps} of ${numSteps} steps are all zero (the recorder's ring buffer was not full)`;
    const identity = {
      format: "sglang-counts",
      name: file.name,
      remarks: numEmptySteps > 0 ? [unused] : [],
      close: () => file.close(),
    };
    return countsFile(identity, loads);
  },
};

/** SGLang's recorder in mode per_token: topk_ids_of_layer [layers, tokens, topk], -1 = unused. */
export const sglangPerToken: TensorFormat = {
  name: "sglang-per-token",
  description: "SGLang recorder, per_token: topk_ids_of_layer [layers, tokens, topk] (converted from .pt)",
  recognises: (file) => file.tensors.has("topk_ids_of_layer"),
  open: async (file, options) => {
    const ids = arrayOf(file, "topk_ids_of_layer");
    if (ids === null) throw invalidFile(file.name, "topk_ids_of_layer", "a tensor", "none");
    const numExperts = options.numExperts ?? metadataNumber(file.name, file.metadata, "num_experts");
    // Ids are physical; what EPLB made of them during the run is not in the file, only the last map.
    const remarks = file.tensors.has("last_physical_to_logical_map")
      ? ["ids are physical experts; last_physical_to_logical_map holds only at the end of the recording"]
      : [];
    const identity = { format: "sglang-per-token", name: file.name, remarks, close: () => file.close() };
    return tokenFile(identity, arrayLayers(ids, null), numExperts);
  },
};

/** routed_experts of vLLM (PR 28284) and SGLang saved as an array: [tokens, layers, topk]. */
export const routedExperts: TensorFormat = {
  name: "routed-experts",
  description: "vLLM / SGLang routed_experts [tokens, layers, topk]",
  recognises: (file) => file.tensors.has("routed_experts"),
  open: async (file, options) => {
    const ids = arrayOf(file, "routed_experts");
    if (ids === null) throw invalidFile(file.name, "routed_experts", "a tensor", "none");
    if (ids.shape.length !== 3) {
      throw invalidFile(file.name, "routed_experts", "[tokens, layers, topk]", `[${ids.shape.join(", ")}]`);
    }
    const numExperts = options.numExperts ?? metadataNumber(file.name, file.metadata, "num_experts");
    const identity = { format: "routed-experts", name: file.name, close: () => file.close() };
    return tokenFile(identity, arrayLayers(ids, null, true), numExperts);
  },
};
