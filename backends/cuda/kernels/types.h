// What ranks know of each other's memory, as plain data: read by kernels and by the host code around them.
#pragma once

#include <cstddef>
#include <cstdint>

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

/** The arenas of all ranks as this rank's device sees them, and the offsets that are the same in each. */
struct Arenas {
  char* const* at;
  size_t tableOffset;
  size_t stagingOffset;
  size_t stagingWeightsOffset;
};

/** The send lists of a source (core/handle/handle.ts). */
struct SendLists {
  int32_t* rank;
  int32_t* row;
  int32_t* expert;
  int32_t* slot;
};

/**
 * Which ranks a communicator of a group over several processes brings together: place i holds rank first + i * stride. A
 * rail: the ranks of one index on all nodes; otherwise the ranks of one node.
 */
struct Hop {
  bool rail;
  int first;
  int stride;
  int count;
  /** Ranks of one process: a node's, or one. */
  int ranksPerProcess;
};

/** Where a part of what goes to one place begins: its number among the place's rows, and its row in the send buffer. */
struct PartStart {
  int32_t number;
  int32_t row;
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
  /** Groups over several processes: rows to other ranks of this process, in dispatch and on the way back. */
  int32_t linkRowsPushed;
  int32_t linkRowsReturned;
};
constexpr int32_t LAST_SLOT = 0x7fffffff;
constexpr int32_t NO_BUDGET = 0x7fffffff;
/** Tokens that one warp places in order. */
constexpr int TILE_TOKENS = 32;

}  // namespace kernels
