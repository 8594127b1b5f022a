import { describe, expect, test } from "vitest";
import { cudaBufferBytes } from "../../../core/functions/cudaMemory.ts";

/** 4 ranks of one node, 8 experts, top-2, 33 tokens of 100 bytes: B = 12, 2 tiles. */
const SHAPE = {
  numTokens: 33,
  rowBytes: 100,
  topk: 2,
  numExperts: 8,
  numRanks: 4,
  ranksPerNode: 4,
  weights: false,
};

describe("cudaBufferBytes by hand", () => {
  test("one node", () => {
    // 320 -> 512, 192 -> 256, 96 -> 256, 32 -> 256, 32 -> 256; 66 rows of 100 bytes: 6600 -> 6656.
    expect(cudaBufferBytes(SHAPE)).toEqual({ counts: 1536, staging: 6656, stagingWeights: 0, total: 8192 });
  });

  test("weights, and more slots than ranks", () => {
    // 132 rows: 13200 -> 13312; weights 132 * 6 * 4 = 3168 -> 3328.
    const bytes = cudaBufferBytes({ ...SHAPE, topk: 6, weights: true });
    expect(bytes).toEqual({ counts: 1536, staging: 13312, stagingWeights: 3328, total: 18176 });
  });

  test("two nodes count their own buckets; a dispatch stages nothing; pull stages what is summed", () => {
    const many = { ...SHAPE, numExperts: 256, ranksPerNode: 2, rowBytes: 0 };
    // B = 4 + 256 + 2 = 262, W = 262 + 3 * 6 = 280: 512 + 4480 -> 4608 + 2096 -> 2304 + 1024 + 1024.
    expect(cudaBufferBytes(many)).toEqual({ counts: 9472, staging: 0, stagingWeights: 0, total: 9472 });
    expect(cudaBufferBytes({ ...SHAPE, pulledRows: 10 }).staging).toBe(1024);
    expect(cudaBufferBytes({ ...SHAPE, pulledRows: 0 }).staging).toBe(0);
  });
});
