// Several nodes in several processes: a token's row goes once to each other node, to the rank with the source's index (its
// rail), and is relayed from there. To its source the other node looks like one more destination rank, whose memory is the
// send buffer; to the ranks of its node the relay looks like the source.
#pragma once

#include "views.cuh"

namespace kernels {

__device__ __forceinline__ int ownNode(const Shape& shape) { return shape.rank / shape.ranksPerNode; }

/** Rows that `src` sends to `node` (the layout's count of its tokens there). */
__device__ __forceinline__ int numNodeRows(const Shape& shape, const int32_t* table, int src, int node) {
  return table[static_cast<size_t>(src) * numBuckets(shape) + shape.numRanks + shape.numExperts + node];
}

struct RailArgs {
  Shape shape;
  Arenas arenas;
  RankView view;
};

/** Puts the send buffer where the views of this rail's other ranks are. */
__global__ void publishRails(const __grid_constant__ RailArgs args) {
  const Shape& shape = args.shape;
  for (int node = static_cast<int>(threadIdx.x); node < numNodes(shape); node += static_cast<int>(blockDim.x)) {
    if (node == ownNode(shape)) continue;
    views(args.arenas, shape.rank)[node * shape.ranksPerNode + shape.rank % shape.ranksPerNode] = args.view;
  }
}

struct NodeRowArgs {
  Shape shape;
  Arenas arenas;
  const int32_t* slotExpert;
  /** Prefixes of scanTiles. */
  const int32_t* tiles;
  /** [tokens, nodes]: row of the send buffer, -1 = none. */
  int32_t* nodeRow;
};

/** One thread per (tile, node): nodes ascending, tokens ascending within each. */
__global__ void placeNodeRows(const __grid_constant__ NodeRowArgs args) {
  const Shape& shape = args.shape;
  const int nodes = numNodes(shape), buckets = numBuckets(shape);
  const int expertsPerNode = shape.expertsPerRank * shape.ranksPerNode;
  const int numTiles = (shape.numTokens + TILE_TOKENS - 1) / TILE_TOKENS;
  for (int at = firstThread(); at < numTiles * nodes; at += numThreads()) {
    const int tile = at / nodes, node = at % nodes;
    int row = args.tiles[static_cast<size_t>(tile) * buckets + shape.numRanks + shape.numExperts + node];
    for (int before = 0; before < node; before++) {
      if (before != ownNode(shape)) row += numNodeRows(shape, countTable(args.arenas, shape.rank), shape.rank, before);
    }
    const int full = (tile + 1) * TILE_TOKENS;
    for (int token = tile * TILE_TOKENS; token < (full < shape.numTokens ? full : shape.numTokens); token++) {
      bool found = false;
      for (int slot = token * shape.topk; slot < (token + 1) * shape.topk && node != ownNode(shape); slot++) {
        found = found || (args.slotExpert[slot] >= 0 && args.slotExpert[slot] / expertsPerNode == node);
      }
      args.nodeRow[static_cast<size_t>(token) * nodes + node] = found ? row++ : -1;
    }
  }
}

struct MergeArgs {
  Shape shape;
  SendLists send;
  const int32_t* nodeRow;
  /** rank, row and (hybrid-ep) slot. */
  SendLists merged;
};

/** One thread per token: own ranks' entries as they are, one entry per other node; ascending by rank like the list. */
__global__ void mergeLists(const __grid_constant__ MergeArgs args) {
  const Shape& shape = args.shape;
  const int nodes = numNodes(shape), own = ownNode(shape), index = shape.rank % shape.ranksPerNode;
  for (int token = firstThread(); token < shape.numTokens; token += numThreads()) {
    const int end = (token + 1) * shape.width;
    int to = token * shape.width;
    for (int node = 0; node < nodes; node++) {
      const int row = args.nodeRow[static_cast<size_t>(token) * nodes + node];
      if (node != own && row >= 0) {
        args.merged.rank[to] = node * shape.ranksPerNode + index;
        args.merged.row[to] = row;
        if (shape.hybrid) args.merged.slot[to] = -1;
        to++;
      }
      for (int entry = token * shape.width; node == own && entry < end; entry++) {
        const int dst = args.send.rank[entry];
        if (dst < 0 || dst / shape.ranksPerNode != own) continue;
        args.merged.rank[to] = dst;
        args.merged.row[to] = args.send.row[entry];
        if (shape.hybrid) args.merged.slot[to] = args.send.slot[entry];
        to++;
      }
    }
    for (; to < end; to++) {
      args.merged.rank[to] = -1;
      args.merged.row[to] = -1;
      if (shape.hybrid) args.merged.slot[to] = -1;
    }
  }
}

/** Words of one row's metadata: token, experts and rows of its slots on the node, and their weights. */
__device__ __host__ __forceinline__ int metadataWords(int topk, bool weights) { return 1 + topk * (weights ? 3 : 2); }

struct MetadataArgs {
  Shape shape;
  const int32_t* slotExpert;
  const int32_t* slotRow;
  /** Bits of the weights, or null. */
  const int32_t* weights;
  const int32_t* nodeRow;
  /** [rows of the send buffer, words]. */
  int32_t* metadata;
};

/** One thread per (token, node). */
__global__ void packMetadata(const __grid_constant__ MetadataArgs args) {
  const Shape& shape = args.shape;
  const int nodes = numNodes(shape), topk = shape.topk;
  const int expertsPerNode = shape.expertsPerRank * shape.ranksPerNode;
  const int words = metadataWords(topk, args.weights != nullptr);
  for (int at = firstThread(); at < shape.numTokens * nodes; at += numThreads()) {
    if (args.nodeRow[at] < 0) continue;
    const int token = at / nodes, node = at % nodes;
    int32_t* to = args.metadata + static_cast<size_t>(args.nodeRow[at]) * words;
    *to++ = token;
    for (int slot = 0; slot < topk; slot++) {
      const int from = token * topk + slot;
      const int expert = args.slotExpert[from];
      const bool there = expert >= 0 && expert / expertsPerNode == node;
      to[slot] = there ? expert : -1;
      to[topk + slot] = there ? args.slotRow[from] : -1;
      if (args.weights != nullptr) to[2 * topk + slot] = there ? args.weights[from] : 0;
    }
  }
}

struct UnpackArgs {
  Shape shape;
  Arenas arenas;
  int numRows;
  const int32_t* metadata;
  bool hasWeights;
  /** [rows]. */
  int32_t* srcRank;
  int32_t* srcToken;
  /** [rows, topk]. */
  int32_t* slotExpert;
  int32_t* slotRow;
  int32_t* weights;
};

/** One thread per received row. */
__global__ void unpackMetadata(const __grid_constant__ UnpackArgs args) {
  const Shape& shape = args.shape;
  const int topk = shape.topk, index = shape.rank % shape.ranksPerNode;
  const int words = metadataWords(topk, args.hasWeights);
  const int32_t* table = countTable(args.arenas, shape.rank);
  for (int row = firstThread(); row < args.numRows; row += numThreads()) {
    int src = index, end = 0;
    for (int node = 0; node < numNodes(shape); node++) {
      if (node == ownNode(shape)) continue;
      src = node * shape.ranksPerNode + index;
      end += numNodeRows(shape, table, src, ownNode(shape));
      if (row < end) break;
    }
    const int32_t* from = args.metadata + static_cast<size_t>(row) * words;
    args.srcRank[row] = src;
    args.srcToken[row] = *from++;
    for (int slot = 0; slot < topk; slot++) {
      const size_t to = static_cast<size_t>(row) * topk + slot;
      args.slotExpert[to] = from[slot];
      args.slotRow[to] = from[topk + slot];
      if (args.hasWeights) args.weights[to] = from[2 * topk + slot];
    }
  }
}

struct RelayProbsArgs {
  Shape shape;
  Arenas arenas;
  SendLists send;
  /** [rows, width]. */
  uint32_t* out;
};

/** Hybrid-ep: the probs of a relayed row's entries, in their order; one thread per entry. */
__global__ void gatherRelayProbs(const __grid_constant__ RelayProbsArgs args) {
  const Shape& shape = args.shape;
  for (int at = firstThread(); at < shape.numTokens * shape.width; at += numThreads()) {
    const int dst = args.send.rank[at];
    args.out[at] = dst < 0 ? 0 : reinterpret_cast<const uint32_t*>(views(args.arenas, shape.rank)[dst].weights)[args.send.row[at]];
  }
}

struct NodeProbsArgs {
  Shape shape;
  Arenas arenas;
  SendLists send;
  SendLists merged;
  /** [rows of the send buffer, width]: what came back. */
  const uint32_t* returned;
  /** [tokens, experts]. */
  uint32_t* out;
};

/** Hybrid-ep: gatherProbs where some ranks are on other nodes. One warp per token. */
__global__ void gatherNodeProbs(const __grid_constant__ NodeProbsArgs args) {
  const Shape& shape = args.shape;
  const int own = ownNode(shape);
  for (int token = firstWarp(); token < shape.numTokens; token += numWarps()) {
    const int first = token * shape.width, end = first + shape.width;
    for (int expert = laneIndex(); expert < shape.numExperts; expert += 32) {
      uint32_t bits = 0;
      int node = -1, place = 0;
      for (int entry = first; entry < end && args.send.rank[entry] >= 0; entry++) {
        const int dst = args.send.rank[entry];
        place = dst / shape.ranksPerNode == node ? place + 1 : 0;
        node = dst / shape.ranksPerNode;
        if (args.send.expert[entry] != expert) continue;
        if (node == own) {
          bits = reinterpret_cast<const uint32_t*>(views(args.arenas, shape.rank)[dst].weights)[args.send.row[entry]];
          continue;
        }
        const int rail = node * shape.ranksPerNode + shape.rank % shape.ranksPerNode;
        for (int other = first; other < end; other++) {
          if (args.merged.rank[other] != rail) continue;
          bits = args.returned[static_cast<size_t>(args.merged.row[other]) * shape.width + place];
        }
      }
      args.out[static_cast<size_t>(token) * shape.numExperts + expert] = bits;
    }
  }
}

}  // namespace kernels
