import type { SafetensorsFile } from "../../../io/safetensors/index.ts";
import { arrayLayers, arrayOf } from "../arrays.ts";
import { multihotLayers } from "../multihot.ts";
import { invalidFile, metadataLayers, metadataNumber } from "../options.ts";
import { joinRanks } from "../ranks.ts";
import { type LayerSource, tokenFile } from "../routingFile.ts";
import type { TensorFormat } from "./format.ts";

/** Inputs and outputs of `fused-a2a apply`, or any file with one set of tensors per rank. */
export const perRank: TensorFormat = {
  name: "per-rank",
  description: "safetensors rank{r}.topk_idx (and .topk_weights), or rank{r}.routing_map (and .probs), for every rank",
  recognises: (file) => file.tensors.has("rank0.topk_idx") || file.tensors.has("rank0.routing_map"),
  open: async (file, options) => {
    const multihot = !file.tensors.has("rank0.topk_idx");
    const name = multihot ? "routing_map" : "topk_idx";
    const numRanks = countRanks(file, name);
    const ranks: LayerSource[] = [];
    let numExperts = options.numExperts ?? metadataNumber(file.name, file.metadata, "num_experts", "numExperts");
    for (let rank = 0; rank < numRanks; rank++) {
      const main = arrayOf(file, `rank${rank}.${name}`);
      if (main === null)
        throw invalidFile(file.name, `rank${rank}.${name}`, `every rank of 0..${numRanks - 1}`, "none");
      if (multihot) {
        ranks.push(await multihotLayers(main, arrayOf(file, `rank${rank}.probs`), null));
        numExperts ??= main.shape[main.shape.length - 1];
      } else ranks.push(arrayLayers(main, arrayOf(file, `rank${rank}.topk_weights`)));
    }
    const topk = Math.max(...ranks.map((rank) => rank.topk));
    const sameWidth = multihot ? ranks.map((rank) => widen(rank, topk)) : ranks;
    const layers = joinRanks(file.name, sameWidth);
    const identity = {
      format: "per-rank",
      name: file.name,
      layerNames: metadataLayers(file.metadata, layers.numLayers),
      close: () => file.close(),
    };
    return tokenFile(identity, layers, numExperts);
  },
};

function countRanks(file: SafetensorsFile, name: string): number {
  let numRanks = 0;
  for (const key of file.tensors.keys()) {
    const match = /^rank(\d+)\.(.*)$/.exec(key);
    if (match?.[2] === name) numRanks = Math.max(numRanks, Number(match[1]) + 1);
  }
  if (numRanks > file.tensors.size)
    throw invalidFile(file.name, `rank${numRanks - 1}.${name}`, "every rank before it", "some");
  return numRanks;
}

/** Ranks of a multihot file may have different most-chosen experts: -1 fills up to the group's. */
function widen(source: LayerSource, topk: number): LayerSource {
  if (source.topk === topk) return source;
  return {
    ...source,
    topk,
    layer: async (index) => {
      const { ids, weights } = await source.layer(index);
      const numTokens = ids.length / source.topk;
      const wideIds = new Int32Array(numTokens * topk).fill(-1);
      const wideWeights = weights && new Float32Array(numTokens * topk);
      for (let token = 0; token < numTokens; token++) {
        const [from, to] = [token * source.topk, token * topk];
        wideIds.set(ids.subarray(from, from + source.topk), to);
        if (weights) wideWeights?.set(weights.subarray(from, from + source.topk), to);
      }
      return { ids: wideIds, weights: wideWeights };
    },
  };
}
