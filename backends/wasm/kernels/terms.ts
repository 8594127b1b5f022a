/**
 * Float32 terms from rows and codes from float32 totals (design 2.10, 2.11), four lanes at a time.
 *
 * A block is four accumulators: 32 bytes of a 16-bit row or 64 bytes of an fp32 row. For bf16 accumulator 2i holds the even
 * and 2i+1 the odd elements of 16 bytes, so that neither direction needs a shuffle.
 *
 * The flush rule nearly for free. Every partial sum is a multiple of the last place of the smallest non-zero term. So when
 * every non-zero term is at least 2^-119 (bf16: 8 significant bits) or 2^-103 (fp32: 24), no partial sum can be subnormal
 * and flushing changes nothing: the fast kernels only look out for smaller terms ("tiny") and a row that has one is summed
 * again by the exact kernel. fp16 terms are multiples of 2^-24: there is nothing to flush, ever. Signs of zero terms do not
 * matter: sums start at +0 and stay off -0.
 */
export const BF16: i32 = 0;
export const FP16: i32 = 1;
export const FP32: i32 = 2;

/** Twice the code minus one, unsigned, of the largest tiny magnitude: zero wraps around to the top. */
export const TINY_BF16: i16 = (8 << 8) - 2;
export const TINY_FP32: i32 = (24 << 24) - 2;

export const NAN_BITS: i32 = 0x7fc00000;

// @ts-ignore: decorator
@inline
export function blockBytes(dtype: i32): u32 {
  return dtype == FP32 ? 64 : 32;
}

/** Keeps what has an exponent field, NaN included; anything smaller becomes +0. */
// @ts-ignore: decorator
@inline
export function flush(value: v128): v128 {
  const exponent = v128.and(value, i32x4.splat(0x7f800000));
  return v128.andnot(value, i32x4.eq(exponent, i32x4.splat(0)));
}

// @ts-ignore: decorator
@inline
export function isNaN4(value: v128): v128 {
  return f32x4.ne(value, value);
}

/** Four fp16 codes in the low halves of four lanes -> float32. Integer steps: an fp16 subnormal must not cost an assist. */
// @ts-ignore: decorator
@inline
function fp16Term(codes: v128): v128 {
  const magnitude = i32x4.shl(v128.and(codes, i32x4.splat(0x7fff)), 13);
  const exponent = v128.and(magnitude, i32x4.splat(0x0f800000));
  const sign = i32x4.shl(v128.and(codes, i32x4.splat(0x8000)), 16);
  const special = i32x4.eq(exponent, i32x4.splat(0x0f800000));
  const normal = i32x4.add(
    i32x4.add(magnitude, i32x4.splat(112 << 23)),
    v128.and(special, i32x4.splat(112 << 23)),
  );
  const subnormal = f32x4.sub(
    v128.or(magnitude, i32x4.splat(113 << 23)),
    f32x4.splat(<f32>0.00006103515625),
  );
  const isSubnormal = i32x4.eq(exponent, i32x4.splat(0));
  return v128.or(sign, v128.bitselect(subnormal, normal, isSubnormal));
}

/** Accumulator `lane` (0..3) of the block at `at`. */
// @ts-ignore: decorator
@inline
export function term(dtype: i32, at: u32, lane: i32): v128 {
  if (dtype == BF16) {
    const pair = v128.load(at + ((lane >> 1) << 4));
    return (lane & 1) == 0 ? i32x4.shl(pair, 16) : v128.and(pair, i32x4.splat(0xffff0000));
  }
  if (dtype == FP16) return fp16Term(v128.load16x4_u(at + (lane << 3)));
  return v128.load(at + (lane << 4));
}

/** Half 0 or 1 of the terms in 16 bytes of a row: `term` for codes that are at hand. fp32 has one half. */
// @ts-ignore: decorator
@inline
export function termOf(dtype: i32, codes: v128, half: i32): v128 {
  if (dtype == BF16) return half == 0 ? i32x4.shl(codes, 16) : v128.and(codes, i32x4.splat(0xffff0000));
  if (dtype == FP16) {
    return fp16Term(half == 0 ? i32x4.extend_low_i16x8_u(codes) : i32x4.extend_high_i16x8_u(codes));
  }
  return codes;
}

/** Float32 -> bf16 in the upper half of each lane, nearest even; the lower half is left over. Wrong for NaN. */
// @ts-ignore: decorator
@inline
function roundUpper(value: v128): v128 {
  const odd = v128.and(i32x4.shr_u(value, 16), i32x4.splat(1));
  return i32x4.add(i32x4.add(value, i32x4.splat(0x7fff)), odd);
}

/** Float32 -> bf16 in the upper half of each lane, nearest even, canonical NaN. */
// @ts-ignore: decorator
@inline
export function roundBf16(value: v128): v128 {
  const rounded = v128.bitselect(i32x4.splat(NAN_BITS), roundUpper(value), isNaN4(value));
  return v128.and(rounded, i32x4.splat(0xffff0000));
}

/** Even and odd totals without a NaN -> eight bf16 codes. */
// @ts-ignore: decorator
@inline
export function packBf16(even: v128, odd: v128): v128 {
  return v128.or(
    i32x4.shr_u(roundUpper(even), 16),
    v128.and(roundUpper(odd), i32x4.splat(0xffff0000)),
  );
}

/** Float32 -> fp16 code in the lower half of each lane, nearest even, canonical NaN. */
// @ts-ignore: decorator
@inline
export function roundFp16(value: v128): v128 {
  const sign = v128.and(i32x4.shr_u(value, 16), i32x4.splat(0x8000));
  const magnitude = v128.and(value, i32x4.splat(0x7fffffff));
  const odd = v128.and(i32x4.shr_u(magnitude, 13), i32x4.splat(1));
  const normal = i32x4.shr_u(
    i32x4.add(i32x4.add(magnitude, i32x4.splat(0xfff - 0x38000000)), odd),
    13,
  );
  // Adding 0.5 leaves 2^-24 as the last place: the hardware rounds the subnormal.
  const subnormal = i32x4.sub(f32x4.add(magnitude, f32x4.splat(0.5)), i32x4.splat(126 << 23));
  const small = i32x4.lt_s(magnitude, i32x4.splat(0x38800000));
  const large = i32x4.ge_s(magnitude, i32x4.splat(0x477ff000));
  const finite = v128.bitselect(subnormal, normal, small);
  const code = v128.or(sign, v128.bitselect(i32x4.splat(0x7c00), finite, large));
  return v128.bitselect(i32x4.splat(0x7e00), code, isNaN4(value));
}

/** Rounds a block of totals and writes its codes at `at`. */
// @ts-ignore: decorator
@inline
export function storeBlock(dtype: i32, at: u32, a0: v128, a1: v128, a2: v128, a3: v128): void {
  if (dtype == BF16) {
    v128.store(at, v128.or(i32x4.shr_u(roundBf16(a0), 16), roundBf16(a1)));
    v128.store(at, v128.or(i32x4.shr_u(roundBf16(a2), 16), roundBf16(a3)), 16);
  } else if (dtype == FP16) {
    v128.store(at, i16x8.narrow_i32x4_u(roundFp16(a0), roundFp16(a1)));
    v128.store(at, i16x8.narrow_i32x4_u(roundFp16(a2), roundFp16(a3)), 16);
  } else {
    const nan = i32x4.splat(NAN_BITS);
    v128.store(at, v128.bitselect(nan, a0, isNaN4(a0)));
    v128.store(at, v128.bitselect(nan, a1, isNaN4(a1)), 16);
    v128.store(at, v128.bitselect(nan, a2, isNaN4(a2)), 32);
    v128.store(at, v128.bitselect(nan, a3, isNaN4(a3)), 48);
  }
}

/** Lowers `least` by the tiny test of 16 bytes at `at`: unsigned minimum of 2 * code - 1. */
// @ts-ignore: decorator
@inline
export function leastOf(dtype: i32, least: v128, codes: v128): v128 {
  if (dtype == BF16) return i16x8.min_u(least, i16x8.sub(i16x8.add(codes, codes), i16x8.splat(1)));
  if (dtype == FP32) return i32x4.min_u(least, i32x4.sub(i32x4.add(codes, codes), i32x4.splat(1)));
  return least;
}

// @ts-ignore: decorator
@inline
export function hasTiny(dtype: i32, least: v128): bool {
  if (dtype == BF16) return v128.any_true(i16x8.le_u(least, i16x8.splat(TINY_BF16)));
  if (dtype == FP32) return v128.any_true(i32x4.le_u(least, i32x4.splat(TINY_FP32)));
  return false;
}
