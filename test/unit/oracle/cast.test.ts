import { describe, expect, test } from "vitest";
import { castBack, castToFp8, scaleRows } from "../../../core/oracle/cast.ts";
import { type Tensor, tensor } from "../../../core/tensor.ts";

const fp32 = (values: number[], hidden = values.length): Tensor<"fp32"> =>
  tensor("fp32", [values.length / hidden, hidden], Float32Array.from(values));
const bits = (value: Tensor) => [...new Uint32Array(value.data.buffer)];
const bf16 = (codes: number[]): Tensor => tensor("bf16", [1, codes.length], Uint16Array.from(codes));

describe("cast-to-fp8 (design section 6)", () => {
  test("the block maximum becomes 448, the scale is amax/448", () => {
    const { x, scales } = castToFp8(fp32([448, 224, -1, 0]));
    expect([...x.data]).toEqual([0x7e, 0x76, 0xb8, 0x00]);
    expect([...scales.data]).toEqual([1]);
  });

  test("blocks of 128 columns, the last one shorter, each with its own scale", () => {
    const { x, scales } = castToFp8(fp32([...new Array(128).fill(1), ...new Array(72).fill(2)]));
    expect(x.shape).toEqual([1, 200]);
    expect([...scales.data]).toEqual([1 / 448, 2 / 448].map(Math.fround));
    expect(new Set(x.data)).toEqual(new Set([0x7e]));
  });

  test("amax is floored at 1e-4: zeros and tiny rows have a finite scale", () => {
    const { x, scales } = castToFp8(fp32([0, -0, 1e-6]));
    expect([...scales.data]).toEqual([Math.fround(Math.fround(1e-4) / 448)]);
    // 1e-6 * (448 / 1e-4) = 4.48: between 4.0 (0x48) and 4.5 (0x49).
    expect([...x.data]).toEqual([0x00, 0x80, 0x49]);
  });

  test("subnormal inputs count as zero with their sign", () => {
    expect([...castToFp8(bf16([0x0001, 0x8001, 0x3f80])).x.data]).toEqual([0x00, 0x80, 0x7e]);
  });

  test("a NaN makes its whole block NaN, scale included; other blocks are untouched", () => {
    const values = new Array<number>(129).fill(1);
    values[5] = Number.NaN;
    const { x, scales } = castToFp8(fp32(values));
    expect(new Set(x.data.slice(0, 128))).toEqual(new Set([0x7f]));
    expect(x.data[128]).toBe(0x7e);
    expect(bits(scales)).toEqual([0x7fc00000, bits(fp32([1 / 448]))[0]]);
  });

  test("an infinity: its own code is NaN (Inf * 0), the rest are zeros with their sign, the scale is Inf", () => {
    const { x, scales } = castToFp8(fp32([Number.POSITIVE_INFINITY, 3, -3]));
    expect([...x.data]).toEqual([0x7f, 0x00, 0x80]);
    expect([...scales.data]).toEqual([Number.POSITIVE_INFINITY]);
  });

  test("no rows", () => {
    const { x, scales } = castToFp8(tensor("bf16", [0, 130]));
    expect([x.shape, scales.shape]).toEqual([
      [0, 130],
      [0, 2],
    ]);
  });
});

describe("cast-back", () => {
  const back = (codes: number[], scale: number) => [
    ...castBack(tensor("fp8e4m3", [1, codes.length], Uint8Array.from(codes)), fp32([scale])).data,
  ];

  test("code * scale in float32, rounded once to bf16", () => {
    expect(back([0x38, 0x7e, 0xb8, 0x01], 1)).toEqual([0x3f80, 0x43e0, 0xbf80, 0x3b00]);
    expect(back([0x39], 1.0078125)).toEqual([0x3f91]); // 1.125 * 1.0078125 = 1.1337890625
  });

  test("zeros keep the sign of the product; both NaN codes are the canonical NaN", () => {
    expect(back([0x00, 0x80], 2)).toEqual([0x0000, 0x8000]);
    expect(back([0x00, 0x80], -2)).toEqual([0x8000, 0x0000]);
    expect(back([0x7f, 0xff], 1)).toEqual([0x7fc0, 0x7fc0]);
    expect(back([0x38], Number.NaN)).toEqual([0x7fc0]);
  });

  test("products with exponent field 1 or less and subnormal scales count as zero", () => {
    expect(back([0x38, 0x40], 2 ** -126)).toEqual([0x0000, 0x0100]);
    expect(back([0x7e], 2 ** -127)).toEqual([0x0000]);
  });
});

describe("scaleRows", () => {
  test("one factor per row, rounded to the dtype of the rows", () => {
    const x = tensor("bf16", [2, 2], Uint16Array.of(0x3f80, 0x4000, 0x3f80, 0x4000));
    const scaled = scaleRows(x, tensor("fp32", [2], Float32Array.of(3, -0.5)));
    expect([...scaled.data]).toEqual([0x4040, 0x40c0, 0xbf00, 0xbf80]);
  });

  test("fp16 products that underflow keep the sign; fp32 NaN is canonical", () => {
    const x = tensor("fp16", [1, 2], Uint16Array.of(0x0001, 0x8001));
    expect([...scaleRows(x, fp32([2 ** -10])).data]).toEqual([0x0000, 0x8000]);
    expect(bits(scaleRows(fp32([Number.POSITIVE_INFINITY]), fp32([0])))).toEqual([0x7fc00000]);
  });

  test("into a given tensor", () => {
    const out = fp32([9, 9]);
    expect(scaleRows(fp32([1, 2]), tensor("fp32", [1], Float32Array.of(2)), out)).toBe(out);
    expect([...out.data]).toEqual([2, 4]);
  });
});
