/** The shapes every backend must get right: a control case, then one change at a time. */
import type { DType, SumDType } from "../../core/dtype/dtype.ts";

export interface Shape {
  readonly name: string;
  readonly numRanks: number;
  readonly ranksPerNode?: number;
  readonly numExperts: number;
  readonly topk: number;
  readonly numTokens: readonly number[];
  readonly hidden: number;
  readonly dtype: DType;
  /** What combine sums; default bf16 when rows are fp8, else dtype. */
  readonly sumDtype?: SumDType;
  /** "bits" draws every bit pattern: subnormals, infinities, NaN payloads. */
  readonly values?: "normal" | "bits" | "tiny";
  /** Share of slots without a choice; 1 = all of them. */
  readonly dropped?: number;
  readonly idDtype?: "i32" | "i64";
  /** Sends everything to one expert beside random ones. */
  readonly hotExpert?: boolean;
  /** Only these ranks choose anything. */
  readonly onlyRanks?: readonly number[];
  readonly expertAlignment?: number;
  readonly padMultiple?: number;
}

const CONTROL: Shape = {
  name: "control",
  numRanks: 4,
  numExperts: 8,
  topk: 2,
  numTokens: [6, 6, 6, 6],
  hidden: 16,
  dtype: "bf16",
};

const vary = (name: string, change: Partial<Shape>): Shape => ({ ...CONTROL, name, ...change });

export const SHAPES: readonly Shape[] = [
  CONTROL,
  vary("one rank", { numRanks: 1, numTokens: [5] }),
  vary("two ranks", { numRanks: 2, numTokens: [5, 3] }),
  vary("eight ranks, 32 experts, top-8", { numRanks: 8, numExperts: 32, topk: 8, numTokens: [9, 8, 7, 6, 5, 4, 3, 2] }),
  vary("three ranks (no power of two)", { numRanks: 3, numExperts: 9, topk: 3, numTokens: [4, 5, 6] }),
  vary("uneven and empty ranks", { numTokens: [7, 0, 1, 12] }),
  vary("no tokens at all", { numTokens: [0, 0, 0, 0] }),
  vary("dropped slots anywhere", { dropped: 0.4, topk: 4, numExperts: 16 }),
  vary("every slot dropped", { dropped: 1 }),
  vary("only rank 0 has choices", { onlyRanks: [0], topk: 2 }),
  vary("hot expert", { hotExpert: true, topk: 3, numTokens: [16, 16, 16, 16] }),
  vary("top-1", { topk: 1 }),
  vary("topk = experts", { topk: 8 }),
  vary("top-22 of 64", { topk: 22, numExperts: 64, numTokens: [5, 4, 3, 2] }),
  vary("hidden 1", { hidden: 1 }),
  vary("hidden 7", { hidden: 7 }),
  vary("hidden 129", { hidden: 129 }),
  vary("hidden 1032", { hidden: 1032, numTokens: [4, 3, 2, 1] }),
  vary("hidden 7168", { hidden: 7168, numTokens: [3, 2, 1, 2] }),
  vary("fp16", { dtype: "fp16" }),
  vary("fp32", { dtype: "fp32" }),
  vary("fp32, hidden 3", { dtype: "fp32", hidden: 3 }),
  vary("fp8 rows with scales", { dtype: "fp8e4m3", hidden: 200 }),
  vary("u8 rows, hidden 5", { dtype: "u8", hidden: 5 }),
  vary("int32 ids", { idDtype: "i32" }),
  vary("all bit patterns, bf16", { values: "bits", hidden: 64, topk: 6 }),
  vary("all bit patterns, fp16", { values: "bits", hidden: 64, topk: 6, dtype: "fp16" }),
  vary("all bit patterns, fp32", { values: "bits", hidden: 64, topk: 6, dtype: "fp32" }),
  vary("around the smallest normal, bf16", { values: "tiny", hidden: 64, topk: 6 }),
  vary("around the smallest normal, fp32", { values: "tiny", hidden: 64, topk: 6, dtype: "fp32" }),
  vary("two nodes of two", { ranksPerNode: 2, topk: 6, values: "bits" }),
  vary("four nodes of one", { ranksPerNode: 1, topk: 6 }),
  vary("four nodes of two, fp16", {
    numRanks: 8,
    ranksPerNode: 2,
    numExperts: 32,
    topk: 8,
    numTokens: [3, 4, 5, 6, 0, 1, 2, 3],
    dtype: "fp16",
  }),
  vary("alignment and padding 4", { expertAlignment: 4, padMultiple: 4 }),
  vary("alignment and padding 16", { expertAlignment: 16, padMultiple: 16, numTokens: [20, 0, 9, 3] }),
];

/** 2 nodes of 4 ranks and 4 nodes of 2, one change at a time, like SHAPES. */
export const NODE_SHAPES: readonly Shape[] = [4, 2].flatMap((ranksPerNode) => {
  const nodes = `${8 / ranksPerNode} nodes of ${ranksPerNode}`;
  const on = (name: string, change: Partial<Shape> = {}): Shape => ({
    ...CONTROL,
    numRanks: 8,
    ranksPerNode,
    numExperts: 32,
    topk: 8,
    numTokens: [5, 4, 3, 2, 1, 2, 3, 4],
    name: `${nodes}${name}`,
    ...change,
  });
  return [
    on(""),
    on(", all bit patterns", { values: "bits", hidden: 40 }),
    on(", around the smallest normal, fp32", { values: "tiny", dtype: "fp32", hidden: 24 }),
    on(", fp16", { dtype: "fp16", hidden: 33 }),
    on(", fp8 rows with scales", { dtype: "fp8e4m3", hidden: 136, topk: 4 }),
    on(", u8 rows, int32 ids", { dtype: "u8", hidden: 5, idDtype: "i32" }),
    on(", empty ranks and an empty node", { numTokens: [5, 0, 9, 3, 0, 0, 0, 0], topk: 3 }),
    on(", no tokens at all", { numTokens: [0, 0, 0, 0, 0, 0, 0, 0] }),
    on(", dropped slots anywhere", { dropped: 0.5, topk: 6 }),
    on(", every slot dropped", { dropped: 1 }),
    on(", only rank 5 has choices", { onlyRanks: [5], topk: 2 }),
    on(", hot expert", { hotExpert: true, topk: 3, numTokens: [9, 9, 9, 9, 9, 9, 9, 9] }),
    on(", top-1", { topk: 1, numTokens: [70, 3, 0, 12, 90, 1, 2, 40] }),
    on(", topk = experts", { topk: 32, numTokens: [3, 2, 1, 2, 3, 2, 1, 2] }),
    on(", alignment and padding 16", { expertAlignment: 16, padMultiple: 16 }),
    on(", hidden 1032", { hidden: 1032, topk: 2, numTokens: [2, 1, 3, 0, 1, 2, 1, 1] }),
    // Rows cross in parts of at least 64: here in all 4 of them.
    on(", 280 rows of a pair", { hidden: 6, topk: 2, numTokens: [280, 3, 1, 70, 0, 130, 2, 5] }),
  ];
});

/** Row budgets to run per shape: as a share of what an exact run needs. */
export const BUDGETS = [0, 0.5, 1, 1.5] as const;
