// Copying rows: one row to up to BATCH places. A row is `count` accesses of type V; the widest V that divides the row is
// chosen by the host, so any hidden size works.
#pragma once

#include "views.cuh"

namespace kernels {

/** Places that one pass over a row serves; more take another pass. */
constexpr int BATCH = 8;
/** Accesses in flight per lane. */
constexpr int UNROLL = 4;

/** Copies a row to every place that is not null; all lanes of the warp take part. */
template <class V>
__device__ __forceinline__ void copyRow(const V* from, V* const (&to)[BATCH], int count, int lane) {
  int i = lane;
  for (; i + 32 * (UNROLL - 1) < count; i += 32 * UNROLL) {
    V values[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; u++) values[u] = dev::load(from + i + 32 * u);
#pragma unroll
    for (int place = 0; place < BATCH; place++) {
      if (to[place] == nullptr) continue;
#pragma unroll
      for (int u = 0; u < UNROLL; u++) dev::store(to[place] + i + 32 * u, values[u]);
    }
  }
  for (; i < count; i += 32) {
    const V value = dev::load(from + i);
#pragma unroll
    for (int place = 0; place < BATCH; place++) {
      if (to[place] != nullptr) dev::store(to[place] + i, value);
    }
  }
}

template <class V>
__device__ __forceinline__ void clearRow(V* to, int count, int lane) {
  for (int i = lane; i < count; i += 32) dev::store(to + i, V{});
}

/** Shared memory of the bulk kernels: STAGES chunks per warp, then their barriers. */
constexpr int STAGES = 4;
/** How many chunks the loads run ahead of the stores. */
constexpr int AHEAD = 2;
constexpr int BULK_WARPS = 8;

struct BulkShape {
  uint32_t rowBytes;
  uint32_t chunkBytes;
  int chunksPerRow;
};

/**
 * Rows through shared memory by the copy engine. `Plan` lists what this warp copies: `Plan(args, warp)`, `next()` moves to
 * the next row and says whether there is one, `from()`, and `forEachPlace(f)` calls f(to) for every destination. One lane
 * of each warp drives it. Loads run AHEAD chunks before the stores; a stage is loaded again when the stores from it have
 * read it, which is one chunk after they were issued.
 */
template <class Plan>
__device__ inline void bulkCopyRows(Plan load, Plan store, const BulkShape& shape) {
#ifdef FA2A_HAS_BULK
  if (laneIndex() != 0) return;
  const int warp = static_cast<int>(threadIdx.x / 32);
  char* stages = dev::shared() + static_cast<size_t>(warp) * STAGES * shape.chunkBytes;
  auto* barriers = reinterpret_cast<uint64_t*>(dev::shared() + static_cast<size_t>(BULK_WARPS) * STAGES * shape.chunkBytes) +
                   warp * STAGES;
  for (int stage = 0; stage < STAGES; stage++) dev::barrierInit(barriers + stage);
  dev::barrierInitFence();
  int loaded = 0, loadChunk = 0;
  bool more = load.next();
  const auto loadOne = [&] {
    if (!more) return;
    const int stage = loaded % STAGES;
    const uint32_t offset = static_cast<uint32_t>(loadChunk) * shape.chunkBytes;
    const uint32_t bytes = shape.rowBytes - offset < shape.chunkBytes ? shape.rowBytes - offset : shape.chunkBytes;
    dev::barrierArriveExpect(barriers + stage, bytes);
    dev::bulkLoad(stages + static_cast<size_t>(stage) * shape.chunkBytes, load.from() + offset, bytes, barriers + stage);
    loaded++;
    if (++loadChunk == shape.chunksPerRow) {
      loadChunk = 0;
      more = load.next();
    }
  };
  for (int i = 0; i < AHEAD; i++) loadOne();
  int stored = 0;
  while (store.next()) {
    for (int chunk = 0; chunk < shape.chunksPerRow; chunk++) {
      const int stage = stored % STAGES;
      const uint32_t offset = static_cast<uint32_t>(chunk) * shape.chunkBytes;
      const uint32_t bytes = shape.rowBytes - offset < shape.chunkBytes ? shape.rowBytes - offset : shape.chunkBytes;
      // The stage that loadOne takes was stored from two chunks ago.
      dev::bulkWaitRead<1>();
      loadOne();
      dev::barrierWait(barriers + stage, static_cast<uint32_t>(stored / STAGES) & 1);
      store.forEachPlace([&](char* to) {
        dev::bulkStore(to + offset, stages + static_cast<size_t>(stage) * shape.chunkBytes, bytes);
      });
      dev::bulkCommit();
      stored++;
    }
  }
  dev::bulkWaitAll();
#else
  (void)load;
  (void)store;
  (void)shape;
#endif
}

}  // namespace kernels
