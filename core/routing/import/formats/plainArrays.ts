import type { ByteSource } from "../../../io/bytes.ts";
import { openNpy } from "../../../io/npy.ts";
import { type ArrayReader, arrayLayers, arrayOf } from "../arrays.ts";
import { invalidFile, metadataLayers, metadataNumber, type OpenRoutingOptions } from "../options.ts";
import { type RoutingFile, tokenFile } from "../routingFile.ts";
import type { TensorFormat } from "./format.ts";

/** This project's own routing file: topk_idx and topk_weights, [tokens, topk] or [layers, tokens, topk]. */
export const plainArrays: TensorFormat = {
  name: "arrays",
  description: "safetensors topk_idx (and topk_weights), [tokens, topk] or [layers, tokens, topk]",
  recognises: (file) => file.tensors.has("topk_idx") || file.unsupported.has("topk_idx"),
  open: async (file, options) => {
    const ids = arrayOf(file, "topk_idx");
    if (ids === null) throw invalidFile(file.name, "topk_idx", "a tensor of ids", "none");
    const layers = arrayLayers(ids, arrayOf(file, "topk_weights"));
    const numExperts = options.numExperts ?? metadataNumber(file.name, file.metadata, "num_experts", "numExperts");
    const identity = {
      format: "arrays",
      name: file.name,
      layerNames: metadataLayers(file.metadata, layers.numLayers),
      close: () => file.close(),
    };
    return tokenFile(identity, layers, numExperts);
  },
};

/** An npy file of ids, [tokens, topk] or [layers, tokens, topk]; weights come from a second file. */
export async function openNpyRouting(source: ByteSource, options: OpenRoutingOptions): Promise<RoutingFile> {
  const file = await openNpy(source);
  const weightsFile = options.weights ? await openNpy(options.weights) : null;
  const reader = (npy: typeof file, name: string): ArrayReader => ({
    file: npy.name,
    name,
    dtype: npy.dtype,
    shape: npy.shape,
    readRows: (first, count) => npy.readRows(first, count),
  });
  if (file.dtype === "fp32" || file.dtype === "fp16") {
    throw invalidFile(
      file.name,
      "ids",
      "an array of whole numbers",
      file.dtype,
      "give the file of ids first, the weights with --weights",
    );
  }
  const weights = weightsFile && reader(weightsFile, "weights");
  const layers = arrayLayers(reader(file, "ids"), weights, options.tokensFirst);
  const close = async () => {
    await file.close();
    await weightsFile?.close();
  };
  return tokenFile({ format: "npy", name: file.name, close }, layers, options.numExperts ?? null);
}
