// What a rank counts of its routing before anything moves: arithmetic for kernels, which write it, and the host, which reads it.
#pragma once

#include "types.h"

#ifdef __CUDACC__
#define FA2A_BOTH_SIDES __host__ __device__
#else
#define FA2A_BOTH_SIDES
#endif

namespace kernels {

/** Groups of the counts: one bucket per rank, per expert and, with several nodes, per node. */
FA2A_BOTH_SIDES inline int numNodes(const Shape& shape) { return shape.numRanks / shape.ranksPerNode; }
FA2A_BOTH_SIDES inline int numBuckets(const Shape& shape) {
  return shape.numRanks + shape.numExperts + (numNodes(shape) > 1 ? numNodes(shape) : 0);
}

/** With several nodes rows cross in parts, by their tokens: while one part travels the one before is copied on (relay.cu). */
constexpr int NUM_PARTS = 4;
/**
 * 256 tokens: of 14 KiB each (hidden 7168, bf16) they take a 400 Gb/s NIC 73 us, while every part costs NCCL one more step on
 * both sides. What decodes goes at once.
 */
constexpr int LEAST_PART_TILES = 8;
FA2A_BOTH_SIDES inline int firstTileOf(int part, int numTiles) {
  const int quarter = (numTiles + NUM_PARTS - 1) / NUM_PARTS;
  const int first = part * (quarter > LEAST_PART_TILES ? quarter : LEAST_PART_TILES);
  return first < numTiles ? first : numTiles;
}
/** Where a rank's counts say how many rows for `to` (a rank, or numRanks + a node) come before a part; part 0 has none. */
FA2A_BOTH_SIDES inline int partWord(const Shape& shape, int part, int to) {
  return numBuckets(shape) + (part - 1) * (shape.numRanks + numNodes(shape)) + to;
}
/** One rank's counts: its buckets and, with several nodes, what comes before each part. */
FA2A_BOTH_SIDES inline int countWords(const Shape& shape) {
  return numNodes(shape) > 1 ? partWord(shape, NUM_PARTS, 0) : numBuckets(shape);
}

}  // namespace kernels
