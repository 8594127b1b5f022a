/**
 * Sums the rows of one token (design 2.4, 2.5). A program is a list of steps of three u32: first and end of a list of row
 * addresses, and the address of the sum, which is rounded once. Steps before the last are the rows that cross a link; later
 * steps add them like any other row. All steps run on one block of columns before the next: every sum stays in registers,
 * and all rows of the token are read side by side, which is what keeps enough reads in flight.
 */
import { BF16, flush, FP16, FP32, hasTiny, isNaN4, leastOf, packBf16, storeBlock, termOf } from "./terms";

/** Bytes of a row that are summed at a time: 8 accumulators of a 16-bit dtype, 4 of fp32. */
const BLOCK: u32 = 64;

/** BLOCK bytes that a last, partial block is written to first. */
let tail: u32 = 0;

export function setTail(address: u32): void {
  tail = address;
}

// @ts-ignore: decorator
@inline
function add(exact: bool, sum: v128, value: v128): v128 {
  return exact ? flush(f32x4.add(sum, flush(value))) : f32x4.add(sum, value);
}

/** Clears the lanes of `least` where a total is NaN: the exact kernel then sees to the canonical NaN. */
// @ts-ignore: decorator
@inline
function watchNaN(least: v128, even: v128, odd: v128): v128 {
  return v128.andnot(least, v128.or(isNaN4(even), isNaN4(odd)));
}

/** Adds all rows at column offset `at` and writes the block to `out`; returns the lowered `least`. */
// @ts-ignore: decorator
@inline
function block(dtype: i32, exact: bool, rows: u32, end: u32, at: u32, out: u32, least: v128): v128 {
  const zero = f32x4.splat(0);
  let a0 = zero;
  let a1 = zero;
  let a2 = zero;
  let a3 = zero;
  let b0 = zero;
  let b1 = zero;
  let b2 = zero;
  let b3 = zero;
  for (let entry = rows; entry < end; entry += 4) {
    const row = load<u32>(entry) + at;
    const c0 = v128.load(row);
    const c1 = v128.load(row, 16);
    const c2 = v128.load(row, 32);
    const c3 = v128.load(row, 48);
    if (!exact) {
      least = leastOf(dtype, least, c0);
      least = leastOf(dtype, least, c1);
      least = leastOf(dtype, least, c2);
      least = leastOf(dtype, least, c3);
    }
    a0 = add(exact, a0, termOf(dtype, c0, 0));
    a1 = add(exact, a1, termOf(dtype, c1, 0));
    a2 = add(exact, a2, termOf(dtype, c2, 0));
    a3 = add(exact, a3, termOf(dtype, c3, 0));
    if (dtype == FP32) continue;
    b0 = add(exact, b0, termOf(dtype, c0, 1));
    b1 = add(exact, b1, termOf(dtype, c1, 1));
    b2 = add(exact, b2, termOf(dtype, c2, 1));
    b3 = add(exact, b3, termOf(dtype, c3, 1));
  }
  if (dtype == BF16 && !exact) {
    v128.store(out, packBf16(a0, b0));
    v128.store(out, packBf16(a1, b1), 16);
    v128.store(out, packBf16(a2, b2), 32);
    v128.store(out, packBf16(a3, b3), 48);
    least = watchNaN(least, a0, b0);
    least = watchNaN(least, a1, b1);
    least = watchNaN(least, a2, b2);
    return watchNaN(least, a3, b3);
  }
  if (dtype == FP32) storeBlock(dtype, out, a0, a1, a2, a3);
  else {
    storeBlock(dtype, out, a0, b0, a1, b1);
    storeBlock(dtype, out + 32, a2, b2, a3, b3);
  }
  return least;
}

const STEP: u32 = 12;
/** Columns that a step runs on before the next step has its turn. */
const STRETCH: u32 = 256;

/** One step on the columns from `at` up to `until`, a multiple of BLOCK behind `at`. */
// @ts-ignore: decorator
@inline
function stretch(dtype: i32, exact: bool, step: u32, at: u32, until: u32, least: v128): v128 {
  const rows = load<u32>(step);
  const end = load<u32>(step, 4);
  const out = load<u32>(step, 8);
  for (; at < until; at += BLOCK) least = block(dtype, exact, rows, end, at, out + at, least);
  return least;
}

/** All columns; returns whether a tiny term or a NaN was seen (fast kernels only). */
// @ts-ignore: decorator
@inline
function columns(dtype: i32, exact: bool, program: u32, last: u32, bytes: u32): bool {
  const whole = bytes & ~(BLOCK - 1);
  let least = i32x4.splat(-1);
  for (let at: u32 = 0; at < whole; at += STRETCH) {
    const until = min<u32>(whole, at + STRETCH);
    for (let step = program; step <= last; step += STEP) least = stretch(dtype, exact, step, at, until, least);
  }
  if (whole < bytes) {
    // The last block reads past the rows (memory is padded for it) and is written in part.
    for (let step = program; step < last; step += STEP) {
      least = block(dtype, exact, load<u32>(step), load<u32>(step, 4), whole, load<u32>(step, 8) + whole, least);
    }
    least = block(dtype, exact, load<u32>(last), load<u32>(last, 4), whole, tail, least);
    memory.copy(load<u32>(last, 8) + whole, tail, bytes - whole);
  }
  return exact ? false : hasTiny(dtype, least);
}

/** `program`: its first step; `last`: its last. */
export function sumBf16(program: u32, last: u32, bytes: u32): void {
  if (columns(BF16, false, program, last, bytes)) columns(BF16, true, program, last, bytes);
}
export function sumFp16(program: u32, last: u32, bytes: u32): void {
  columns(FP16, false, program, last, bytes);
}
export function sumFp32(program: u32, last: u32, bytes: u32): void {
  if (columns(FP32, false, program, last, bytes)) columns(FP32, true, program, last, bytes);
}
