import { bitsOf, floatOf } from "./float32.ts";

/** The canonical bf16 NaN (design 2.11). */
export const BF16_NAN = 0x7fc0;

/** The value of a bf16 code; exact. */
export function bf16ToNumber(code: number): number {
  return floatOf((code << 16) >>> 0);
}

/** Float32 bits to the nearest bf16 code, ties to even; every NaN becomes 0x7fc0. */
export function bf16FromBits(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return BF16_NAN;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The nearest bf16 code of a number that is first rounded to float32. */
export function bf16FromNumber(value: number): number {
  return bf16FromBits(bitsOf(value));
}
