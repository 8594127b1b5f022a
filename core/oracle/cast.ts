import { bf16FromNumber, bf16ToNumber } from "../dtype/bf16.ts";
import { type ArrayOf, SCALE_BLOCK, type SumDType } from "../dtype/dtype.ts";
import { bitsOf, flush, multiply, NAN_BITS } from "../dtype/float32.ts";
import { fp8FromBits, fp8ToNumber } from "../dtype/fp8.ts";
import { fp16FromNumber, fp16ToNumber } from "../dtype/fp16.ts";
import { type Tensor, tensor } from "../tensor.ts";

/** Floor of the block maximum, so that a block of zeros has a finite scale (DeepEP's per_token_cast_to_fp8). */
const MIN_AMAX = Math.fround(1e-4);

function toNumber(dtype: SumDType, code: number): number {
  if (dtype === "fp32") return code;
  return dtype === "bf16" ? bf16ToNumber(code) : fp16ToNumber(code);
}

/**
 * [rows, H] -> fp8e4m3 [rows, H] and scales [rows, ceil(H/128)]: per block of 128 columns amax floored at 1e-4,
 * x * (448/amax) in float32 rounded to e4m3, stored scale amax/448. A NaN in a block makes all of the block NaN.
 */
export function castToFp8(x: Tensor): { x: Tensor<"fp8e4m3">; scales: Tensor<"fp32"> } {
  const [rows, hidden] = x.shape;
  const blocks = Math.ceil(hidden / SCALE_BLOCK);
  const out = tensor("fp8e4m3", [rows, hidden]);
  const scales = tensor("fp32", [rows, blocks]);
  const codes = x.data as ArrayOf<SumDType>;
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < blocks; block++) {
      const first = row * hidden + block * SCALE_BLOCK;
      const last = row * hidden + Math.min(hidden, (block + 1) * SCALE_BLOCK);
      let amax = MIN_AMAX;
      for (let i = first; i < last; i++) {
        const magnitude = Math.abs(toNumber(x.dtype as SumDType, codes[i]));
        if (magnitude > amax || Number.isNaN(magnitude)) amax = magnitude;
        if (Number.isNaN(amax)) break;
      }
      const factor = Math.fround(448 / amax);
      for (let i = first; i < last; i++) {
        const value = flush(toNumber(x.dtype as SumDType, codes[i]));
        out.data[i] = fp8FromBits(bitsOf(multiply(value, factor)));
      }
      writeFloat(scales.data, row * blocks + block, Math.fround(amax / 448));
    }
  }
  return { x: out, scales };
}

/** fp8e4m3 [rows, H] x scales [rows, ceil(H/128)] -> bf16 [rows, H]: the float32 product, rounded once. */
export function castBack(x: Tensor, scales: Tensor): Tensor<"bf16"> {
  const [rows, hidden] = x.shape;
  const blocks = scales.shape[1];
  const out = tensor("bf16", [rows, hidden]);
  const codes = x.data as Uint8Array;
  for (let i = 0; i < codes.length; i++) {
    const row = Math.floor(i / hidden);
    const scale = scales.data[row * blocks + Math.floor((i - row * hidden) / SCALE_BLOCK)] as number;
    out.data[i] = bf16FromNumber(multiply(fp8ToNumber(codes[i]), flush(scale)));
  }
  return out;
}

/** x[row, :] * factor[row] in float32 under the product rule, rounded to x's dtype. */
export function scaleRows(x: Tensor, factors: Tensor, out: Tensor = tensor(x.dtype, x.shape)): Tensor {
  const hidden = x.shape[1];
  const codes = x.data as ArrayOf<SumDType>;
  const target = out.data as ArrayOf<SumDType>;
  for (let row = 0; row < x.shape[0]; row++) {
    const factor = flush(factors.data[row] as number);
    for (let i = row * hidden; i < (row + 1) * hidden; i++) {
      const product = multiply(flush(toNumber(x.dtype as SumDType, codes[i])), factor);
      if (x.dtype === "fp32") writeFloat(target as Float32Array, i, product);
      else target[i] = x.dtype === "bf16" ? bf16FromNumber(product) : fp16FromNumber(product);
    }
  }
  return out;
}

function writeFloat(target: Float32Array, index: number, value: number): void {
  new Uint32Array(target.buffer, target.byteOffset, target.length)[index] = Number.isNaN(value)
    ? NAN_BITS
    : bitsOf(value);
}
