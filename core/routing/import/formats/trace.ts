import type { ByteSource } from "../../../io/bytes.ts";
import { TRACE_FORMAT } from "../../../trace/format.ts";
import { openTrace } from "../../../trace/read.ts";
import { type LayerData, type RoutingFile, tokenFile } from "../routingFile.ts";

/** Whether the metadata of a safetensors file is a trace's. */
export function isTrace(metadata: Readonly<Record<string, string>>): boolean {
  return metadata.format === TRACE_FORMAT;
}

/** A trace of this project as routing: its (step, layer) chunks are the layers. */
export async function openTraceRouting(source: ByteSource): Promise<RoutingFile> {
  const trace = await openTrace(source);
  const { numSteps, numLayers, numRanks, numExperts, topk } = trace.header;
  let numTokens = 0;
  for (let step = 0; step < numSteps; step++) {
    const { numTokens: perRank } = await trace.summary(step);
    for (let layer = 0; layer < numLayers; layer++) {
      const tokens = perRank.subarray(layer * numRanks, (layer + 1) * numRanks).reduce((a, b) => a + b, 0);
      numTokens = Math.max(numTokens, tokens);
    }
  }
  const layer = async (index: number): Promise<LayerData> => {
    const chunk = await trace.chunk(Math.floor(index / numLayers), index % numLayers);
    const firstToken = [0];
    for (const ids of chunk.topkIdx) firstToken.push(firstToken[firstToken.length - 1] + ids.length / topk);
    const ids = new Int32Array(firstToken[numRanks] * topk);
    const weights = chunk.topkWeights && new Float32Array(ids.length);
    for (let rank = 0; rank < numRanks; rank++) {
      ids.set(chunk.topkIdx[rank], firstToken[rank] * topk);
      if (chunk.topkWeights) weights?.set(chunk.topkWeights[rank], firstToken[rank] * topk);
    }
    return { ids, weights, firstToken };
  };
  const names = Array.from({ length: numSteps * numLayers }, (_, i) =>
    numSteps > 1 ? `${Math.floor(i / numLayers)}.${i % numLayers}` : `${i}`,
  );
  return tokenFile(
    { format: "trace", name: trace.name, layerNames: names, close: () => trace.close() },
    { numLayers: numSteps * numLayers, numTokens, topk, numRanks, layer },
    numExperts,
  );
}
