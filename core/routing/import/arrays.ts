import { bf16ToNumber } from "../../dtype/bf16.ts";
import type { DType } from "../../dtype/dtype.ts";
import { fp16ToNumber } from "../../dtype/fp16.ts";
import type { SafetensorsFile } from "../../io/safetensors/index.ts";
import type { Tensor } from "../../tensor.ts";
import { invalidFile } from "./options.ts";
import type { LayerData, LayerSource } from "./routingFile.ts";

/** An array in a file, whatever the container. */
export interface ArrayReader {
  readonly file: string;
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readRows(firstRow: number, numRows: number): Promise<Tensor>;
}

/** The array `name` of a safetensors file; null when there is none. */
export function arrayOf(file: SafetensorsFile, name: string): ArrayReader | null {
  const entry = file.tensors.get(name);
  if (entry === undefined) {
    const other = file.unsupported.get(name);
    if (other === undefined) return null;
    throw invalidFile(file.name, name, "i32, i64, i16, u8 or fp32", other.fileDtype, "cast it when writing the file");
  }
  const { dtype, shape } = entry;
  return { file: file.name, name, dtype, shape, readRows: (first, count) => file.readRows(name, first, count) };
}

/**
 * Layers out of ids (and weights) of [tokens, topk] = one layer, [layers, tokens, topk], or with `tokensFirst`
 * [tokens, layers, topk]. Layers are read one at a time.
 */
export function arrayLayers(ids: ArrayReader, weights: ArrayReader | null, tokensFirst = false): LayerSource {
  const { shape } = ids;
  if (shape.length !== 2 && shape.length !== 3) {
    throw refuse(ids, tokensFirst ? "[tokens, layers, topk]" : "[tokens, topk] or [layers, tokens, topk]");
  }
  if (!["u8", "i16", "i32", "i64"].includes(ids.dtype)) throw refuse(ids, "whole numbers (i32, i64, i16 or u8)");
  const topk = shape[shape.length - 1];
  if (topk < 1) throw refuse(ids, "at least one slot per token");
  if (weights !== null) {
    if (weights.shape.join() !== shape.join()) throw refuse(weights, `the shape of ${ids.name}, [${shape.join(", ")}]`);
    if (!["fp32", "bf16", "fp16"].includes(weights.dtype)) throw refuse(weights, "fp32, bf16 or fp16");
  }
  if (tokensFirst && shape.length === 3) return tokensFirstLayers(ids, weights);
  const [numLayers, numTokens] = shape.length === 3 ? [shape[0], shape[1]] : [1, shape[0]];
  const rows = (reader: ArrayReader, layer: number) =>
    shape.length === 3 ? reader.readRows(layer, 1) : reader.readRows(0, numTokens);
  return {
    numLayers,
    numTokens,
    topk,
    layer: async (index) => ({
      ids: toIds(ids, await rows(ids, index), topk, 0),
      weights: weights && toWeights(await rows(weights, index)),
    }),
  };
}

/** Layers of [tokens, layers, topk] up to this many slots are kept from one pass over the file. */
const MAX_KEPT_SLOTS = 1 << 27;

/** A layer of [tokens, layers, topk] is strided: all are gathered in one pass when they fit, else each in a pass of its own. */
function tokensFirstLayers(ids: ArrayReader, weights: ArrayReader | null): LayerSource {
  const [numTokens, numLayers, topk] = ids.shape;
  const piece = Math.max(1, Math.floor((4 << 20) / Math.max(1, numLayers * topk)));
  const gather = async (first: number, count: number): Promise<LayerData[]> => {
    const layers = Array.from({ length: count }, () => ({
      ids: new Int32Array(numTokens * topk),
      weights: weights && new Float32Array(numTokens * topk),
    }));
    for (let firstToken = 0; firstToken < numTokens; firstToken += piece) {
      const tokens = Math.min(piece, numTokens - firstToken);
      const someIds = toIds(ids, await ids.readRows(firstToken, tokens), topk, firstToken * numLayers);
      const someWeights = weights && toWeights(await weights.readRows(firstToken, tokens));
      for (let token = 0; token < tokens; token++) {
        for (const [i, layer] of layers.entries()) {
          const from = (token * numLayers + first + i) * topk;
          const to = (firstToken + token) * topk;
          layer.ids.set(someIds.subarray(from, from + topk), to);
          if (someWeights) layer.weights?.set(someWeights.subarray(from, from + topk), to);
        }
      }
    }
    return layers;
  };
  let kept: Promise<LayerData[]> | null = null;
  return {
    numLayers,
    numTokens,
    topk,
    layer: async (index) => {
      if (numTokens * numLayers * topk > MAX_KEPT_SLOTS) return (await gather(index, 1))[0];
      kept ??= gather(0, numLayers);
      return (await kept)[index];
    },
  };
}

/** Ids as int32; an int64 that does not fit is an InvalidFile naming token and slot. */
function toIds(reader: ArrayReader, value: Tensor, topk: number, firstToken: number): Int32Array {
  if (value.dtype === "i32") return value.data as Int32Array;
  if (value.dtype !== "i64") return Int32Array.from(value.data as Uint8Array | Int16Array);
  const data = value.data as BigInt64Array;
  const words = new Int32Array(data.buffer, data.byteOffset, data.length * 2);
  const ids = new Int32Array(data.length);
  for (let i = 0; i < ids.length; i++) {
    ids[i] = words[2 * i];
    if (words[2 * i + 1] === ids[i] >> 31) continue;
    const where = `${data[i]} at token ${firstToken + Math.floor(i / topk)}, slot ${i % topk}`;
    throw invalidFile(reader.file, reader.name, "32-bit expert ids", where);
  }
  return ids;
}

export function toWeights(value: Tensor): Float32Array {
  if (value.dtype === "fp32") return value.data as Float32Array;
  const toNumber = value.dtype === "bf16" ? bf16ToNumber : fp16ToNumber;
  return Float32Array.from(value.data as Uint16Array, toNumber);
}

function refuse(reader: ArrayReader, expected: string): Error {
  return invalidFile(reader.file, reader.name, expected, `${reader.dtype} [${reader.shape.join(", ")}]`);
}
