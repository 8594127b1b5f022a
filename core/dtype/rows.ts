/** Rows of x as float32 terms and back: the two conversions around every sum (design 2.10, 2.11). */
import { bf16FromBits, bf16ToNumber } from "./bf16.ts";
import type { ArrayOf, SumDType } from "./dtype.ts";
import { flush, NAN_BITS } from "./float32.ts";
import { fp16FromBits, fp16ToNumber } from "./fp16.ts";

/** Code -> flushed float32 term, one table per 16-bit dtype, made on first use. */
const tables = new Map<string, Float32Array>();

function termTable(dtype: "bf16" | "fp16"): Float32Array {
  let table = tables.get(dtype);
  if (table === undefined) {
    const decode = dtype === "bf16" ? bf16ToNumber : fp16ToNumber;
    table = Float32Array.from({ length: 65536 }, (_, code) => flush(decode(code)));
    tables.set(dtype, table);
  }
  return table;
}

/** Adds `count` elements of `row` from `offset` into `sums` (float32, in this order), flushing each partial sum. */
export function addRow(
  dtype: SumDType,
  row: ArrayOf<SumDType>,
  offset: number,
  sums: Float32Array,
  count: number,
): void {
  if (dtype === "fp32") addFloats(row as Float32Array, offset, sums, count);
  else addCodes(termTable(dtype), row as Uint16Array, offset, sums, count);
}

// One loop per kind of row: each sees one kind of array, which is what makes it fast.

function addFloats(row: Float32Array, offset: number, sums: Float32Array, count: number): void {
  for (let i = 0; i < count; i++) sums[i] = flush(Math.fround(sums[i] + flush(row[offset + i])));
}

function addCodes(terms: Float32Array, row: Uint16Array, offset: number, sums: Float32Array, count: number): void {
  for (let i = 0; i < count; i++) sums[i] = flush(Math.fround(sums[i] + terms[row[offset + i]]));
}

/** Rounds `count` sums to codes of `dtype` at `offset` of `row`: a zero total is +0, every NaN the canonical one. */
export function roundRow(
  dtype: SumDType,
  sums: Float32Array,
  row: ArrayOf<SumDType>,
  offset: number,
  count: number,
): void {
  const bits = new Uint32Array(sums.buffer, sums.byteOffset, count);
  if (dtype === "fp32") {
    const codes = new Uint32Array(row.buffer, row.byteOffset, row.length);
    for (let i = 0; i < count; i++) codes[offset + i] = canonicalBits(bits[i]);
  } else if (dtype === "bf16") {
    for (let i = 0; i < count; i++) row[offset + i] = bf16FromBits(positiveZero(bits[i]));
  } else {
    for (let i = 0; i < count; i++) row[offset + i] = fp16FromBits(positiveZero(bits[i]));
  }
}

function positiveZero(bits: number): number {
  return bits === 0x80000000 ? 0 : bits;
}

/** Float32 result bits: -0 becomes +0, any NaN the canonical NaN. */
export function canonicalBits(bits: number): number {
  return (bits & 0x7fffffff) > 0x7f800000 ? NAN_BITS : positiveZero(bits);
}
