/**
 * Sums the rows of one token (design 2.4, 2.5). A program is a list of steps of three u32: first and end of a list of row
 * addresses, and the address of the sum, which is rounded once. Steps before the last are the rows that cross a link; later
 * steps add them like any other row. All steps run on one block of columns before the next: every sum stays in registers,
 * and all rows of the token are read side by side, which is what keeps enough reads in flight.
 */
import { BF16, flush, FP16, FP32, hasTiny, leastOf, storeBlock, term } from "./terms";

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

// @ts-ignore: decorator
@inline
function watch(dtype: i32, least: v128, row: u32): v128 {
  if (dtype == FP16) return least;
  least = leastOf(dtype, least, v128.load(row));
  least = leastOf(dtype, least, v128.load(row, 16));
  least = leastOf(dtype, least, v128.load(row, 32));
  return leastOf(dtype, least, v128.load(row, 48));
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
    if (!exact) least = watch(dtype, least, row);
    a0 = add(exact, a0, term(dtype, row, 0));
    a1 = add(exact, a1, term(dtype, row, 1));
    a2 = add(exact, a2, term(dtype, row, 2));
    a3 = add(exact, a3, term(dtype, row, 3));
    if (dtype == FP32) continue;
    b0 = add(exact, b0, term(dtype, row + 32, 0));
    b1 = add(exact, b1, term(dtype, row + 32, 1));
    b2 = add(exact, b2, term(dtype, row + 32, 2));
    b3 = add(exact, b3, term(dtype, row + 32, 3));
  }
  storeBlock(dtype, out, a0, a1, a2, a3);
  if (dtype != FP32) storeBlock(dtype, out + 32, b0, b1, b2, b3);
  return least;
}

const STEP: u32 = 12;

/** All columns; returns whether a tiny term was seen (fast kernels only). */
// @ts-ignore: decorator
@inline
function columns(dtype: i32, exact: bool, program: u32, last: u32, bytes: u32): bool {
  const rows = load<u32>(last);
  const end = load<u32>(last, 4);
  const out = load<u32>(last, 8);
  let least = i32x4.splat(-1);
  let at: u32 = 0;
  for (; at + BLOCK <= bytes; at += BLOCK) {
    for (let step = program; step < last; step += STEP) {
      least = block(dtype, exact, load<u32>(step), load<u32>(step, 4), at, load<u32>(step, 8) + at, least);
    }
    least = block(dtype, exact, rows, end, at, out + at, least);
  }
  if (at < bytes) {
    // The last block reads past the rows (memory is padded for it) and is written in part.
    for (let step = program; step < last; step += STEP) {
      least = block(dtype, exact, load<u32>(step), load<u32>(step, 4), at, load<u32>(step, 8) + at, least);
    }
    least = block(dtype, exact, rows, end, at, tail, least);
    memory.copy(out + at, tail, bytes - at);
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
