import { InvalidArgument, InvalidFile } from "../../errors.ts";
import { type Tensor, tensor } from "../../tensor.ts";
import { splitEvenly } from "../statistics/index.ts";

/** One layer's routing: topkIdx [tokens, topk] with -1 = no choice, topkWeights likewise or null. */
export interface RoutingLayer {
  readonly topkIdx: Tensor<"i32">;
  readonly topkWeights: Tensor<"fp32"> | null;
  /** [ranks + 1] first token of each rank, when the file knows ranks. */
  readonly firstToken: readonly number[] | null;
  /** [tokens] line of the file that each token came from (text formats), counted from 1. */
  readonly lines: Int32Array | null;
  /** Tokens whose (token, layer) key the file had already given. */
  readonly numRepeatedKeys: number;
}

/** A routing file of any format: its sizes, and layers read when asked for. */
export interface RoutingFile {
  /** Name of the format that recognised it. */
  readonly format: string;
  /** Path, for errors. */
  readonly name: string;
  /** "counts": the file has loads per expert but no tokens: `layer` rejects, `loads` works. */
  readonly kind: "tokens" | "counts";
  readonly numLayers: number;
  /** What the file calls each layer: usually the model's layer number. */
  readonly layerNames: readonly string[];
  /** Tokens of a layer (the most, when layers differ); 0 for counts. */
  readonly numTokens: number;
  /** Slots per token; 0 for counts. */
  readonly topk: number;
  readonly numExperts: number;
  /** Whether the file (or the caller) says how many experts there are, or the largest id did. */
  readonly numExpertsFrom: "stated" | "inferred";
  /** Ranks whose tokens the file keeps apart; null when it knows no ranks. */
  readonly numRanks: number | null;
  /** What the importer noticed: unused steps, unassigned tokens. */
  readonly remarks: readonly string[];
  /** Rejects with InvalidFile for counts, and for damaged data. */
  layer(index: number): Promise<RoutingLayer>;
  /** [numExperts] slots per expert of a layer; ids that are no experts are left out. */
  loads(index: number): Promise<Float64Array>;
  close(): Promise<void>;
}

/** What a format hands over: layers of ids, the rest is derived here. */
export interface LayerSource {
  readonly numLayers: number;
  readonly numTokens: number;
  readonly topk: number;
  readonly numRanks?: number;
  layer(index: number): Promise<LayerData>;
}

export interface LayerData {
  /** [tokens, topk] */
  readonly ids: Int32Array;
  readonly weights: Float32Array | null;
  readonly firstToken?: readonly number[];
  readonly lines?: Int32Array;
  readonly numRepeatedKeys?: number;
}

export interface FileIdentity {
  readonly format: string;
  readonly name: string;
  readonly layerNames?: readonly string[];
  readonly remarks?: readonly string[];
  readonly close: () => Promise<void>;
}

/** A file of tokens. `numExperts` null: the largest id of all layers + 1 (one pass over the file). */
export async function tokenFile(
  identity: FileIdentity,
  source: LayerSource,
  numExperts: number | null,
): Promise<RoutingFile> {
  const { numLayers, numTokens, topk } = source;
  const experts = numExperts ?? (await largestId(source)) + 1;
  const checked = (index: number) => {
    checkLayer(identity.name, index, numLayers);
    return source.layer(index);
  };
  return {
    format: identity.format,
    name: identity.name,
    kind: "tokens",
    numLayers,
    layerNames: identity.layerNames ?? numbers(numLayers),
    numTokens,
    topk,
    numExperts: Math.max(1, experts),
    numExpertsFrom: numExperts === null ? "inferred" : "stated",
    numRanks: source.numRanks ?? null,
    remarks: identity.remarks ?? [],
    layer: async (index) => {
      const { ids, weights, firstToken = null, lines = null, numRepeatedKeys = 0 } = await checked(index);
      const shape = [ids.length / topk, topk];
      const topkWeights = weights && tensor("fp32", shape, weights);
      return { topkIdx: tensor("i32", shape, ids), topkWeights, firstToken, lines, numRepeatedKeys };
    },
    loads: async (index) => {
      const loads = new Float64Array(Math.max(1, experts));
      for (const id of (await checked(index)).ids) if (id >= 0 && id < loads.length) loads[id]++;
      return loads;
    },
    close: identity.close,
  };
}

/** Why a file of loads does not do where tokens are needed. */
export function withoutTokens({ format, name }: Pick<RoutingFile, "format" | "name">): InvalidFile {
  return new InvalidFile({
    name: "tokens",
    expected: "a file that says which token chose which expert",
    received: `${format}: loads per expert only`,
    where: { file: name },
    remedy: "inspect its loads, record a per-token dump (docs/formats.md), or generate routing with --workload",
  });
}

/** A file of loads per expert: [layers][experts]. */
export function countsFile(identity: FileIdentity, loads: readonly Float64Array[]): RoutingFile {
  const numExperts = loads.reduce((most, layer) => Math.max(most, layer.length), 1);
  return {
    format: identity.format,
    name: identity.name,
    kind: "counts",
    numLayers: loads.length,
    layerNames: identity.layerNames ?? numbers(loads.length),
    numTokens: 0,
    topk: 0,
    numExperts,
    numExpertsFrom: "stated",
    numRanks: null,
    remarks: identity.remarks ?? [],
    layer: async () => {
      throw withoutTokens(identity);
    },
    loads: async (index) => {
      checkLayer(identity.name, index, loads.length);
      const layer = new Float64Array(numExperts);
      layer.set(loads[index]);
      return layer;
    },
    close: identity.close,
  };
}

/**
 * A layer's tokens by rank: as the file has them, else rank r gets rows [r T / R, (r + 1) T / R), rounded down. Views, no
 * copies. Throws InvalidArgument when the file holds another number of ranks.
 */
export function splitRanks(
  layer: RoutingLayer,
  numRanks: number,
): { topkIdx: Tensor<"i32">; topkWeights: Tensor<"fp32"> | null }[] {
  const { topkIdx, topkWeights } = layer;
  const [numTokens, topk] = topkIdx.shape;
  const firstToken = rankBoundaries(layer, numRanks);
  if (firstToken[numRanks] !== numTokens) throw new RangeError("firstToken does not end at the last token");
  return Array.from({ length: numRanks }, (_, rank) => {
    const [begin, end] = [firstToken[rank], firstToken[rank + 1]];
    const shape = [end - begin, topk];
    return {
      topkIdx: tensor("i32", shape, topkIdx.data.subarray(begin * topk, end * topk)),
      topkWeights: topkWeights && tensor("fp32", shape, topkWeights.data.subarray(begin * topk, end * topk)),
    };
  });
}

/** [numRanks + 1] first token of each rank: the file's own, or an even split. */
export function rankBoundaries(layer: RoutingLayer, numRanks: number): ArrayLike<number> {
  const { firstToken } = layer;
  if (firstToken === null) return splitEvenly(layer.topkIdx.shape[0], numRanks);
  if (firstToken.length === numRanks + 1) return firstToken;
  throw new InvalidArgument({
    name: "ranks",
    expected: `${firstToken.length - 1}, the ranks the file holds`,
    received: `${numRanks}`,
    remedy: `use --ranks ${firstToken.length - 1}`,
  });
}

async function largestId(source: LayerSource): Promise<number> {
  let largest = -1;
  for (let index = 0; index < source.numLayers; index++) {
    for (const id of (await source.layer(index)).ids) if (id > largest) largest = id;
  }
  return largest;
}

function checkLayer(file: string, index: number, numLayers: number): void {
  if (Number.isInteger(index) && index >= 0 && index < numLayers) return;
  throw new InvalidArgument({
    name: "layer",
    expected: `0..${numLayers - 1}`,
    received: `${index}`,
    where: { file },
    remedy: "choose a layer the file has",
  });
}

export function numbers(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `${i}`);
}
