import { InvalidArgument } from "../errors.ts";
import type { ByteSink } from "../io/bytes.ts";
import { writeNpy } from "../io/npy.ts";
import { type SafetensorsEntry, writeSafetensors } from "../io/safetensors/index.ts";
import { bytesOf, type Tensor, tensor } from "../tensor.ts";
import { ROUTING_FORMAT, ROUTING_VERSION, type RoutingFile, type RoutingLayer } from "./import/index.ts";

/** What a routing file becomes: sizes that all its layers share. */
interface Sizes {
  readonly hasWeights: boolean;
  /** [ranks + 1] when the file knows ranks, else null. */
  readonly firstToken: readonly number[] | null;
  readonly numTokens: number;
}

/**
 * Writes a file of any format as this project's routing file (docs/formats.md) and commits the sink: topk_idx int16 (int32
 * above 32767 experts) and topk_weights float32, [layers, tokens, topk], per rank when the file knows ranks; loads become
 * expert_counts int64 [layers, experts]. One layer is in memory at a time. Throws InvalidArgument when layers hold
 * different numbers of tokens.
 */
export async function writeRouting(
  sink: ByteSink,
  file: RoutingFile,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  try {
    const all = { format: ROUTING_FORMAT, version: ROUTING_VERSION, ...identity(file), ...metadata };
    if (file.kind === "counts") {
      await writeSafetensors(sink, all, [{ name: "expert_counts", tensor: await countsTensor(file) }]);
      return;
    }
    const sizes = await commonSizes(file);
    const names = sizes.hasWeights ? ["topk_idx", "topk_weights"] : ["topk_idx"];
    const bounds = sizes.firstToken ?? [0, sizes.numTokens];
    const entries = Array.from({ length: bounds.length - 1 }, (_, rank) =>
      names.map((name) => entry(file, sizes.firstToken ? `rank${rank}.` : "", name, bounds[rank], bounds[rank + 1])),
    );
    await writeSafetensors(sink, all, entries.flat());
  } catch (error) {
    await sink.abort();
    throw error;
  }
}

/** Writes ids (int32), weights (float32) or loads (int64) as npy, [layers, tokens, topk] or [layers, experts]. */
export async function writeRoutingNpy(sink: ByteSink, file: RoutingFile, what: "ids" | "weights"): Promise<void> {
  let value: Tensor;
  try {
    if (file.kind === "counts") value = await countsTensor(file);
    else {
      const { numTokens } = await commonSizes(file);
      const shape = [file.numLayers, numTokens, file.topk];
      value = what === "ids" ? tensor("i32", shape) : tensor("fp32", shape);
      for (let index = 0; index < file.numLayers; index++) {
        const { topkIdx, topkWeights } = await file.layer(index);
        (value.data as Int32Array).set(
          what === "ids" ? topkIdx.data : (topkWeights?.data ?? []),
          index * numTokens * file.topk,
        );
      }
    }
  } catch (error) {
    await sink.abort();
    throw error;
  }
  await writeNpy(sink, value);
}

/** Whether every layer has weights: a routing file has them for all layers or for none. */
export async function hasWeights(file: RoutingFile): Promise<boolean> {
  return file.kind === "tokens" && (await commonSizes(file)).hasWeights;
}

function identity(file: RoutingFile): Record<string, string> {
  const stated: Record<string, string> = file.numExpertsFrom === "stated" ? { num_experts: `${file.numExperts}` } : {};
  const ranks: Record<string, string> = file.numRanks === null ? {} : { num_ranks: `${file.numRanks}` };
  return { source_format: file.format, layers: JSON.stringify(file.layerNames), ...stated, ...ranks };
}

async function countsTensor(file: RoutingFile): Promise<Tensor> {
  const counts = tensor("i64", [file.numLayers, file.numExperts]);
  for (let index = 0; index < file.numLayers; index++) {
    (await file.loads(index)).forEach((load, expert) => {
      counts.data[index * file.numExperts + expert] = BigInt(Math.round(load));
    });
  }
  return counts;
}

async function commonSizes(file: RoutingFile): Promise<Sizes> {
  let sizes = null as Sizes | null;
  for (let index = 0; index < file.numLayers; index++) {
    const layer = await file.layer(index);
    const { topkIdx, firstToken } = layer;
    const [numTokens] = topkIdx.shape;
    const same = sizes === null || (sizes.numTokens === numTokens && sizes.firstToken?.join() === firstToken?.join());
    if (!same) {
      throw new InvalidArgument({
        name: "layers",
        expected: "as many tokens (per rank) in every layer",
        received: `${sizes?.numTokens} in layer ${file.layerNames[0]}, ${numTokens} in layer ${file.layerNames[index]}`,
        where: { file: file.name },
        remedy: "convert one layer at a time with --layer",
      });
    }
    sizes = { numTokens, firstToken, hasWeights: (sizes?.hasWeights ?? true) && layer.topkWeights !== null };
  }
  return sizes ?? { numTokens: 0, firstToken: null, hasWeights: false };
}

/** Tokens [first, end) of every layer, made layer by layer. */
function entry(file: RoutingFile, prefix: string, name: string, first: number, end: number): SafetensorsEntry {
  const { numLayers, topk, numExperts } = file;
  const dtype = name === "topk_weights" ? "fp32" : numExperts <= 0x7fff ? "i16" : "i32";
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (let index = 0; index < numLayers; index++) {
      const values = part(await file.layer(index), name, first * topk, end * topk);
      yield bytesOf(tensor(dtype, [values.length], dtype === "i16" ? Int16Array.from(values) : values) as Tensor);
    }
  }
  return { name: prefix + name, dtype, shape: [numLayers, end - first, topk], chunks };
}

function part(layer: RoutingLayer, name: string, begin: number, end: number): Int32Array | Float32Array {
  const data = name === "topk_idx" ? layer.topkIdx.data : layer.topkWeights?.data;
  return (data ?? new Float32Array(0)).subarray(begin, end);
}
