/** The samples a page can make (sample.ts), which is loaded when one is asked for. */
export const SAMPLES = {
  fused: "16 ranks, 64 experts, fused",
  "hybrid-ep": "the same routing, hybrid-ep with padding and a row budget",
  balanced: "the same model, its hot experts spread out",
} as const;
export type SampleName = keyof typeof SAMPLES;
