import type { SumDType } from "../core/dtype/dtype.ts";
import { type Tensor, tensor } from "../core/tensor.ts";

/**
 * [numRows, hidden] of values of order 1, both signs, from a seed: random mantissas under exponents -2..1. Two 16-bit or
 * one 32-bit element per step of a 32-bit xorshift, so that gigabytes take a second.
 */
export function randomRows(dtype: SumDType, numRows: number, hidden: number, seed: number): Tensor {
  const count = numRows * hidden;
  const wide = dtype === "fp32";
  const words = new Uint32Array(wide ? count : Math.ceil(count / 2));
  let state = (Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ 0xc2b2ae35) | 1;
  // Per 16-bit half: keep sign and mantissa, put the exponent at 125..128 (bf16, fp32) or 13..16 (fp16).
  const [keep, base, shift] = MASKS[dtype];
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    const exponents = wide ? (state & 3) << 23 : ((state & 3) | ((state & 0x300) << 8)) << shift;
    words[i] = ((state & keep) + base + exponents) >>> 0;
  }
  if (wide) return tensor("fp32", [numRows, hidden], new Float32Array(words.buffer));
  return tensor(dtype, [numRows, hidden], new Uint16Array(words.buffer, 0, count));
}

const MASKS: Record<SumDType, readonly [number, number, number]> = {
  bf16: [0x807f807f | 0, 0x3e803e80, 7],
  fp16: [0x83ff83ff | 0, 0x34003400, 10],
  fp32: [0x807fffff | 0, 0x3e800000, 23],
};
