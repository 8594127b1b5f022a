import { InvalidArgument } from "../errors.ts";
import { tensor } from "../tensor.ts";
import type { RoutingFile, RoutingLayer } from "./import/index.ts";

export interface ViewOptions {
  /** One layer's index; default all. */
  readonly layer?: number;
  /** Rows to leave out at the head of every layer. */
  readonly cutRows?: number;
}

/** A part of a routing file as a routing file: nothing is read before it is asked for. */
export function viewRouting(file: RoutingFile, { layer, cutRows = 0 }: ViewOptions): RoutingFile {
  const only = layer ?? 0;
  if (layer !== undefined && !(Number.isInteger(layer) && layer >= 0 && layer < file.numLayers)) {
    throw invalid("layer", `0..${file.numLayers - 1}`, `${layer}`, file.name, "choose a layer the file has");
  }
  if (cutRows > 0 && file.numRanks !== null) {
    const received = `${file.numRanks} ranks`;
    throw invalid(
      "cut-head",
      "a file without ranks, whose head is its first rows",
      received,
      file.name,
      "cut each rank's dump",
    );
  }
  if (cutRows > 0 && file.kind === "counts") {
    throw invalid("cut-head", "a file of tokens", "loads only", file.name, "leave --cut-head out");
  }
  const indexOf = (index: number) => (layer === undefined ? index : only);
  const checked = (index: number) => {
    if (layer === undefined || index === 0) return;
    throw invalid("layer", "0", `${index}`, file.name, "the view has one layer");
  };
  const cutLayer = async (index: number): Promise<RoutingLayer> => {
    checked(index);
    return cutLayerRows(await file.layer(indexOf(index)), cutRows);
  };
  return {
    ...file,
    numLayers: layer === undefined ? file.numLayers : 1,
    layerNames: layer === undefined ? file.layerNames : [file.layerNames[only]],
    numTokens: Math.max(0, file.numTokens - cutRows),
    layer: cutLayer,
    loads: async (index) => {
      checked(index);
      if (cutRows === 0) return file.loads(indexOf(index));
      const loads = new Float64Array(file.numExperts);
      for (const id of (await cutLayer(index)).topkIdx.data) if (id >= 0 && id < loads.length) loads[id]++;
      return loads;
    },
  };
}

function cutLayerRows(layer: RoutingLayer, cutRows: number): RoutingLayer {
  if (cutRows === 0) return layer;
  const { topkIdx, topkWeights, lines } = layer;
  const [numTokens, topk] = topkIdx.shape;
  const first = Math.min(cutRows, numTokens);
  const shape = [numTokens - first, topk];
  return {
    ...layer,
    topkIdx: tensor("i32", shape, topkIdx.data.subarray(first * topk)),
    topkWeights: topkWeights && tensor("fp32", shape, topkWeights.data.subarray(first * topk)),
    lines: lines?.subarray(first) ?? null,
  };
}

function invalid(name: string, expected: string, received: string, file: string, remedy: string): InvalidArgument {
  return new InvalidArgument({ name, expected, received, where: { file }, remedy });
}
