import type { TraceChunk, TraceHeader } from "../../../core/trace/format.ts";

/** Small enough to count by hand: 4 ranks in 2 nodes, experts 2r and 2r + 1 on rank r, top-2. */
export const twoNodes: { header: TraceHeader; chunk: TraceChunk } = {
  header: {
    producer: "by hand",
    clock: "measured",
    numSteps: 1,
    numLayers: 1,
    numRanks: 4,
    ranksPerNode: 2,
    numExperts: 8,
    topk: 2,
    hidden: 16,
    dtype: "bf16",
    rowBytes: 32,
    style: "fused",
    settings: { expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null },
  },
  chunk: {
    topkIdx: [
      // Both experts of rank 0; one each on ranks 1 and 3; nothing.
      Int32Array.of(0, 1, 2, 6, -1, -1),
      // Both experts of rank 2.
      Int32Array.of(5, 4),
      // One expert of rank 1.
      Int32Array.of(-1, 2),
      new Int32Array(0),
    ],
    topkWeights: [
      Float32Array.of(0.5, 0.5, 0.75, 0.25, 0, 0),
      Float32Array.of(0.5, 0.5),
      Float32Array.of(0, 1),
      new Float32Array(0),
    ],
    phases: [0, 1, 2, 3].flatMap((rank) => [
      { rank, name: "dispatch.transfer", startUs: 10, durationUs: 1 + rank },
      { rank, name: "dispatch.wait", startUs: 11 + rank, durationUs: 3 - rank, waiting: true },
    ]),
  },
};

/** Rank 1 of the permuted form: expert 2 has two rows, expert 3 none. Rank 0: experts 0 and 1 one row each. */
export const bufferSegments = [
  {
    settings: { padMultiple: 4 },
    rank: 1,
    segments: [
      ["used", 2, 0, 2],
      ["padding", 2, 2, 2],
    ],
    cut: 0,
  },
  {
    settings: { padMultiple: 2, numPermutedTokens: 6 },
    rank: 0,
    segments: [
      ["used", 0, 0, 1],
      ["padding", 0, 1, 1],
      ["used", 1, 2, 1],
      ["padding", 1, 3, 1],
      ["tail", -1, 4, 2],
    ],
    cut: 0,
  },
  // A budget of one block: expert 1 does not fit.
  {
    settings: { padMultiple: 2, numPermutedTokens: 2 },
    rank: 0,
    segments: [
      ["used", 0, 0, 1],
      ["padding", 0, 1, 1],
    ],
    cut: 1,
  },
];
