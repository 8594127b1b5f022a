/**
 * Sums rows of one token (design 2.4, 2.5). A program is `count` pairs of u32: address of a row, and what to do with it.
 * Column block by column block all rows are added in program order, so that every sum stays in registers.
 */
import { BF16, blockBytes, flush, FP16, FP32, hasTiny, leastOf, roundTrip, storeBlock, term } from "./terms";

/** Code of a row: which sum it is added to ... */
export const TO_TOTAL: u32 = 0;
export const TO_NODE: u32 = 1;
export const TO_RANK: u32 = 2;
/** ... and which sums are rounded after it: the rank's row goes to the node (or the total), the node's to the total. */
export const CLOSE_RANK_TO_TOTAL: u32 = 4;
export const CLOSE_RANK_TO_NODE: u32 = 8;
export const CLOSE_NODE: u32 = 16;

/** 64 bytes that a last, partial block is written to first. */
let tail: u32 = 0;

export function setTail(address: u32): void {
  tail = address;
}

// @ts-ignore: decorator
@inline
function add(exact: bool, sum: v128, value: v128): v128 {
  return exact ? flush(f32x4.add(sum, flush(value))) : f32x4.add(sum, value);
}

/** Adds all rows at column offset `at` to one total and writes the block to `out`; returns the lowered `least`. */
// @ts-ignore: decorator
@inline
function flatBlock(dtype: i32, exact: bool, program: u32, end: u32, at: u32, out: u32, least: v128): v128 {
  let a0 = f32x4.splat(0);
  let a1 = a0;
  let a2 = a0;
  let a3 = a0;
  for (let entry = program; entry < end; entry += 8) {
    const row = load<u32>(entry) + at;
    if (!exact) least = watch(dtype, least, row);
    a0 = add(exact, a0, term(dtype, row, 0));
    a1 = add(exact, a1, term(dtype, row, 1));
    a2 = add(exact, a2, term(dtype, row, 2));
    a3 = add(exact, a3, term(dtype, row, 3));
  }
  storeBlock(dtype, out, a0, a1, a2, a3);
  return least;
}

// @ts-ignore: decorator
@inline
function watch(dtype: i32, least: v128, row: u32): v128 {
  if (dtype == FP16) return least;
  least = leastOf(dtype, least, v128.load(row));
  least = leastOf(dtype, least, v128.load(row, 16));
  if (dtype == FP32) {
    least = leastOf(dtype, least, v128.load(row, 32));
    least = leastOf(dtype, least, v128.load(row, 48));
  }
  return least;
}

/** The same with the rounded sums of ranks and nodes that the codes ask for. */
// @ts-ignore: decorator
@inline
function treeBlock(dtype: i32, exact: bool, program: u32, end: u32, at: u32, out: u32, least: v128): v128 {
  const zero = f32x4.splat(0);
  let t0 = zero, t1 = zero, t2 = zero, t3 = zero;
  let n0 = zero, n1 = zero, n2 = zero, n3 = zero;
  let r0 = zero, r1 = zero, r2 = zero, r3 = zero;
  for (let entry = program; entry < end; entry += 8) {
    const row = load<u32>(entry) + at;
    const code = load<u32>(entry, 4);
    if (!exact) least = watch(dtype, least, row);
    if (code & TO_RANK) {
      r0 = add(exact, r0, term(dtype, row, 0));
      r1 = add(exact, r1, term(dtype, row, 1));
      r2 = add(exact, r2, term(dtype, row, 2));
      r3 = add(exact, r3, term(dtype, row, 3));
      if (code & (CLOSE_RANK_TO_TOTAL | CLOSE_RANK_TO_NODE)) {
        r0 = roundTrip(dtype, r0);
        r1 = roundTrip(dtype, r1);
        r2 = roundTrip(dtype, r2);
        r3 = roundTrip(dtype, r3);
        if (code & CLOSE_RANK_TO_TOTAL) {
          t0 = add(exact, t0, r0);
          t1 = add(exact, t1, r1);
          t2 = add(exact, t2, r2);
          t3 = add(exact, t3, r3);
        } else {
          n0 = add(exact, n0, r0);
          n1 = add(exact, n1, r1);
          n2 = add(exact, n2, r2);
          n3 = add(exact, n3, r3);
        }
        r0 = zero;
        r1 = zero;
        r2 = zero;
        r3 = zero;
      }
    } else if (code & TO_NODE) {
      n0 = add(exact, n0, term(dtype, row, 0));
      n1 = add(exact, n1, term(dtype, row, 1));
      n2 = add(exact, n2, term(dtype, row, 2));
      n3 = add(exact, n3, term(dtype, row, 3));
    } else {
      t0 = add(exact, t0, term(dtype, row, 0));
      t1 = add(exact, t1, term(dtype, row, 1));
      t2 = add(exact, t2, term(dtype, row, 2));
      t3 = add(exact, t3, term(dtype, row, 3));
    }
    if (code & CLOSE_NODE) {
      t0 = add(exact, t0, roundTrip(dtype, n0));
      t1 = add(exact, t1, roundTrip(dtype, n1));
      t2 = add(exact, t2, roundTrip(dtype, n2));
      t3 = add(exact, t3, roundTrip(dtype, n3));
      n0 = zero;
      n1 = zero;
      n2 = zero;
      n3 = zero;
    }
  }
  storeBlock(dtype, out, t0, t1, t2, t3);
  return least;
}

// @ts-ignore: decorator
@inline
function block(
  dtype: i32, exact: bool, flat: bool, program: u32, end: u32, at: u32, out: u32, least: v128,
): v128 {
  return flat
    ? flatBlock(dtype, exact, program, end, at, out, least)
    : treeBlock(dtype, exact, program, end, at, out, least);
}

/** All columns; returns whether a tiny term was seen (fast kernels only). */
// @ts-ignore: decorator
@inline
function columns(dtype: i32, exact: bool, flat: bool, program: u32, count: u32, out: u32, bytes: u32): bool {
  const end = program + (count << 3);
  const step = blockBytes(dtype);
  let least = i32x4.splat(-1);
  let at: u32 = 0;
  for (; at + step <= bytes; at += step) least = block(dtype, exact, flat, program, end, at, out + at, least);
  if (at < bytes) {
    // The last block reads past the rows (memory is padded for it) and is written in part.
    least = block(dtype, exact, flat, program, end, at, tail, least);
    memory.copy(out + at, tail, bytes - at);
  }
  return exact ? false : hasTiny(dtype, least);
}

// @ts-ignore: decorator
@inline
function combine(dtype: i32, flat: bool, program: u32, count: u32, out: u32, bytes: u32): void {
  if (columns(dtype, false, flat, program, count, out, bytes)) columns(dtype, true, flat, program, count, out, bytes);
}

export function sumBf16(program: u32, count: u32, out: u32, bytes: u32): void {
  combine(BF16, true, program, count, out, bytes);
}
export function sumFp16(program: u32, count: u32, out: u32, bytes: u32): void {
  columns(FP16, false, true, program, count, out, bytes);
}
export function sumFp32(program: u32, count: u32, out: u32, bytes: u32): void {
  combine(FP32, true, program, count, out, bytes);
}
export function sumTreeBf16(program: u32, count: u32, out: u32, bytes: u32): void {
  combine(BF16, false, program, count, out, bytes);
}
export function sumTreeFp16(program: u32, count: u32, out: u32, bytes: u32): void {
  columns(FP16, false, false, program, count, out, bytes);
}
export function sumTreeFp32(program: u32, count: u32, out: u32, bytes: u32): void {
  combine(FP32, false, program, count, out, bytes);
}
