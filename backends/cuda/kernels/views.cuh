// What ranks know of each other's memory. Every rank has one arena at a fixed place; its first part is a table of views,
// one per rank, that the ranks fill in each other's arenas before a barrier: who needs an address reads it at home.
#pragma once

#include "device.cuh"

namespace kernels {

/** Where one rank keeps what others write or read during one operation. Pointers of that rank's device. */
struct RankView {
  /** Dispatch: output planes (rows and scales), indexed by row. Combine, pull: the rows to be summed. */
  void* planes[2];
  /** Pull: sums of several rows, at the index of the first of them. */
  void* sums[2];
  /** Handle arrays of the destination, indexed by row (see Rows). */
  int32_t* rowSrcRank;
  int32_t* rowSrcToken;
  int32_t* rowNext;
  int32_t* rowReturn;
  /** Fused: [rows, topk] local ids (i32 or i64) and weights. Hybrid-ep: weights are [rows]. */
  void* topkIdx;
  float* weights;
};

/** The sizes that fix every position. */
struct Shape {
  int rank;
  int numRanks;
  int ranksPerNode;
  int numExperts;
  int expertsPerRank;
  int topk;
  /** Entries per token in the send lists. */
  int width;
  int numTokens;
  bool hybrid;
};

/** Groups of the counts: one bucket per rank, per expert and, with several nodes, per node. */
__device__ __host__ __forceinline__ int numNodes(const Shape& shape) { return shape.numRanks / shape.ranksPerNode; }
__device__ __host__ __forceinline__ int numBuckets(const Shape& shape) {
  return shape.numRanks + shape.numExperts + (numNodes(shape) > 1 ? numNodes(shape) : 0);
}

/** The arenas of all ranks as this rank's device sees them, and the offsets that are the same in each. */
struct Arenas {
  char* const* at;
  size_t tableOffset;
  size_t stagingOffset;
  size_t stagingWeightsOffset;
};

__device__ __forceinline__ RankView* views(const Arenas& arenas, int rank) {
  return reinterpret_cast<RankView*>(arenas.at[rank]);
}
/** [numRanks, buckets] counts of every source. */
__device__ __forceinline__ int32_t* countTable(const Arenas& arenas, int rank) {
  return reinterpret_cast<int32_t*>(arenas.at[rank] + arenas.tableOffset);
}

/** The send lists of a source (core/handle/handle.ts). */
struct SendLists {
  int32_t* rank;
  int32_t* row;
  int32_t* expert;
  int32_t* slot;
};

/**
 * What a destination knows of its rows. next: the row of the same token on this rank with the next higher expert, -1 at
 * the end. back: for the first row of a (token, rank) its place in the source's staging memory, token * groups + n for
 * the token's n-th rank; -1 for other rows, padding and tail.
 */
struct Rows {
  int32_t* srcRank;
  int32_t* srcToken;
  int32_t* next;
  int32_t* back;
};

/** What a rank finds out about an operation, zero before; read by the host. */
struct Report {
  /** LAST_SLOT - (token * topk + slot) of the first bad expert id; 0 when there is none. */
  int32_t badSlot;
  /** Rows this rank would need without a budget. */
  int32_t wantedRows;
  /** Slots that want to come here. */
  int32_t wantedSlots;
};
constexpr int32_t LAST_SLOT = 0x7fffffff;
constexpr int32_t NO_BUDGET = 0x7fffffff;
/** Tokens that one warp places in order. */
constexpr int TILE_TOKENS = 32;

__device__ __forceinline__ int firstThread() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }
__device__ __forceinline__ int numThreads() { return static_cast<int>(gridDim.x * blockDim.x); }
__device__ __forceinline__ int firstWarp() { return firstThread() / 32; }
__device__ __forceinline__ int numWarps() { return numThreads() / 32; }
__device__ __forceinline__ int laneIndex() { return static_cast<int>(threadIdx.x % 32); }

__device__ __forceinline__ int roundUp(int count, int multiple) {
  return multiple > 1 ? (count + multiple - 1) / multiple * multiple : count;
}

}  // namespace kernels
