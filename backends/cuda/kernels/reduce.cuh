// Combine: the rows of one token on one rank are summed there, one row per (token, rank) goes back, and the source sums
// those in rank order (design 2.4, 2.5). The order of every sum is the order of the send list.
#pragma once

#include "numbers.cuh"
#include "rows.cuh"

namespace kernels {

/** Which rows go back: over several processes those that are relayed first, so that the rest overlaps with the network. */
enum class Sources { All, OtherNodes, OwnNode };

struct ReturnArgs {
  Arenas arenas;
  int rank;
  int numRows;
  Rows rows;
  /** [numRows] rows to give back. */
  const void* plane;
  int count;
  /** Which staging memory: 0 rows, 1 weights. */
  int which;
  /** Push: into the source's staging memory. Else (pull) sums of several rows stay in `sums` here. */
  bool push;
  void* sums;
  /** Rows that are alone on this rank are moved by returnRowsBulk (push) or read in place (pull). */
  bool skipSingle;
  BulkShape bulk;
  Sources sources;
  int ranksPerNode;
};

__device__ __forceinline__ bool isPassedOver(const ReturnArgs& args, int row) {
  if (args.sources == Sources::All) return false;
  return (args.rows.srcRank[row] / args.ranksPerNode == args.rank / args.ranksPerNode) != (args.sources == Sources::OwnNode);
}

__device__ __forceinline__ char* stagingRow(const Arenas& arenas, int rank, int which, int index, size_t rowBytes) {
  const size_t offset = which == 0 ? arenas.stagingOffset : arenas.stagingWeightsOffset;
  return arenas.at[rank] + offset + static_cast<size_t>(index) * rowBytes;
}

/** sum(rows of the chain that starts at `row`), rounded to D, to `to`. */
template <class D, class V>
__device__ __forceinline__ void sumChain(const ReturnArgs& args, int row, V* to, int lane) {
  constexpr int COUNT = Lanes<D, V>::COUNT;
  const V* from[BATCH];
  int next = row;
#pragma unroll
  for (int i = 0; i < BATCH; i++) {
    from[i] = next < 0 ? nullptr : static_cast<const V*>(args.plane) + static_cast<size_t>(next) * args.count;
    if (next >= 0) next = args.rows.next[next];
  }
  // Two vectors of every row per step: with one, too few bytes are in flight to fill the memory (docs/performance.md).
  constexpr int STEPS = 2;
  for (int at = lane; at < args.count; at += 32 * STEPS) {
    V values[STEPS][BATCH];
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
#pragma unroll
      for (int i = 0; i < BATCH; i++) {
        if (from[i] != nullptr && at + 32 * step < args.count) values[step][i] = dev::load(from[i] + at + 32 * step);
      }
    }
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      const int column = at + 32 * step;
      if (column >= args.count) break;
      float sums[COUNT];
      clear<D, V>(sums);
#pragma unroll
      for (int i = 0; i < BATCH; i++) {
        if (from[i] != nullptr) accumulate<D, V>(sums, values[step][i]);
      }
      for (int more = next; more >= 0; more = args.rows.next[more]) {
        accumulate<D, V>(sums, dev::load(static_cast<const V*>(args.plane) + static_cast<size_t>(more) * args.count + column));
      }
      dev::store(to + column, Lanes<D, V>::pack(sums));
    }
  }
}

/**
 * One warp per row of the expert's rank: first rows of a (token, rank) go back. A row alone is copied: its sum differs
 * from it only where the source's own sum makes no difference (subnormals, NaN payloads).
 */
template <class D, class V>
__global__ void __launch_bounds__(512, 1) returnRows(const __grid_constant__ ReturnArgs args) {
  for (int row = firstWarp(); row < args.numRows; row += numWarps()) {
    const int back = args.rows.back[row];
    if (back < 0 || isPassedOver(args, row)) continue;
    const bool single = args.rows.next[row] < 0;
    if (single && args.skipSingle) continue;
    V* to = args.push ? reinterpret_cast<V*>(stagingRow(args.arenas, args.rows.srcRank[row], args.which, back,
                                                        static_cast<size_t>(args.count) * sizeof(V)))
                      : static_cast<V*>(args.sums) + static_cast<size_t>(row) * args.count;
    if (!single) {
      sumChain<D, V>(args, row, to, laneIndex());
      continue;
    }
    V* places[BATCH] = {to};
    copyRow(static_cast<const V*>(args.plane) + static_cast<size_t>(row) * args.count, places, args.count, laneIndex());
  }
}

/** The rows of one warp that are alone on this rank. */
struct ReturnPlan {
  const ReturnArgs& args;
  int row;

  __device__ explicit ReturnPlan(const ReturnArgs& all) : args(all), row(firstWarp() - numWarps()) {}
  __device__ bool next() {
    do {
      row += numWarps();
    } while (row < args.numRows && (args.rows.back[row] < 0 || args.rows.next[row] >= 0 || isPassedOver(args, row)));
    return row < args.numRows;
  }
  __device__ const char* from() const {
    return static_cast<const char*>(args.plane) + static_cast<size_t>(row) * args.bulk.rowBytes;
  }
  template <class F>
  __device__ void forEachPlace(F f) const {
    f(stagingRow(args.arenas, args.rows.srcRank[row], args.which, args.rows.back[row], args.bulk.rowBytes));
  }
};

__global__ void __launch_bounds__(32 * BULK_WARPS) returnRowsBulk(const __grid_constant__ ReturnArgs args) {
  bulkCopyRows(ReturnPlan(args), ReturnPlan(args), args.bulk);
}

struct ReduceArgs {
  Shape shape;
  Arenas arenas;
  SendLists send;
  int groups;
  int which;
  bool push;
  int count;
  /** [tokens, columns], or null. */
  const void* bias0;
  const void* bias1;
  void* out;
};

/** Where the row of the rank at `entry` is; `group` counts the token's ranks. */
template <class V>
__device__ __forceinline__ const V* groupRow(const ReduceArgs& args, int token, int entry, int group, bool single) {
  if (args.push) {
    const int index = token * args.groups + group;
    return reinterpret_cast<const V*>(stagingRow(args.arenas, args.shape.rank, args.which, index,
                                                 static_cast<size_t>(args.count) * sizeof(V)));
  }
  const RankView& view = views(args.arenas, args.shape.rank)[args.send.rank[entry]];
  const void* plane = single ? view.planes[args.which] : view.sums[args.which];
  return static_cast<const V*>(plane) + static_cast<size_t>(args.send.row[entry]) * args.count;
}

/** The next BATCH ranks of a token: their rows and nodes. Returns the entry after them. */
template <class V>
__device__ __forceinline__ int nextGroups(const ReduceArgs& args, int token, int entry, int& group,
                                          const V* (&from)[BATCH], int (&node)[BATCH]) {
  const int end = (token + 1) * args.shape.width;
#pragma unroll
  for (int i = 0; i < BATCH; i++) {
    from[i] = nullptr;
    node[i] = -1;
    if (entry >= end) continue;
    const int dst = args.send.rank[entry];
    if (dst < 0) continue;
    const int start = entry++;
    while (entry < end && args.send.rank[entry] == dst) entry++;
    from[i] = groupRow<V>(args, token, start, group++, entry == start + 1);
    node[i] = dst / args.shape.ranksPerNode;
  }
  return entry;
}

/** The sums of one access: the total, and with several nodes the sum of the node that is being added up. */
template <class D, class V, bool NODES>
struct TreeSum {
  static constexpr int COUNT = Lanes<D, V>::COUNT;
  float all[COUNT];
  float part[COUNT];
  int node = -1;

  __device__ __forceinline__ void add(V value, int ofNode) {
    if constexpr (NODES) {
      if (ofNode != node) finishNode();
      node = ofNode;
      accumulate<D, V>(part, value);
    } else {
      accumulate<D, V>(all, value);
    }
  }
  __device__ __forceinline__ void finishNode() {
    if constexpr (NODES) {
      if (node >= 0) accumulateRounded<D, V>(all, part);
      clear<D, V>(part);
    }
  }
};

/** One warp per token of the source. */
template <class D, class V, bool NODES>
__global__ void __launch_bounds__(512, 1) reduceTokens(const __grid_constant__ ReduceArgs args) {
  const Shape& shape = args.shape;
  for (int token = firstWarp(); token < shape.numTokens; token += numWarps()) {
    const V* from[BATCH];
    int node[BATCH];
    int firstGroup = 0;
    const int rest = nextGroups<V>(args, token, token * shape.width, firstGroup, from, node);
    const bool more = rest < (token + 1) * shape.width && args.send.rank[rest] >= 0;
    for (int at = laneIndex(); at < args.count; at += 32) {
      const size_t own = static_cast<size_t>(token) * args.count + at;
      V values[BATCH];
#pragma unroll
      for (int i = 0; i < BATCH; i++) {
        if (from[i] != nullptr) values[i] = dev::load(from[i] + at);
      }
      TreeSum<D, V, NODES> sum;
      clear<D, V>(sum.all);
      if constexpr (NODES) clear<D, V>(sum.part);
      if (args.bias0 != nullptr) accumulate<D, V>(sum.all, dev::load(static_cast<const V*>(args.bias0) + own));
      if (args.bias1 != nullptr) accumulate<D, V>(sum.all, dev::load(static_cast<const V*>(args.bias1) + own));
#pragma unroll
      for (int i = 0; i < BATCH; i++) {
        if (from[i] != nullptr) sum.add(values[i], node[i]);
      }
      int entry = rest, group = firstGroup;
      while (more && entry < (token + 1) * shape.width && args.send.rank[entry] >= 0) {
        const V* next[BATCH];
        int nextNode[BATCH];
        entry = nextGroups<V>(args, token, entry, group, next, nextNode);
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
          if (next[i] != nullptr) sum.add(dev::load(next[i] + at), nextNode[i]);
        }
      }
      sum.finishNode();
      dev::store(static_cast<V*>(args.out) + own, Lanes<D, V>::pack(sum.all));
    }
  }
}

struct ProbsArgs {
  Shape shape;
  Arenas arenas;
  SendLists send;
  /** [tokens, experts]. */
  uint32_t* out;
};

/** Hybrid-ep: one thread per (token, expert) fetches the prob of its row, bits unchanged; 0 where there is none. */
__global__ void gatherProbs(const __grid_constant__ ProbsArgs args) {
  const Shape& shape = args.shape;
  for (int token = firstWarp(); token < shape.numTokens; token += numWarps()) {
    for (int expert = laneIndex(); expert < shape.numExperts; expert += 32) {
      uint32_t bits = 0;
      for (int entry = token * shape.width; entry < (token + 1) * shape.width; entry++) {
        if (args.send.expert[entry] != expert) continue;
        const RankView& view = views(args.arenas, shape.rank)[args.send.rank[entry]];
        bits = reinterpret_cast<const uint32_t*>(view.weights)[args.send.row[entry]];
      }
      args.out[static_cast<size_t>(token) * shape.numExperts + expert] = bits;
    }
  }
}

}  // namespace kernels
