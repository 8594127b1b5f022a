/**
 * log and exp from IEEE operations only: Math.log and Math.exp may differ in the last bit between JavaScript engines, and
 * what a seed gives must not. Both are within a few ulp.
 */
const words = new Uint32Array(2);
const double = new Float64Array(words.buffer);

/** Natural logarithm of a positive normal number. */
export function log(x: number): number {
  double[0] = x;
  let exponent = (words[1] >>> 20) - 1023;
  words[1] = (words[1] & 0xfffff) | 0x3ff00000;
  let m = double[0];
  if (m > Math.SQRT2) {
    m /= 2;
    exponent++;
  }
  const s = (m - 1) / (m + 1);
  const z = s * s;
  // 2 atanh(s) = log(m): |s| <= 0.1716, so the first term left out is below 2^-55 of the result.
  const high = 1 / 13 + z * (1 / 15 + z * (1 / 17 + z * (1 / 19 + z * (1 / 21))));
  const low = 1 / 3 + z * (1 / 5 + z * (1 / 7 + z * (1 / 9 + z * (1 / 11 + z * high))));
  return 2 * s * (1 + z * low) + exponent * Math.LN2;
}

/** e^x for |x| < 700. */
export function exp(x: number): number {
  const n = Math.round(x * Math.LOG2E);
  // ln 2 in two parts, the first of which times n is exact; |r| <= 0.35.
  const r = x - n * 0.6931471803691238 - n * 1.9082149292705877e-10;
  const high = 1 / 40320 + r * (1 / 362880 + r * (1 / 3628800 + r * (1 / 39916800 + r * (1 / 479001600))));
  const low = 1 / 6 + r * (1 / 24 + r * (1 / 120 + r * (1 / 720 + r * (1 / 5040 + r * high))));
  words[0] = 0;
  words[1] = (n + 1023) << 20;
  return (1 + r * (1 + r * (0.5 + r * low))) * double[0];
}
