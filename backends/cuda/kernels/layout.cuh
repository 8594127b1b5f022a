// Layout: routing -> counts -> positions, without the host. Everything here is a pure function of the routing.
//
//   countSlots   tiles of 32 tokens: how many of each bucket (rank, expert, node) a tile holds; ids narrowed and checked
//   scanTiles    per bucket: exclusive prefix over the tiles; the total goes into every rank's table of counts, and with
//                several nodes the prefixes at which parts begin
//   ---- barrier: every rank has every source's counts ----
//   findOffsets  where this source's part of every bucket begins on its destination; sizes of this rank's own output
//   placeSlots   row of every slot: begin + prefix of the tile + order within the tile
//   makeLists    the send lists of the handle; slots at or past the row budget drop out
//   linkRows     tells the destinations which token lies in which row (and its ids, weights)
//   padRows      the destination's own rows that nobody sends
#pragma once

#include "views.cuh"

namespace kernels {

struct PublishArgs {
  Arenas arenas;
  int rank;
  int numRanks;
  RankView view;
};

/** Writes this rank's view into every arena. */
__global__ void publish(const __grid_constant__ PublishArgs args) {
  for (int dst = static_cast<int>(threadIdx.x); dst < args.numRanks; dst += static_cast<int>(blockDim.x)) {
    views(args.arenas, dst)[args.rank] = args.view;
  }
}

struct CountArgs {
  Shape shape;
  const void* topkIdx;
  bool wideIds;
  /** [tokens, topk]: checked ids, -1 = none. */
  int32_t* slotExpert;
  /** [tiles, buckets], zero before. */
  int32_t* tiles;
  Report* report;
};

__device__ __forceinline__ int64_t idAt(const CountArgs& args, int slot) {
  return args.wideIds ? static_cast<const int64_t*>(args.topkIdx)[slot]
                      : static_cast<const int32_t*>(args.topkIdx)[slot];
}

/** One thread per slot. */
__global__ void countSlots(const __grid_constant__ CountArgs args) {
  const Shape& shape = args.shape;
  const int expertsPerNode = shape.expertsPerRank * shape.ranksPerNode;
  const bool nodes = numNodes(shape) > 1;
  for (int slot = firstThread(); slot < shape.numTokens * shape.topk; slot += numThreads()) {
    const int token = slot / shape.topk;
    const int64_t id = idAt(args, slot);
    if (id == -1) {
      args.slotExpert[slot] = -1;
      continue;
    }
    bool good = id >= 0 && id < shape.numExperts;
    const int expert = good ? static_cast<int>(id) : 0;
    bool firstOfRank = true, firstOfNode = true;
    for (int other = token * shape.topk; good && other < slot; other++) {
      const int64_t earlier = idAt(args, other);
      if (earlier < 0 || earlier >= shape.numExperts) continue;
      good = earlier != id;
      firstOfRank = firstOfRank && static_cast<int>(earlier) / shape.expertsPerRank != expert / shape.expertsPerRank;
      firstOfNode = firstOfNode && static_cast<int>(earlier) / expertsPerNode != expert / expertsPerNode;
    }
    args.slotExpert[slot] = good ? expert : -1;
    if (!good) {
      dev::atomicMax(&args.report->badSlot, LAST_SLOT - slot);
      continue;
    }
    int32_t* tile = args.tiles + static_cast<size_t>(token / TILE_TOKENS) * numBuckets(shape);
    dev::atomicAdd(tile + shape.numRanks + expert, 1);
    if (firstOfRank) dev::atomicAdd(tile + expert / shape.expertsPerRank, 1);
    if (nodes && firstOfNode) dev::atomicAdd(tile + shape.numRanks + shape.numExperts + expert / expertsPerNode, 1);
  }
}

struct ScanArgs {
  Shape shape;
  Arenas arenas;
  int32_t* tiles;
  int numTiles;
  /** Layout alone: totals go here and nowhere else. */
  int32_t* totals;
};

/** Tiles that scanTiles reads before it writes: one after the other, each would wait for the one before. */
constexpr int SCAN_BATCH = 16;

/** Into every rank's table. */
__device__ __forceinline__ void storeCount(const ScanArgs& args, int word, int count) {
  for (int dst = 0; dst < args.shape.numRanks; dst++) {
    dev::store(countTable(args.arenas, dst) + args.shape.rank * countWords(args.shape) + word, count);
  }
}

/** One thread per bucket. */
__global__ void scanTiles(const __grid_constant__ ScanArgs args) {
  const Shape& shape = args.shape;
  const int buckets = numBuckets(shape);
  for (int bucket = firstThread(); bucket < buckets; bucket += numThreads()) {
    int sum = 0;
    for (int first = 0; first < args.numTiles; first += SCAN_BATCH) {
      int32_t* at = args.tiles + static_cast<size_t>(first) * buckets + bucket;
      int32_t counts[SCAN_BATCH];
#pragma unroll
      for (int i = 0; i < SCAN_BATCH; i++) {
        counts[i] = first + i < args.numTiles ? at[static_cast<size_t>(i) * buckets] : 0;
      }
#pragma unroll
      for (int i = 0; i < SCAN_BATCH; i++) {
        if (first + i < args.numTiles) at[static_cast<size_t>(i) * buckets] = sum;
        sum += counts[i];
      }
    }
    if (args.totals != nullptr) {
      args.totals[bucket] = sum;
      continue;
    }
    storeCount(args, bucket, sum);
    const bool expert = bucket >= shape.numRanks && bucket < shape.numRanks + shape.numExperts;
    if (numNodes(shape) == 1 || expert) continue;
    for (int part = 1; part < NUM_PARTS; part++) {
      const int tile = firstTileOf(part, args.numTiles);
      const int before = tile < args.numTiles ? args.tiles[static_cast<size_t>(tile) * buckets + bucket] : sum;
      storeCount(args, partWord(shape, part, bucket < shape.numRanks ? bucket : bucket - shape.numExperts), before);
    }
  }
}

struct OffsetArgs {
  Shape shape;
  Arenas arenas;
  int alignment;
  /** Rows at or past it are cut; NO_BUDGET = none. */
  int budget;
  /** [ranks] (fused) or [experts] (hybrid-ep): this source's first row there. */
  int32_t* begin;
  /** [experts]: scratch. */
  int32_t* wanted;
  /** Hybrid-ep: [L + 1] first row of each local expert and the end. */
  int32_t* expertRow;
  int32_t* tokensPerExpert;
  int32_t* numTokensPerExpert;
  Report* report;
};

__device__ inline void fusedOffsets(const OffsetArgs& args) {
  const Shape& shape = args.shape;
  const int words = countWords(shape);
  const int32_t* table = countTable(args.arenas, shape.rank);
  for (int dst = static_cast<int>(threadIdx.x); dst < shape.numRanks; dst += static_cast<int>(blockDim.x)) {
    int before = 0, all = 0;
    for (int src = 0; src < shape.numRanks; src++) {
      if (src == shape.rank) before = all;
      all += table[src * words + dst];
    }
    args.begin[dst] = before;
    if (dst == shape.rank) args.report->wantedRows = all;
  }
  for (int local = static_cast<int>(threadIdx.x); local < shape.expertsPerRank; local += static_cast<int>(blockDim.x)) {
    const int expert = shape.rank * shape.expertsPerRank + local;
    int all = 0;
    for (int src = 0; src < shape.numRanks; src++) all += table[src * words + shape.numRanks + expert];
    dev::atomicAdd(&args.report->wantedSlots, all);
    // With a budget the received slots are counted when it is known which were cut (countReceived).
    args.numTokensPerExpert[local] = args.budget == NO_BUDGET ? all : 0;
    args.tokensPerExpert[local] = args.budget == NO_BUDGET ? roundUp(all, args.alignment) : 0;
  }
}

__device__ inline void hybridOffsets(const OffsetArgs& args) {
  const Shape& shape = args.shape;
  const int words = countWords(shape);
  const int32_t* table = countTable(args.arenas, shape.rank);
  for (int expert = static_cast<int>(threadIdx.x); expert < shape.numExperts; expert += static_cast<int>(blockDim.x)) {
    int before = 0, all = 0;
    for (int src = 0; src < shape.numRanks; src++) {
      if (src == shape.rank) before = all;
      all += table[src * words + shape.numRanks + expert];
    }
    args.begin[expert] = before;
    args.wanted[expert] = all;
  }
  __syncthreads();
  for (int dst = static_cast<int>(threadIdx.x); dst < shape.numRanks; dst += static_cast<int>(blockDim.x)) {
    const bool mine = dst == shape.rank;
    int row = 0, slots = 0;
    for (int local = 0; local < shape.expertsPerRank; local++) {
      const int expert = dst * shape.expertsPerRank + local;
      const int wanted = args.wanted[expert];
      args.begin[expert] += row;
      if (mine) {
        const int room = args.budget > row ? args.budget - row : 0;
        const int count = wanted < room ? wanted : room;
        args.expertRow[local] = row;
        args.numTokensPerExpert[local] = count;
        args.tokensPerExpert[local] = roundUp(count, args.alignment);
      }
      row += roundUp(wanted, args.alignment);
      slots += wanted;
    }
    if (mine) {
      args.expertRow[shape.expertsPerRank] = row;
      args.report->wantedRows = row;
      args.report->wantedSlots = slots;
    }
  }
}

/** One block. */
__global__ void findOffsets(const __grid_constant__ OffsetArgs args) {
  if (args.shape.hybrid) {
    hybridOffsets(args);
  } else {
    fusedOffsets(args);
  }
}

struct PlaceArgs {
  Shape shape;
  const int32_t* slotExpert;
  /** Prefixes of scanTiles; used up. */
  int32_t* tiles;
  const int32_t* begin;
  /** [tokens, topk]: row of every slot; fused: only of a token's first slot on each rank; else -1. */
  int32_t* slotRow;
};

/** The bucket that a slot is counted in; -1 = none. Fused: a token counts once per rank, with its first slot there. */
__device__ __forceinline__ int bucketOf(const PlaceArgs& args, int token, int slot) {
  const Shape& shape = args.shape;
  const int32_t* experts = args.slotExpert + static_cast<size_t>(token) * shape.topk;
  if (shape.hybrid || experts[slot] < 0) return experts[slot];
  const int dst = experts[slot] / shape.expertsPerRank;
  for (int other = 0; other < slot; other++) {
    if (experts[other] >= 0 && experts[other] / shape.expertsPerRank == dst) return -1;
  }
  return dst;
}

/** One warp per tile, one lane per slot; the tokens of a tile one after the other. */
__global__ void placeSlots(const __grid_constant__ PlaceArgs args) {
  const Shape& shape = args.shape;
  const int numTiles = (shape.numTokens + TILE_TOKENS - 1) / TILE_TOKENS;
  const int buckets = numBuckets(shape);
  for (int tile = firstWarp(); tile < numTiles; tile += numWarps()) {
    int32_t* next = args.tiles + static_cast<size_t>(tile) * buckets + (shape.hybrid ? shape.numRanks : 0);
    const int full = (tile + 1) * TILE_TOKENS;
    const int end = full < shape.numTokens ? full : shape.numTokens;
    // The bucket of the next token is found while this one is counted.
    int bucket = laneIndex() < shape.topk ? bucketOf(args, tile * TILE_TOKENS, laneIndex()) : -1;
    for (int token = tile * TILE_TOKENS; token < end; token++) {
      const int ahead = token + 1 < end && laneIndex() < shape.topk ? bucketOf(args, token + 1, laneIndex()) : -1;
      for (int slot = laneIndex(); slot < shape.topk; slot += 32) {
        if (slot >= 32) bucket = bucketOf(args, token, slot);
        // The lanes of one token name different buckets: nobody else counts this one until the next token.
        args.slotRow[static_cast<size_t>(token) * shape.topk + slot] = bucket < 0 ? -1 : args.begin[bucket] + next[bucket]++;
      }
      bucket = ahead;
      __syncwarp();
    }
  }
}

struct ListArgs {
  Shape shape;
  int budget;
  const int32_t* slotExpert;
  const int32_t* slotRow;
  SendLists send;
};

/** One thread per slot: its place in the token's list is the number of kept slots that come before it. */
__global__ void makeLists(const __grid_constant__ ListArgs args) {
  const Shape& shape = args.shape;
  for (int at = firstThread(); at < shape.numTokens * shape.topk; at += numThreads()) {
    const int token = at / shape.topk, slot = at % shape.topk;
    const int expert = args.slotExpert[at], row = args.slotRow[at];
    int before = 0, kept = 0;
    for (int other = token * shape.topk; other < (token + 1) * shape.topk; other++) {
      const int otherRow = args.slotRow[other];
      if (otherRow < 0 || otherRow >= args.budget) continue;
      kept++;
      before += args.slotExpert[other] < expert;
    }
    if (slot < shape.width && slot >= kept) {
      const int entry = token * shape.width + slot;
      args.send.rank[entry] = -1;
      args.send.row[entry] = -1;
      if (shape.hybrid) args.send.expert[entry] = -1;
      if (shape.hybrid) args.send.slot[entry] = -1;
    }
    if (row < 0 || row >= args.budget) continue;
    const int entry = token * shape.width + before;
    args.send.rank[entry] = expert / shape.expertsPerRank;
    args.send.row[entry] = row;
    if (shape.hybrid) args.send.expert[entry] = expert;
    if (shape.hybrid) args.send.slot[entry] = slot;
  }
}

struct LinkArgs {
  Shape shape;
  Arenas arenas;
  SendLists send;
  /** Groups (distinct ranks) per token in staging memory. */
  int groups;
  /** New routing: what recv ids and weights are made of; else null. */
  const int32_t* slotExpert;
  const float* topkWeights;
  bool wideIds;
  /** A relay (hops.cuh): [tokens] whose rows they are, and where they return to in staging memory. Null: own tokens. */
  const int32_t* srcRank = nullptr;
  const int32_t* srcToken = nullptr;
  int firstToken = 0;
};

__device__ inline void sendFusedSlots(const LinkArgs& args, const RankView& view, int token, int dst, int row) {
  const Shape& shape = args.shape;
  for (int slot = 0; slot < shape.topk; slot++) {
    const int from = token * shape.topk + slot;
    const size_t to = static_cast<size_t>(row) * shape.topk + slot;
    const int expert = args.slotExpert[from];
    const bool here = expert >= 0 && expert / shape.expertsPerRank == dst;
    const int id = here ? expert - dst * shape.expertsPerRank : -1;
    if (view.topkIdx != nullptr && args.wideIds) dev::store(static_cast<int64_t*>(view.topkIdx) + to, int64_t{id});
    if (view.topkIdx != nullptr && !args.wideIds) dev::store(static_cast<int32_t*>(view.topkIdx) + to, int32_t{id});
    // Weights move as bits: a NaN keeps its payload.
    if (view.weights != nullptr && args.topkWeights != nullptr) {
      const auto* weights = reinterpret_cast<const uint32_t*>(args.topkWeights);
      dev::store(reinterpret_cast<uint32_t*>(view.weights) + to, here ? weights[from] : 0u);
    }
  }
}

/** One thread per entry of the send lists. */
__global__ void linkRows(const __grid_constant__ LinkArgs args) {
  const Shape& shape = args.shape;
  for (int at = firstThread(); at < shape.numTokens * shape.width; at += numThreads()) {
    const int dst = args.send.rank[at];
    if (dst < 0) continue;
    const int token = at / shape.width, row = args.send.row[at];
    const RankView& view = views(args.arenas, shape.rank)[dst];
    int group = 0;
    bool first = true;
    for (int other = token * shape.width; other < at; other++) {
      first = args.send.rank[other] != dst;
      group += args.send.rank[other] != args.send.rank[other + 1];
    }
    const bool last = at + 1 == (token + 1) * shape.width || args.send.rank[at + 1] != dst;
    dev::store(view.rowSrcRank + row, args.srcRank != nullptr ? args.srcRank[token] : int32_t{shape.rank});
    dev::store(view.rowSrcToken + row, args.srcToken != nullptr ? args.srcToken[token] : int32_t{token});
    dev::store(view.rowNext + row, last ? int32_t{-1} : args.send.row[at + 1]);
    dev::store(view.rowReturn + row, first ? int32_t{(args.firstToken + token) * args.groups + group} : int32_t{-1});
    if (args.slotExpert == nullptr) continue;
    if (!shape.hybrid) {
      sendFusedSlots(args, view, token, dst, row);
    } else if (view.weights != nullptr && args.topkWeights != nullptr) {
      const auto* weights = reinterpret_cast<const uint32_t*>(args.topkWeights);
      dev::store(reinterpret_cast<uint32_t*>(view.weights) + row, weights[token * shape.topk + args.send.slot[at]]);
    }
  }
}

struct PadArgs {
  Shape shape;
  int numRows;
  const Report* report;
  const int32_t* expertRow;
  const int32_t* numTokensPerExpert;
  Rows rows;
  void* topkIdx;
  float* weights;
  bool wideIds;
};

__device__ inline bool isPadding(const PadArgs& args, int row) {
  if (!args.shape.hybrid) return row >= args.report->wantedRows;
  int low = 0, high = args.shape.expertsPerRank;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (args.expertRow[middle] <= row ? low : high) = middle;
  }
  return row - args.expertRow[low] >= args.numTokensPerExpert[low];
}

/** One thread per row of this rank's output. */
__global__ void padRows(const __grid_constant__ PadArgs args) {
  for (int row = firstThread(); row < args.numRows; row += numThreads()) {
    if (!isPadding(args, row)) continue;
    args.rows.srcRank[row] = -1;
    args.rows.srcToken[row] = -1;
    args.rows.next[row] = -1;
    args.rows.back[row] = -1;
    const int columns = args.shape.hybrid ? 1 : args.shape.topk;
    for (size_t at = static_cast<size_t>(row) * columns; at < static_cast<size_t>(row + 1) * columns; at++) {
      if (args.topkIdx != nullptr && args.wideIds) static_cast<int64_t*>(args.topkIdx)[at] = -1;
      if (args.topkIdx != nullptr && !args.wideIds) static_cast<int32_t*>(args.topkIdx)[at] = -1;
      if (args.weights != nullptr) args.weights[at] = 0.0f;
    }
  }
}

struct ReceivedArgs {
  Shape shape;
  int numRows;
  const void* topkIdx;
  bool wideIds;
  /** [L], zero before. */
  int32_t* numTokensPerExpert;
};

/** Fused with a budget: received slots per local expert, one thread per slot of every row. */
__global__ void countReceived(const __grid_constant__ ReceivedArgs args) {
  const int slots = args.numRows * args.shape.topk;
  for (int at = firstThread(); at < slots; at += numThreads()) {
    const auto id = args.wideIds ? static_cast<int>(static_cast<const int64_t*>(args.topkIdx)[at])
                                 : static_cast<const int32_t*>(args.topkIdx)[at];
    if (id >= 0) dev::atomicAdd(args.numTokensPerExpert + id, 1);
  }
}

}  // namespace kernels
