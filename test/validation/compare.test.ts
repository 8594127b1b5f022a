import { describe, expect, test } from "vitest";
import { compareWhole, describeReport } from "../../cli/compare.ts";
import { tensor } from "../../core/tensor.ts";

const bf16 = (...codes: number[]) => [tensor("bf16", [codes.length / 2, 2], Uint16Array.from(codes))];

describe("comparison of outputs", () => {
  test("equal bytes: nothing differs", async () => {
    const report = await compareWhole("x", [0], bf16(1, 2, 3, 4), bf16(1, 2, 3, 4), () => ({}));
    expect(report).toEqual({ output: "x", numElements: 4, numDiffering: 0, first: null, ulpHistogram: {} });
  });

  test("names the first difference with its place and bits, counts them, and measures ULPs", async () => {
    // 0x3f80 = 1, its neighbour is 1 ulp away; 0x8000 and 0 are both zero; 0x7fc0 is NaN.
    const place = () => ({ srcRank: 7, token: 5 });
    const report = await compareWhole(
      "x",
      [3],
      bf16(0x3f80, 0x3f81, 0x8000, 0x7fc0),
      bf16(0x3f80, 0x3f80, 0, 0),
      place,
    );
    expect(report.numDiffering).toBe(3);
    expect(report.first).toEqual({
      rank: 3,
      row: 0,
      column: 1,
      srcRank: 7,
      token: 5,
      expectedBits: "0x3f80",
      receivedBits: "0x3f81",
    });
    expect(report.ulpHistogram).toEqual({ "1": 1, "0 (sign of zero)": 1, NaN: 1 });
    expect(describeReport(report)).toContain(
      "rank 3, row 0 (rank 7, token 5), column 1: expected 0x3f80, received 0x3f81",
    );
  });

  test("distance is counted across zero", async () => {
    const report = await compareWhole("x", [0], bf16(0x8002, 0), bf16(0x0003, 0), () => ({}));
    expect(report.ulpHistogram).toEqual({ "4-7": 1 });
  });

  test("rows the reference never shows count as differing", async () => {
    const report = await compareWhole("x", [0], bf16(1, 2, 3, 4), [], () => ({}));
    expect(report.numDiffering).toBe(4);
    expect(describeReport(report)).toContain("rows are missing");
  });
});
