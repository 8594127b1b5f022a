import { type DType, elementBytes, type SumDType } from "../../core/dtype/dtype.ts";
import { type Tensor, tensor } from "../../core/tensor.ts";
import type { Shape } from "./cases.ts";
import type { Case } from "./reference.ts";

/** A small deterministic generator (mulberry32): the same data in Node and in the browser. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export interface Data {
  readonly shape: Shape;
  readonly case: Case;
  readonly x: Tensor[];
  readonly scales: Tensor[] | null;
  readonly topkIdx: Tensor[];
  readonly topkWeights: Tensor[];
}

export function makeData(shape: Shape, seed = 1): Data {
  const next = random(seed * 7919 + shape.name.length);
  const topkIdx = shape.numTokens.map((tokens, rank) =>
    Array.from({ length: tokens }, () => {
      const chosen = new Set<number>(shape.hotExpert ? [3] : []);
      while (chosen.size < shape.topk) chosen.add(Math.floor(next() * shape.numExperts));
      const idle = shape.onlyRanks !== undefined && !shape.onlyRanks.includes(rank);
      const slots = [...chosen].map((expert) => (idle || next() < (shape.dropped ?? 0) ? -1 : expert));
      return slots.sort(() => next() - 0.5);
    }),
  );
  const columns = Math.ceil(shape.hidden / 128);
  return {
    shape,
    case: {
      numRanks: shape.numRanks,
      ranksPerNode: shape.ranksPerNode ?? shape.numRanks,
      numExperts: shape.numExperts,
      topkIdx,
    },
    x: shape.numTokens.map((tokens) => rows(shape.dtype, tokens, shape.hidden, shape.values, next)),
    scales:
      elementBytes(shape.dtype) === 1
        ? shape.numTokens.map((tokens) => rows("fp32", tokens, columns, shape.values, next))
        : null,
    topkIdx: topkIdx.map((tokens) => {
      const ids = tokens.flat();
      const size = [tokens.length, shape.topk];
      return shape.idDtype === "i32"
        ? tensor("i32", size, Int32Array.from(ids))
        : tensor("i64", size, BigInt64Array.from(ids, BigInt));
    }),
    topkWeights: shape.numTokens.map((tokens) => rows("fp32", tokens, shape.topk, shape.values, next)),
  };
}

export function sumDtype(shape: Shape): SumDType {
  return shape.sumDtype ?? (elementBytes(shape.dtype) === 1 ? "bf16" : (shape.dtype as SumDType));
}

/** Random rows of any dtype. "normal" values are of order 1; "tiny" ones lie around the smallest normal float32. */
export function rows(
  dtype: DType,
  numRows: number,
  width: number,
  values: Shape["values"] = "normal",
  next: () => number,
): Tensor {
  const result = tensor(dtype, [numRows, width]);
  const bytes = new DataView(result.data.buffer);
  const size = elementBytes(dtype);
  for (let i = 0; i < numRows * width; i++) {
    const bits = Math.floor(next() * 2 ** 32);
    if (size === 1) bytes.setUint8(i, bits & 0xff);
    else if (size === 2) bytes.setUint16(i * 2, half(dtype, bits, values), true);
    else bytes.setUint32(i * 4, single(bits, values), true);
  }
  return result;
}

/** Sign, mantissa and a narrow exponent; every bit for "bits". */
function half(dtype: DType, bits: number, values: Shape["values"]): number {
  if (values === "bits") return bits & 0xffff;
  if (dtype === "fp16") return (bits & 0x83ff) | ((13 + ((bits >>> 20) & 3)) << 10);
  const exponent = values === "tiny" ? (bits >>> 20) & 3 : 126 + ((bits >>> 20) & 3);
  return (bits & 0x807f) | (exponent << 7);
}

function single(bits: number, values: Shape["values"]): number {
  if (values === "bits") return bits;
  const exponent = values === "tiny" ? (bits >>> 28) & 3 : 126 + ((bits >>> 28) & 3);
  return ((bits << 31) | (exponent << 23) | ((bits >>> 1) & 0x7fffff)) >>> 0;
}

/** The codes of a tensor: raw bits, never through a float. */
export function codes(value: Tensor): ArrayLike<number> {
  const size = elementBytes(value.dtype);
  const { buffer, byteOffset, length } = value.data;
  if (size === 1) return new Uint8Array(buffer, byteOffset, length);
  return size === 2 ? new Uint16Array(buffer, byteOffset, length) : new Uint32Array(buffer, byteOffset, length);
}
