import { describe, expect, test } from "vitest";
import { add, bitsOf, copyBits, floatOf, flush, multiply, NAN_BITS } from "../../../core/dtype/float32.ts";
import { addRow, canonicalBits, roundRow } from "../../../core/dtype/rows.ts";

const [TINY, MIN, NEGATIVE_ZERO] = [0x00400000, 0x00800000, 0x80000000];

describe("the rule for terms and products (design 2.11)", () => {
  test.each([
    ["largest subnormal", 0x007fffff, 0],
    ["negative subnormal keeps its sign", 0x80000001, NEGATIVE_ZERO],
    ["smallest normal stays", MIN, MIN],
    ["negative smallest normal stays", 0x80800000, 0x80800000],
    ["-0 stays", NEGATIVE_ZERO, NEGATIVE_ZERO],
    ["infinity stays", 0x7f800000, 0x7f800000],
  ])("flush: %s", (_, bits, want) => expect(bitsOf(flush(floatOf(bits)))).toBe(want));

  test("flush leaves NaN a NaN", () => expect(flush(Number.NaN)).toBeNaN());

  test("a partial sum below 2^-126 counts as zero with its sign", () => {
    const [a, b] = [floatOf(0x00c00000), floatOf(0x80800000)]; // 1.5 * 2^-126 - 2^-126
    expect(bitsOf(add(a, b))).toBe(0);
    expect(bitsOf(add(-a, -b))).toBe(NEGATIVE_ZERO);
  });

  test("a product with exponent field 1 counts as zero, 2^-125 does not", () => {
    expect(bitsOf(multiply(2 ** -63, 2 ** -62))).toBe(0x01000000);
    expect(bitsOf(multiply(2 ** -63, -(2 ** -63)))).toBe(NEGATIVE_ZERO);
    expect(bitsOf(multiply(floatOf(0x00ffffff), 1))).toBe(0);
    expect(bitsOf(multiply(-0, 3))).toBe(NEGATIVE_ZERO);
  });
});

describe("addRow and roundRow", () => {
  const sum = (dtype: "bf16" | "fp16" | "fp32", rows: number[][]): number[] => {
    const width = rows[0].length;
    const sums = new Float32Array(width);
    for (const codes of rows) {
      const row = dtype === "fp32" ? new Float32Array(Uint32Array.from(codes).buffer) : Uint16Array.from(codes);
      addRow(dtype, row, 0, sums, width);
    }
    const out = dtype === "fp32" ? new Float32Array(width) : new Uint16Array(width);
    roundRow(dtype, sums, out, 0, width);
    return [...(dtype === "fp32" ? new Uint32Array(out.buffer) : (out as Uint16Array))];
  };

  test("bf16: 1 + 2^-8 + 2^-8 is summed in float32 and rounded once", () => {
    // Rounding after each step would give 1: each 2^-8 alone is a tie that falls back to the even 1.
    expect(sum("bf16", [[0x3f80], [0x3b80], [0x3b80]])).toEqual([0x3f81]);
  });

  test("the order of terms matters: (2^24 + 1) + 1 loses both, (1 + 1) + 2^24 keeps them", () => {
    expect(sum("fp32", [[0x4b800000], [0x3f800000], [0x3f800000]])).toEqual([0x4b800000]);
    expect(sum("fp32", [[0x3f800000], [0x3f800000], [0x4b800000]])).toEqual([0x4b800001]);
  });

  test("a total of zero is +0, also of negative zeros and of what was flushed", () => {
    expect(sum("bf16", [[0x8000]])).toEqual([0]);
    expect(sum("fp16", [[0x8000], [0x8000]])).toEqual([0]);
    expect(sum("fp32", [[NEGATIVE_ZERO], [0x80000001]])).toEqual([0]);
    expect(sum("fp32", [[0x3f800000], [0xbf800000]])).toEqual([0]);
  });

  test("subnormal terms count as zero: bf16 and fp32, but fp16 subnormals are normal float32", () => {
    expect(sum("bf16", [[0x0040], [0x0040]])).toEqual([0]);
    expect(sum("fp32", [[TINY], [TINY]])).toEqual([0]);
    expect(sum("fp16", [[0x0001], [0x0001]])).toEqual([0x0002]);
  });

  test("a negative total that underflows in fp16 keeps its sign: only a zero float32 total becomes +0", () => {
    // fp16 terms cannot make such a total, so the rule is checked where it lives.
    const out = new Uint16Array(1);
    roundRow("fp16", Float32Array.of(-(2 ** -30)), out, 0, 1);
    expect(out[0]).toBe(0x8000);
  });

  test("a partial sum below 2^-126 is flushed, with its sign, and a zero total is +0 all the same", () => {
    // 1.5 * 2^-126 - 2^-126 = 2^-127
    expect(sum("bf16", [[0x00c0], [0x8080]])).toEqual([0]);
    expect(sum("bf16", [[0x80c0], [0x0080]])).toEqual([0]);
    expect(sum("fp32", [[0x80c00000], [0x00800000]])).toEqual([0]);
    const out = new Uint16Array(1);
    for (const dtype of ["bf16", "fp16"] as const) {
      roundRow(dtype, Float32Array.of(-0), out.fill(9), 0, 1);
      expect(out[0]).toBe(0);
    }
  });

  test("NaN terms, whatever their payload, and Inf - Inf give the canonical NaN", () => {
    expect(sum("bf16", [[0xff81], [0x3f80]])).toEqual([0x7fc0]);
    expect(sum("fp16", [[0x7c01]])).toEqual([0x7e00]);
    expect(sum("fp32", [[0xffffffff]])).toEqual([NAN_BITS]);
    expect(sum("bf16", [[0x7f80], [0xff80]])).toEqual([0x7fc0]);
    expect(sum("fp32", [[0x7f7fffff], [0x7f7fffff]])).toEqual([0x7f800000]);
  });

  test("rows are read and written at their offset and nowhere else", () => {
    const sums = new Float32Array(2);
    addRow("bf16", Uint16Array.of(0x7fc0, 0x3f80, 0x4000, 0x7fc0), 1, sums, 2);
    expect([...sums]).toEqual([1, 2]);
    const out = Uint16Array.of(9, 9, 9, 9);
    roundRow("bf16", sums, out, 1, 2);
    expect([...out]).toEqual([9, 0x3f80, 0x4000, 9]);
  });

  test("canonicalBits: -0 and NaN only", () => {
    expect([0, NEGATIVE_ZERO, 0x7f800000, 0xff800001, 0x80000001].map(canonicalBits)).toEqual([
      0,
      0,
      0x7f800000,
      NAN_BITS,
      0x80000001,
    ]);
  });
});

test("copyBits keeps a NaN's payload, in arrays that start inside a buffer", () => {
  const source = new Float32Array(new ArrayBuffer(16), 4, 3);
  const target = new Float32Array(new ArrayBuffer(16), 8, 2);
  new Uint32Array(source.buffer)[3] = 0x7f812345;
  copyBits(source, 2, target, 1);
  expect(new Uint32Array(target.buffer)[3]).toBe(0x7f812345);
});
