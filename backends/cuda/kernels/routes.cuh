// Groups over several processes: which rows cross by which hop, and what relays and destinations are told of them.
#pragma once

#include "hops.cuh"

namespace kernels {

/** Tokens of this rank, then rows that came to be relayed: what a hop takes rows from. */
struct Items {
  int numTokens;
  int count;
  /** [numTokens, topk] and [count - numTokens, topk]. */
  const int32_t* ownExpert;
  const int32_t* relayedExpert;

  __device__ __forceinline__ const int32_t* experts(int item, int topk) const {
    return item < numTokens ? ownExpert + static_cast<size_t>(item) * topk
                            : relayedExpert + static_cast<size_t>(item - numTokens) * topk;
  }
};

struct MarkArgs {
  Shape shape;
  Arenas arenas;
  const Report* report;
};

/** A rank with a bad expert id says so in its counts, so that all processes stop at the same place: minus its badSlot. */
__global__ void markBadSlot(const __grid_constant__ MarkArgs args) {
  if (args.report->badSlot == 0) return;
  for (int dst = static_cast<int>(threadIdx.x); dst < args.shape.numRanks; dst += static_cast<int>(blockDim.x)) {
    dev::store(countTable(args.arenas, dst) + args.shape.rank * countWords(args.shape), -args.report->badSlot);
  }
}

struct HopRowArgs {
  Shape shape;
  Hop hop;
  Items items;
  /** [places, parts]. */
  const PartStart* parts;
  int numParts;
  /** [items, places]: row of the send buffer, -1 = none. */
  int32_t* row;
};

/** Threads of placeHopRows. */
constexpr int PLACE_THREADS = 256;

/** One block per place; items ascending within each. Every thread counts a stretch of items, then places it. */
__global__ void placeHopRows(const __grid_constant__ HopRowArgs args) {
  const Shape& shape = args.shape;
  auto* counts = reinterpret_cast<int32_t*>(dev::shared());
  const int place = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  const int each = (args.items.count + PLACE_THREADS - 1) / PLACE_THREADS;
  const int first = thread * each, full = first + each, end = full < args.items.count ? full : args.items.count;
  const auto wanted = [&](int item) {
    const int32_t* experts = args.items.experts(item, shape.topk);
    for (int slot = 0; slot < shape.topk; slot++) {
      if (experts[slot] >= 0 && placeOf(args.hop, shape, experts[slot] / shape.expertsPerRank) == place) return true;
    }
    return false;
  };
  int own = 0;
  for (int item = first; item < end; item++) own += wanted(item);
  counts[thread] = own;
  __syncthreads();
  int number = 0;
  for (int before = 0; before < thread; before++) number += counts[before];
  const PartStart* part = args.parts + place * args.numParts;
  const PartStart* last = part + args.numParts - 1;
  for (int item = first; item < end; item++) {
    int32_t& row = args.row[static_cast<size_t>(item) * args.hop.count + place];
    row = -1;
    if (!wanted(item)) continue;
    while (part < last && number >= part[1].number) part++;
    row = part->row + number++ - part->number;
  }
}

/** Words of one row's route: token, source, experts and rows of its slots behind the place, and their weights. */
__device__ __host__ __forceinline__ int routeWords(int topk, bool weights) { return 2 + topk * (weights ? 3 : 2); }

struct RouteArgs {
  Shape shape;
  Hop hop;
  int numItems;
  /** [items, topk]. */
  const int32_t* slotExpert;
  const int32_t* slotRow;
  /** Bits of the weights, or null. */
  const int32_t* weights;
  /** [items, places]. */
  const int32_t* row;
  /** [items] of relayed rows; null: the items are this rank's tokens. */
  const int32_t* srcRank;
  const int32_t* srcToken;
  /** [rows of the send buffer, words]. */
  int32_t* routes;
};

/** One thread per (item, place). */
__global__ void packRoutes(const __grid_constant__ RouteArgs args) {
  const Shape& shape = args.shape;
  const int topk = shape.topk, words = routeWords(topk, args.weights != nullptr);
  for (int at = firstThread(); at < args.numItems * args.hop.count; at += numThreads()) {
    if (args.row[at] < 0) continue;
    const int item = at / args.hop.count, place = at % args.hop.count;
    int32_t* to = args.routes + static_cast<size_t>(args.row[at]) * words;
    *to++ = args.srcToken != nullptr ? args.srcToken[item] : item;
    *to++ = args.srcRank != nullptr ? args.srcRank[item] : shape.rank;
    for (int slot = 0; slot < topk; slot++) {
      const size_t from = static_cast<size_t>(item) * topk + slot;
      const int expert = args.slotExpert[from];
      const bool there = expert >= 0 && placeOf(args.hop, shape, expert / shape.expertsPerRank) == place;
      to[slot] = there ? expert : -1;
      to[topk + slot] = there ? args.slotRow[from] : -1;
      if (args.weights != nullptr) to[2 * topk + slot] = there ? args.weights[from] : 0;
    }
  }
}

struct UnpackArgs {
  int numRows;
  int topk;
  bool hasWeights;
  const int32_t* routes;
  /** [rows]. */
  int32_t* srcRank;
  int32_t* srcToken;
  /** [rows, topk]. */
  int32_t* slotExpert;
  int32_t* slotRow;
  int32_t* weights;
};

/** One thread per received row. */
__global__ void unpackRoutes(const __grid_constant__ UnpackArgs args) {
  const int topk = args.topk, words = routeWords(topk, args.hasWeights);
  for (int row = firstThread(); row < args.numRows; row += numThreads()) {
    const int32_t* from = args.routes + static_cast<size_t>(row) * words;
    args.srcToken[row] = *from++;
    args.srcRank[row] = *from++;
    for (int slot = 0; slot < topk; slot++) {
      const size_t to = static_cast<size_t>(row) * topk + slot;
      args.slotExpert[to] = from[slot];
      args.slotRow[to] = from[topk + slot];
      if (args.hasWeights) args.weights[to] = from[2 * topk + slot];
    }
  }
}

struct MergeArgs {
  Shape shape;
  SendLists send;
  HopRowsOf rows;
  /** rank, row and (hybrid-ep) slot. */
  SendLists merged;
  /** The same without the places of hops; null = not wanted. */
  SendLists local;
};

__device__ __forceinline__ void putEntry(const SendLists& lists, int at, int rank, int row, int slot) {
  lists.rank[at] = rank;
  lists.row[at] = row;
  if (lists.slot != nullptr) lists.slot[at] = slot;
}

/** One thread per item: entries of ranks in this process as they are, one per place of a hop; ascending by rank. */
__global__ void mergeLists(const __grid_constant__ MergeArgs args) {
  const Shape& shape = args.shape;
  const int nodes = numNodes(shape), own = ownNode(shape), index = shape.rank % shape.ranksPerNode;
  for (int item = firstThread(); item < shape.numTokens; item += numThreads()) {
    const int first = item * shape.width, end = first + shape.width;
    int to = first, toLocal = first;
    const auto put = [&](int rank, int row) { putEntry(args.merged, to++, rank, row, -1); };
    for (int node = 0; node < nodes; node++) {
      if (node != own) {
        const int row = args.rows.rail == nullptr ? -1 : args.rows.rail[static_cast<size_t>(item) * nodes + node];
        if (row >= 0) put(node * shape.ranksPerNode + index, row);
        continue;
      }
      int entry = first;
      for (int dst = own * shape.ranksPerNode; dst < (own + 1) * shape.ranksPerNode; dst++) {
        if (!isLocal(shape, args.rows.ranksPerProcess, dst)) {
          const int row = args.rows.node == nullptr
                              ? -1
                              : args.rows.node[static_cast<size_t>(item) * shape.ranksPerNode + dst % shape.ranksPerNode];
          if (row >= 0) put(dst, row);
          continue;
        }
        while (entry < end && args.send.rank[entry] >= 0 && args.send.rank[entry] < dst) entry++;
        for (; entry < end && args.send.rank[entry] == dst; entry++) {
          const int slot = shape.hybrid ? args.send.slot[entry] : -1;
          putEntry(args.merged, to++, dst, args.send.row[entry], slot);
          if (args.local.rank != nullptr) putEntry(args.local, toLocal++, dst, args.send.row[entry], slot);
        }
      }
    }
    while (to < end) put(-1, -1);
    while (args.local.rank != nullptr && toLocal < end) putEntry(args.local, toLocal++, -1, -1, -1);
  }
}

struct LinkCountArgs {
  Shape shape;
  int numItems;
  SendLists merged;
  int ranksPerProcess;
  int numRows;
  Rows rows;
  Report* report;
};

/** Rows that this rank writes to other ranks of its process: pushed, and on the way back. One thread per item, then row. */
__global__ void countLinks(const __grid_constant__ LinkCountArgs args) {
  const Shape& shape = args.shape;
  for (int item = firstThread(); item < args.numItems; item += numThreads()) {
    int pushed = 0;
    for (int entry = item * shape.width; entry < (item + 1) * shape.width; entry++) {
      const int dst = args.merged.rank[entry];
      const bool again = entry > item * shape.width && args.merged.rank[entry - 1] == dst;
      pushed += dst >= 0 && dst != shape.rank && !again && isLocal(shape, args.ranksPerProcess, dst);
    }
    if (pushed > 0) dev::atomicAdd(&args.report->linkRowsPushed, pushed);
  }
  for (int row = firstThread(); row < args.numRows; row += numThreads()) {
    // The holder of a row's staging place has the source's index: the source itself, or its relay here.
    const bool elsewhere = args.rows.back[row] >= 0 && (args.rows.srcRank[row] - shape.rank) % args.ranksPerProcess != 0;
    if (elsewhere) dev::atomicAdd(&args.report->linkRowsReturned, 1);
  }
}

}  // namespace kernels
