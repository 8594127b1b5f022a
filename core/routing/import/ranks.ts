import { invalidFile } from "./options.ts";
import type { LayerSource } from "./routingFile.ts";

/** Sources of one rank each, in rank order, as one source whose layers know their ranks. */
export function joinRanks(file: string, ranks: readonly LayerSource[]): LayerSource {
  const [first] = ranks;
  for (const [rank, { numLayers, topk }] of ranks.entries()) {
    if (numLayers === first.numLayers && topk === first.topk) continue;
    const expected = `${first.numLayers} layers of top-${first.topk} as rank 0`;
    throw invalidFile(file, `rank ${rank}`, expected, `${numLayers} layers of top-${topk}`);
  }
  return {
    numLayers: first.numLayers,
    numTokens: ranks.reduce((sum, rank) => sum + rank.numTokens, 0),
    topk: first.topk,
    numRanks: ranks.length,
    layer: async (index) => {
      const layers = [];
      for (const rank of ranks) layers.push(await rank.layer(index));
      const firstToken = [0];
      for (const { ids } of layers) firstToken.push(firstToken[firstToken.length - 1] + ids.length / first.topk);
      const slots = firstToken[ranks.length] * first.topk;
      const ids = new Int32Array(slots);
      const weights = layers.every((layer) => layer.weights !== null) ? new Float32Array(slots) : null;
      let numRepeatedKeys = 0;
      layers.forEach((layer, rank) => {
        ids.set(layer.ids, firstToken[rank] * first.topk);
        if (layer.weights) weights?.set(layer.weights, firstToken[rank] * first.topk);
        numRepeatedKeys += layer.numRepeatedKeys ?? 0;
      });
      return { ids, weights, firstToken, numRepeatedKeys };
    },
  };
}
