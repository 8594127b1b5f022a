import { bitsOf } from "./float32.ts";

/** The canonical fp16 NaN (design 2.11). */
export const FP16_NAN = 0x7e00;

/** The value of an fp16 code; exact. */
export function fp16ToNumber(code: number): number {
  const sign = code & 0x8000 ? -1 : 1;
  const exponent = (code >> 10) & 0x1f;
  const mantissa = code & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1024 + mantissa) * 2 ** (exponent - 25);
}

/** Float32 bits to the nearest fp16 code, ties to even; subnormal results are kept, every NaN becomes 0x7e00. */
export function fp16FromBits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return FP16_NAN;
  // 65520 = halfway between the largest fp16 (65504) and the next step: rounds to infinity.
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) {
    const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
    return sign | ((rounded - 0x38000000) >>> 13);
  }
  // Below 2^-25 (and at it, ties to even) the result is zero.
  if (magnitude <= 0x33000000) return sign;
  const shift = 126 - (magnitude >>> 23);
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const half = 1 << (shift - 1);
  const kept = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const up = rest > half || (rest === half && (kept & 1) === 1) ? 1 : 0;
  return sign | (kept + up);
}

/** The nearest fp16 code of a number that is first rounded to float32. */
export function fp16FromNumber(value: number): number {
  return fp16FromBits(bitsOf(value));
}
