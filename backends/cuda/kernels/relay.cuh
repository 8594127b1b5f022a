// Groups over several processes: where rows are on their way, and the probs that come back for them.
#pragma once

#include "hops.cuh"
#include "rows.cuh"

namespace kernels {

struct HopViewArgs {
  Shape shape;
  Arenas arenas;
  Hop hop;
  RankView view;
};

/** Puts the send buffer where the views of the hop's other ranks are. */
__global__ void publishHop(const __grid_constant__ HopViewArgs args) {
  for (int place = static_cast<int>(threadIdx.x); place < args.hop.count; place += static_cast<int>(blockDim.x)) {
    const int rank = args.hop.first + place * args.hop.stride;
    if (placeOf(args.hop, args.shape, rank) >= 0) views(args.arenas, args.shape.rank)[rank] = args.view;
  }
}

struct GatherArgs {
  int numRows;
  /** [numRows] row of `from` that each is. */
  const int32_t* srcRow;
  const void* from;
  void* to;
  int count;
};

/** One warp per row of a send buffer. */
template <class V>
__global__ void __launch_bounds__(512, 1) gatherRows(const __grid_constant__ GatherArgs args) {
  for (int row = firstWarp(); row < args.numRows; row += numWarps()) {
    V* to[BATCH] = {static_cast<V*>(args.to) + static_cast<size_t>(row) * args.count};
    copyRow(static_cast<const V*>(args.from) + static_cast<size_t>(args.srcRow[row]) * args.count, to, args.count, laneIndex());
  }
}

struct NodeProbsArgs {
  Shape shape;
  Arenas arenas;
  /** The items' own lists, every entry of the ranks behind them. */
  SendLists send;
  HopRowsOf rows;
  /** [rows of the hop's send buffer, width]: what came back. */
  const uint32_t* railProbs;
  const uint32_t* nodeProbs;
  /** Relayed rows: [items, width], their entries' probs in order. Tokens: [tokens, experts]. */
  uint32_t* out;
};

/** The prob of one entry: of the destination's memory, or what a hop brought back for it. */
__device__ inline uint32_t entryProb(const NodeProbsArgs& args, int item, int entry) {
  const Shape& shape = args.shape;
  const int first = item * shape.width, dst = args.send.rank[entry], node = dst / shape.ranksPerNode;
  if (isLocal(shape, args.rows.ranksPerProcess, dst)) {
    return reinterpret_cast<const uint32_t*>(views(args.arenas, shape.rank)[dst].weights)[args.send.row[entry]];
  }
  // Behind the place the entries of a row are in the same order: this one's number among them.
  const bool rail = node != ownNode(shape);
  int number = 0;
  for (int other = first; other < entry; other++) {
    number += rail ? args.send.rank[other] / shape.ranksPerNode == node : args.send.rank[other] == dst;
  }
  const int32_t row = rail ? args.rows.rail[static_cast<size_t>(item) * numNodes(shape) + node]
                           : args.rows.node[static_cast<size_t>(item) * shape.ranksPerNode + dst % shape.ranksPerNode];
  return (rail ? args.railProbs : args.nodeProbs)[static_cast<size_t>(row) * shape.width + number];
}

/** Hybrid-ep: the probs of a relayed row's entries, in their order; one thread per entry. */
__global__ void gatherRelayProbs(const __grid_constant__ NodeProbsArgs args) {
  const Shape& shape = args.shape;
  for (int at = firstThread(); at < shape.numTokens * shape.width; at += numThreads()) {
    args.out[at] = args.send.rank[at] < 0 ? 0 : entryProb(args, at / shape.width, at);
  }
}

/** Hybrid-ep: gatherProbs where some ranks are in other processes. One warp per token. */
__global__ void gatherNodeProbs(const __grid_constant__ NodeProbsArgs args) {
  const Shape& shape = args.shape;
  for (int token = firstWarp(); token < shape.numTokens; token += numWarps()) {
    const int first = token * shape.width, end = first + shape.width;
    for (int expert = laneIndex(); expert < shape.numExperts; expert += 32) {
      uint32_t bits = 0;
      for (int entry = first; entry < end && args.send.rank[entry] >= 0; entry++) {
        if (args.send.expert[entry] == expert) bits = entryProb(args, token, entry);
      }
      args.out[static_cast<size_t>(token) * shape.numExperts + expert] = bits;
    }
  }
}

}  // namespace kernels
