import { maxTopk, toIndexForm } from "../../layout/multihot.ts";
import { type Tensor, tensor } from "../../tensor.ts";
import { type ArrayReader, toWeights } from "./arrays.ts";
import { invalidFile } from "./options.ts";
import type { LayerSource } from "./routingFile.ts";

/**
 * Layers out of a multihot map, [tokens, experts] or [layers, tokens, experts] bool or u8, and probs of its shape. Slots
 * per token: `topk`, or the most experts any token has (one pass over the map).
 */
export async function multihotLayers(
  map: ArrayReader,
  probs: ArrayReader | null,
  topk: number | null,
): Promise<LayerSource> {
  const { shape } = map;
  const received = `${map.dtype} [${shape.join(", ")}]`;
  if ((shape.length !== 2 && shape.length !== 3) || !["bool", "u8"].includes(map.dtype)) {
    throw invalidFile(map.file, map.name, "bool or u8 [tokens, experts] or [layers, tokens, experts]", received);
  }
  if (probs !== null && (probs.shape.join() !== shape.join() || !["fp32", "bf16", "fp16"].includes(probs.dtype))) {
    const expected = `fp32, bf16 or fp16 [${shape.join(", ")}], the shape of ${map.name}`;
    throw invalidFile(probs.file, probs.name, expected, `${probs.dtype} [${probs.shape.join(", ")}]`);
  }
  const [numLayers, numTokens, numExperts] = shape.length === 3 ? shape : [1, ...shape];
  const layerOf = async (reader: ArrayReader, layer: number): Promise<Tensor> => {
    const value = shape.length === 3 ? await reader.readRows(layer, 1) : await reader.readRows(0, numTokens);
    return { ...value, shape: [numTokens, numExperts] };
  };
  let width = topk ?? 1;
  if (topk === null) {
    for (let layer = 0; layer < numLayers; layer++) width = Math.max(width, maxTopk(await layerOf(map, layer)));
  }
  return {
    numLayers,
    numTokens,
    topk: width,
    layer: async (index) => {
      const values =
        probs &&
        tensor("fp32", [numTokens, numExperts], toWeights(await layerOf(probs, index)) as Float32Array<ArrayBuffer>);
      const { topkIdx, topkWeights } = toIndexForm(0, await layerOf(map, index), values, width);
      return { ids: topkIdx.data, weights: topkWeights?.data ?? null };
    },
  };
}
