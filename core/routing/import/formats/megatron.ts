import { arrayOf } from "../arrays.ts";
import { multihotLayers } from "../multihot.ts";
import { invalidFile } from "../options.ts";
import { tokenFile } from "../routingFile.ts";
import type { TensorFormat } from "./format.ts";

/** Megatron-Core's router output: a multihot routing_map, with the dense probs beside it. */
export const megatron: TensorFormat = {
  name: "megatron",
  description: "safetensors routing_map (and probs), [tokens, experts] or [layers, tokens, experts]",
  recognises: (file) => file.tensors.has("routing_map"),
  open: async (file, options) => {
    const map = arrayOf(file, "routing_map");
    if (map === null) throw invalidFile(file.name, "routing_map", "a tensor", "none");
    const layers = await multihotLayers(map, arrayOf(file, "probs"), options.topk ?? null);
    const identity = { format: "megatron", name: file.name, close: () => file.close() };
    return tokenFile(identity, layers, map.shape[map.shape.length - 1]);
  },
};
