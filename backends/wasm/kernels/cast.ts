/** Products of rows (design 2.11, product rule) and the fp8 casts (design 6), one row per call. */
import { BF16, blockBytes, flush, FP16, FP32, NAN_BITS, roundBf16, storeBlock, term } from "./terms";

const COLUMNS: u32 = 128;

/** Room for the padded last block of a row: 128 fp32 elements in, as many out. */
let scratch: u32 = 0;

export function setScratch(address: u32): void {
  scratch = address;
}

/** Float32 product under the rule for products: exponent field <= 1 counts as zero with its sign. */
// @ts-ignore: decorator
@inline
function product(a: v128, b: v128): v128 {
  const value = f32x4.mul(a, b);
  const small = i32x4.lt_u(v128.and(value, i32x4.splat(0x7fffffff)), i32x4.splat(0x01000000));
  return v128.bitselect(v128.and(value, i32x4.splat(0x80000000)), value, small);
}

/** A term whose exponent field is 0 as a zero with its sign. */
// @ts-ignore: decorator
@inline
function signedFlush(value: v128): v128 {
  return v128.or(flush(value), v128.and(value, i32x4.splat(0x80000000)));
}

// @ts-ignore: decorator
@inline
function scaleBlock(dtype: i32, source: u32, target: u32, factor: v128): void {
  storeBlock(
    dtype,
    target,
    product(signedFlush(term(dtype, source, 0)), factor),
    product(signedFlush(term(dtype, source, 1)), factor),
    product(signedFlush(term(dtype, source, 2)), factor),
    product(signedFlush(term(dtype, source, 3)), factor),
  );
}

// @ts-ignore: decorator
@inline
function scale(dtype: i32, source: u32, target: u32, bytes: u32, factor: f32): void {
  const step = blockBytes(dtype);
  const factors = signedFlush(f32x4.splat(factor));
  let at: u32 = 0;
  for (; at + step <= bytes; at += step) scaleBlock(dtype, source + at, target + at, factors);
  if (at == bytes) return;
  scaleBlock(dtype, source + at, scratch, factors);
  memory.copy(target + at, scratch, bytes - at);
}

export function scaleBf16(source: u32, target: u32, bytes: u32, factor: f32): void {
  scale(BF16, source, target, bytes, factor);
}
export function scaleFp16(source: u32, target: u32, bytes: u32, factor: f32): void {
  scale(FP16, source, target, bytes, factor);
}
export function scaleFp32(source: u32, target: u32, bytes: u32, factor: f32): void {
  scale(FP32, source, target, bytes, factor);
}

/** Float32 -> e4m3fn code in each lane: nearest even, saturating, NaN = 0x7f. */
// @ts-ignore: decorator
@inline
function fp8Codes(value: v128): v128 {
  const sign = v128.and(i32x4.shr_u(value, 24), i32x4.splat(0x80));
  const magnitude = v128.and(value, i32x4.splat(0x7fffffff));
  const odd = v128.and(i32x4.shr_u(magnitude, 20), i32x4.splat(1));
  const normal = i32x4.shr_u(i32x4.add(i32x4.add(magnitude, i32x4.splat(0x7ffff - 0x3c000000)), odd), 20);
  // 16384 leaves 2^-9 as the last place: the hardware rounds the subnormal.
  const subnormal = i32x4.sub(f32x4.add(magnitude, f32x4.splat(16384)), i32x4.splat(0x46800000));
  const small = i32x4.lt_s(magnitude, i32x4.splat(0x3c800000));
  const large = i32x4.ge_s(magnitude, i32x4.splat(0x43e00000));
  let code = v128.bitselect(subnormal, i32x4.min_s(normal, i32x4.splat(0x7e)), small);
  code = v128.or(sign, v128.bitselect(i32x4.splat(0x7e), code, large));
  return v128.bitselect(i32x4.splat(0x7f), code, f32x4.ne(value, value));
}

/** Restores column order: accumulators 2i and 2i+1 of a bf16 block are its even and odd elements. */
// @ts-ignore: decorator
@inline
function inOrder(dtype: i32, a: v128, b: v128, high: bool): v128 {
  if (dtype != BF16) return high ? b : a;
  return high ? v128.shuffle<i32>(a, b, 2, 6, 3, 7) : v128.shuffle<i32>(a, b, 0, 4, 1, 5);
}

/** 16 columns of 128 at `source` -> 16 codes. Subnormal terms and products round to zero with their sign anyway. */
// @ts-ignore: decorator
@inline
function quantize16(dtype: i32, source: u32, target: u32, factor: v128): void {
  const c0 = fp8Codes(f32x4.mul(term(dtype, source, 0), factor));
  const c1 = fp8Codes(f32x4.mul(term(dtype, source, 1), factor));
  const c2 = fp8Codes(f32x4.mul(term(dtype, source, 2), factor));
  const c3 = fp8Codes(f32x4.mul(term(dtype, source, 3), factor));
  const low = i16x8.narrow_i32x4_u(inOrder(dtype, c0, c1, false), inOrder(dtype, c0, c1, true));
  const high = i16x8.narrow_i32x4_u(inOrder(dtype, c2, c3, false), inOrder(dtype, c2, c3, true));
  v128.store(target, i8x16.narrow_i16x8_u(low, high));
}

// @ts-ignore: decorator
@inline
function toFp8Block(dtype: i32, source: u32, target: u32, scaleAt: u32): void {
  const step = blockBytes(dtype);
  const end = source + (step << 3);
  const magnitudes = i32x4.splat(0x7fffffff);
  let largest = f32x4.splat(<f32>1e-4);
  for (let at = source; at < end; at += step) {
    largest = f32x4.max(largest, v128.and(term(dtype, at, 0), magnitudes));
    largest = f32x4.max(largest, v128.and(term(dtype, at, 1), magnitudes));
    largest = f32x4.max(largest, v128.and(term(dtype, at, 2), magnitudes));
    largest = f32x4.max(largest, v128.and(term(dtype, at, 3), magnitudes));
  }
  const amax = max<f32>(
    max<f32>(f32x4.extract_lane(largest, 0), f32x4.extract_lane(largest, 1)),
    max<f32>(f32x4.extract_lane(largest, 2), f32x4.extract_lane(largest, 3)),
  );
  const factor = f32x4.splat(<f32>448 / amax);
  for (let at = source; at < end; at += step, target += 16) quantize16(dtype, at, target, factor);
  if (amax != amax) store<i32>(scaleAt, NAN_BITS);
  else store<f32>(scaleAt, amax / <f32>448);
}

// @ts-ignore: decorator
@inline
function toFp8(dtype: i32, source: u32, target: u32, scales: u32, width: u32): void {
  const blockSize = blockBytes(dtype) << 3;
  let column: u32 = 0;
  for (; column + COLUMNS <= width; column += COLUMNS, source += blockSize, scales += 4) {
    toFp8Block(dtype, source, target + column, scales);
  }
  if (column == width) return;
  const rest = width - column;
  memory.fill(scratch, 0, blockSize);
  memory.copy(scratch, source, rest * (blockSize >> 7));
  toFp8Block(dtype, scratch, scratch + blockSize, scales);
  memory.copy(target + column, scratch + blockSize, rest);
}

export function toFp8Bf16(source: u32, target: u32, scales: u32, width: u32): void {
  toFp8(BF16, source, target, scales, width);
}
export function toFp8Fp16(source: u32, target: u32, scales: u32, width: u32): void {
  toFp8(FP16, source, target, scales, width);
}
export function toFp8Fp32(source: u32, target: u32, scales: u32, width: u32): void {
  toFp8(FP32, source, target, scales, width);
}

/** Four e4m3fn codes -> float32, exact. */
// @ts-ignore: decorator
@inline
function fp8Term(codes: v128): v128 {
  const magnitude = v128.and(codes, i32x4.splat(0x7f));
  const sign = i32x4.shl(v128.and(codes, i32x4.splat(0x80)), 24);
  const normal = i32x4.add(i32x4.shl(magnitude, 20), i32x4.splat(0x3c000000));
  const subnormal = f32x4.mul(f32x4.convert_i32x4_s(magnitude), f32x4.splat(<f32>0.001953125));
  let value = v128.bitselect(subnormal, normal, i32x4.lt_s(magnitude, i32x4.splat(8)));
  value = v128.bitselect(i32x4.splat(NAN_BITS), value, i32x4.eq(magnitude, i32x4.splat(0x7f)));
  return v128.or(sign, value);
}

/** Eight codes at `source` -> eight bf16 at `target`. */
// @ts-ignore: decorator
@inline
function fromFp8Block(source: u32, target: u32, factor: v128): void {
  const codes = v128.load8x8_u(source);
  const low = roundBf16(product(fp8Term(i32x4.extend_low_i16x8_u(codes)), factor));
  const high = roundBf16(product(fp8Term(i32x4.extend_high_i16x8_u(codes)), factor));
  v128.store(target, v128.shuffle<i16>(low, high, 1, 3, 5, 7, 9, 11, 13, 15));
}

export function fromFp8(source: u32, scales: u32, target: u32, width: u32): void {
  for (let first: u32 = 0; first < width; first += COLUMNS, scales += 4) {
    const factor = signedFlush(v128.load32_splat(scales));
    const end = min<u32>(width, first + COLUMNS);
    let column = first;
    for (; column + 8 <= end; column += 8) fromFp8Block(source + column, target + (column << 1), factor);
    if (column == end) continue;
    fromFp8Block(source + column, scratch, factor);
    memory.copy(target + (column << 1), scratch, (end - column) << 1);
  }
}
