// Dispatch: every (token, destination rank) row is written once, straight to its final place on the destination; there
// the token's other experts get their copies locally.
#pragma once

#include "rows.cuh"

namespace kernels {

struct PushArgs {
  Shape shape;
  Arenas arenas;
  SendLists send;
  const void* rows;
  /** Which plane of the destination: 0 rows, 1 scales. */
  int plane;
  /** Accesses per row (vector kernel). */
  int count;
  BulkShape bulk;
};

/** True for the first entry of a destination rank: the one whose row crosses the link. */
__device__ __forceinline__ bool isFirstOfRank(const int32_t* sendRank, int first, int entry) {
  return sendRank[entry] >= 0 && (entry == first || sendRank[entry - 1] != sendRank[entry]);
}

/** One warp per token; the row is read once for up to BATCH destinations. */
template <class V>
__global__ void __launch_bounds__(512, 1) pushRows(const __grid_constant__ PushArgs args) {
  const Shape& shape = args.shape;
  const RankView* table = views(args.arenas, shape.rank);
  for (int token = firstWarp(); token < shape.numTokens; token += numWarps()) {
    const V* from = static_cast<const V*>(args.rows) + static_cast<size_t>(token) * args.count;
    const int first = token * shape.width, end = first + shape.width;
    int entry = first;
    while (entry < end && args.send.rank[entry] >= 0) {
      V* to[BATCH];
#pragma unroll
      for (int place = 0; place < BATCH; place++) {
        to[place] = nullptr;
        while (entry < end && !isFirstOfRank(args.send.rank, first, entry)) entry++;
        if (entry >= end) continue;
        const int dst = args.send.rank[entry];
        to[place] = static_cast<V*>(table[dst].planes[args.plane]) + static_cast<size_t>(args.send.row[entry]) * args.count;
        entry++;
      }
      if (to[0] == nullptr) break;
      copyRow(from, to, args.count, laneIndex());
    }
  }
}

/** The tokens of one warp and where their rows go. */
struct PushPlan {
  const PushArgs& args;
  const RankView* table;
  int token;

  __device__ explicit PushPlan(const PushArgs& all)
      : args(all), table(views(all.arenas, all.shape.rank)), token(firstWarp() - numWarps()) {}
  __device__ bool next() {
    do {
      token += numWarps();
    } while (token < args.shape.numTokens && args.send.rank[token * args.shape.width] < 0);
    return token < args.shape.numTokens;
  }
  __device__ const char* from() const {
    return static_cast<const char*>(args.rows) + static_cast<size_t>(token) * args.bulk.rowBytes;
  }
  template <class F>
  __device__ void forEachPlace(F f) const {
    const int first = token * args.shape.width;
    for (int entry = first; entry < first + args.shape.width; entry++) {
      if (!isFirstOfRank(args.send.rank, first, entry)) continue;
      const RankView& view = table[args.send.rank[entry]];
      f(static_cast<char*>(view.planes[args.plane]) + static_cast<size_t>(args.send.row[entry]) * args.bulk.rowBytes);
    }
  }
};

/** The same by the copy engine (sm_90 and newer, rows and addresses multiples of 16 bytes). */
__global__ void __launch_bounds__(32 * BULK_WARPS) pushRowsBulk(const __grid_constant__ PushArgs args) {
  bulkCopyRows(PushPlan(args), PushPlan(args), args.bulk);
}

struct FillArgs {
  int numRows;
  Rows rows;
  void* plane;
  int count;
};

/** One warp per row of the destination: a first row is copied to the token's other rows here, padding becomes zero. */
template <class V>
__global__ void __launch_bounds__(512, 1) fillRows(const __grid_constant__ FillArgs args) {
  for (int row = firstWarp(); row < args.numRows; row += numWarps()) {
    V* own = static_cast<V*>(args.plane) + static_cast<size_t>(row) * args.count;
    if (args.rows.srcRank[row] < 0) {
      clearRow(own, args.count, laneIndex());
      continue;
    }
    if (args.rows.back[row] < 0) continue;
    int next = args.rows.next[row];
    while (next >= 0) {
      V* to[BATCH];
#pragma unroll
      for (int place = 0; place < BATCH; place++) {
        to[place] = next < 0 ? nullptr : static_cast<V*>(args.plane) + static_cast<size_t>(next) * args.count;
        if (next >= 0) next = args.rows.next[next];
      }
      copyRow(static_cast<const V*>(own), to, args.count, laneIndex());
    }
  }
}

}  // namespace kernels
