/** fp8 e4m3fn: 4 exponent bits (bias 7), 3 mantissa bits, no infinities, S.1111.111 is NaN, largest 448. */
export const FP8_MAX = 448;
/** The canonical fp8 NaN. */
export const FP8_NAN = 0x7f;

/** The value of an e4m3fn code; exact. */
export function fp8ToNumber(code: number): number {
  const sign = code & 0x80 ? -1 : 1;
  const exponent = (code >> 3) & 0xf;
  const mantissa = code & 7;
  if (exponent === 15 && mantissa === 7) return Number.NaN;
  return exponent === 0 ? sign * mantissa * 2 ** -9 : sign * (8 + mantissa) * 2 ** (exponent - 10);
}

/**
 * The nearest e4m3fn code of float32 bits, ties to even, saturating at 448 (the peers' cast never exceeds it by more
 * than rounding); NaN becomes 0x7f. Subnormal results are kept.
 */
export function fp8FromBits(bits: number): number {
  const sign = (bits >>> 24) & 0x80;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return FP8_NAN;
  if (magnitude >= 0x43e00000) return sign | 0x7e;
  // 2^-6 is the smallest normal: 20 mantissa bits go, the exponent is rebiased from 127 to 7.
  if (magnitude >= 0x3c800000) {
    const rounded = magnitude + 0x7ffff + ((magnitude >>> 20) & 1);
    return sign | Math.min(0x7e, (rounded - 0x3c000000) >>> 20);
  }
  if (magnitude <= 0x3a800000) return sign;
  const shift = 141 - (magnitude >>> 23);
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const half = 1 << (shift - 1);
  const kept = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const up = rest > half || (rest === half && (kept & 1) === 1) ? 1 : 0;
  return sign | (kept + up);
}
