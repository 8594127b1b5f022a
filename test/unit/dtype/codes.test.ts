import { describe, expect, test } from "vitest";
import { BF16_NAN, bf16FromBits, bf16FromNumber, bf16ToNumber } from "../../../core/dtype/bf16.ts";
import { bitsOf, floatOf } from "../../../core/dtype/float32.ts";
import { FP8_NAN, fp8FromBits, fp8ToNumber } from "../../../core/dtype/fp8.ts";
import { FP16_NAN, fp16FromBits, fp16FromNumber, fp16ToNumber } from "../../../core/dtype/fp16.ts";

const CODECS = {
  bf16: { toNumber: bf16ToNumber, fromBits: bf16FromBits, codes: 65536, sign: 0x8000, infinity: 0x7f80, nan: BF16_NAN },
  fp16: { toNumber: fp16ToNumber, fromBits: fp16FromBits, codes: 65536, sign: 0x8000, infinity: 0x7c00, nan: FP16_NAN },
  fp8: { toNumber: fp8ToNumber, fromBits: fp8FromBits, codes: 256, sign: 0x80, infinity: 0x7f, nan: FP8_NAN },
} as const;

describe.each(Object.entries(CODECS))("%s codec", (_name, { toNumber, fromBits, codes, sign, infinity, nan }) => {
  test("every code that is not NaN round-trips, zeros with their sign", () => {
    const wrong: number[] = [];
    for (let code = 0; code < codes; code++) {
      const value = toNumber(code);
      if (Number.isNaN(value) ? fromBits(bitsOf(value)) !== nan : fromBits(bitsOf(value)) !== code) wrong.push(code);
    }
    expect(wrong).toEqual([]);
  });

  test("values are exact in float32, ascend with the code and are mirrored by the sign bit", () => {
    let before = -1;
    for (let code = 0; code < infinity; code++) {
      const value = toNumber(code);
      const fits = Math.fround(value) === value && value > before && Object.is(toNumber(code | sign), -value);
      if (!fits) expect({ code, value, before, mirrored: toNumber(code | sign) }).toBe("exact, ascending, mirrored");
      before = value;
    }
    expect(before).toBe(toNumber(infinity - 1));
  });

  test("between two neighbours: below the middle goes down, above goes up, the middle to the even code", () => {
    let checked = 0;
    for (let code = 0; code + 1 < infinity; code++) {
      const [low, high] = [bitsOf(toNumber(code)), bitsOf(toNumber(code + 1))];
      const middle = bitsOf((toNumber(code) + toNumber(code + 1)) / 2);
      // bf16 subnormals: the middle of two neighbours is exact in float32 as well, so this holds for every code.
      if (floatOf(middle) !== (toNumber(code) + toNumber(code + 1)) / 2) expect(code).toBe("an exact middle");
      const even = code % 2 === 0 ? code : code + 1;
      const got = [low, middle - 1, middle, middle + 1, high].map((bits) => fromBits(bits));
      const negative = [low, middle - 1, middle, middle + 1, high].map((bits) => fromBits((bits | 0x80000000) >>> 0));
      const want = [code, code, even, code + 1, code + 1];
      if (got.join() !== want.join()) expect({ code, got }).toEqual({ code, got: want });
      if (negative.join() !== want.map((one) => one | sign).join()) expect(negative).toEqual(want.map((c) => c | sign));
      checked++;
    }
    expect(checked).toBe(infinity - 1);
  });

  test.each([0x7f800001, 0x7fc00000, 0x7fffffff, 0xff800001, 0xffc00000, 0xffffffff])(
    "NaN bits %i become the one canonical NaN",
    (bits) => expect(fromBits(bits)).toBe(nan),
  );
});

describe("bits in, bits out", () => {
  // [float32 bits, bf16 code]
  test.each([
    [0x00000000, 0x0000],
    [0x80000000, 0x8000],
    [0x3f800000, 0x3f80], // 1
    [0x3f808000, 0x3f80], // tie: to even, down
    [0x3f818000, 0x3f82], // tie: to even, up
    [0x3f808001, 0x3f81],
    [0x3f807fff, 0x3f80],
    [0x7f7f7fff, 0x7f7f], // the largest that stays finite
    [0x7f7f8000, 0x7f80], // tie above the largest: infinity
    [0xff7f8000, 0xff80],
    [0x7f800000, 0x7f80],
    [0x00000001, 0x0000], // float32 subnormals round like any number
    [0x00008000, 0x0000],
    [0x00008001, 0x0001],
    [0x007fffff, 0x0080], // up to the smallest normal
  ])("bf16FromBits(%i) is %i", (bits, code) => expect(bf16FromBits(bits)).toBe(code));

  test.each([
    [0x477fe000, 0x7bff], // 65504, the largest
    [0x477fefff, 0x7bff],
    [0x477ff000, 0x7c00], // 65520: tie to infinity
    [0xc77ff000, 0xfc00],
    [0x7f800000, 0x7c00],
    [0x7f7fffff, 0x7c00],
    [0x38800000, 0x0400], // 2^-14, smallest normal
    [0x387fffff, 0x0400], // rounds up into the normals
    [0x387fc000, 0x03ff], // largest subnormal
    [0x33800000, 0x0001], // 2^-24, smallest subnormal
    [0x33000000, 0x0000], // 2^-25: tie to even zero
    [0x33000001, 0x0001],
    [0xb3000000, 0x8000], // the sign survives underflow
    [0xb3000001, 0x8001],
    [0x33c00000, 0x0002], // 1.5 * 2^-24: tie to even
    [0x00000001, 0x0000],
    [0x3f801000, 0x3c00], // 1 + 2^-11: tie to even
    [0x3f803000, 0x3c02],
    [0x3f801001, 0x3c01],
  ])("fp16FromBits(%i) is %i", (bits, code) => expect(fp16FromBits(bits)).toBe(code));

  test.each([
    [0x43e00000, 0x7e], // 448, the largest
    [0x43dfffff, 0x7e],
    [0x43d80000, 0x7e], // 432: tie between 416 (0x7d) and 448, to even
    [0x43d7ffff, 0x7d],
    [0x43e80000, 0x7e], // 464 and everything above saturates
    [0x7f7fffff, 0x7e],
    [0x7f800000, 0x7e],
    [0xff800000, 0xfe],
    [0x3c800000, 0x08], // 2^-6, smallest normal
    [0x3c600000, 0x07], // 7 * 2^-9, largest subnormal
    [0x3c700000, 0x08], // tie to even, into the normals
    [0x3b000000, 0x01], // 2^-9, smallest subnormal
    [0x3a800000, 0x00], // 2^-10: tie to even zero
    [0x3a800001, 0x01],
    [0xba800000, 0x80],
    [0x3f880000, 0x38], // 1.0625: tie to even
    [0x3f980000, 0x3a], // 1.1875: tie to even
  ])("fp8FromBits(%i) is %i", (bits, code) => expect(fp8FromBits(bits)).toBe(code));

  test.each([
    [0x00, 0],
    [0x01, 2 ** -9],
    [0x07, 7 * 2 ** -9],
    [0x08, 2 ** -6],
    [0x38, 1],
    [0x7e, 448],
    [0xfe, -448],
  ])("fp8ToNumber(%i) = %d", (code, value) => expect(fp8ToNumber(code)).toBe(value));

  test("fp8 has two NaN codes and no infinity", () => {
    const nans = Array.from({ length: 256 }, (_, code) => code).filter((code) => Number.isNaN(fp8ToNumber(code)));
    expect(nans).toEqual([0x7f, 0xff]);
  });

  test("numbers are rounded to float32 first", () => {
    // 1 + 2^-8 + 2^-40 is above the bf16 tie as a double and exactly on it as float32.
    expect(bf16FromNumber(1 + 2 ** -8 + 2 ** -40)).toBe(0x3f80);
    expect(fp16FromNumber(1 + 2 ** -11 + 2 ** -40)).toBe(0x3c00);
  });
});
