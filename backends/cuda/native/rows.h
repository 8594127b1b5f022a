// How rows are moved: which access width, which kernel, how much shared memory.
#pragma once

#include "../kernels/rows.cuh"
#include "group.h"

namespace fa2a {

/** Warps per block of the kernels that take one row per warp. */
constexpr int ROW_WARPS = 16;

inline size_t rowBytes(int64_t columns, fa2a_dtype dtype) {
  return static_cast<size_t>(columns * fa2a_dtype_bytes(dtype));
}

/** Calls f with a value of the widest type that divides the row. Bases are aligned to 256 bytes. */
template <class F>
void byWidth(size_t bytes, F f) {
  if (bytes % 16 == 0) {
    f(uint4{});
  } else if (bytes % 8 == 0) {
    f(uint64_t{});
  } else if (bytes % 4 == 0) {
    f(uint32_t{});
  } else if (bytes % 2 == 0) {
    f(uint16_t{});
  } else {
    f(uint8_t{});
  }
}

/** Chunks of at most 4 KiB, all but the last of one size. */
inline kernels::BulkShape bulkShape(size_t bytes) {
  constexpr size_t CHUNK = 4096;
  const size_t chunks = (bytes + CHUNK - 1) / CHUNK;
  const size_t chunk = ((bytes + chunks - 1) / chunks + 15) / 16 * 16;
  return {static_cast<uint32_t>(bytes), static_cast<uint32_t>(chunk), static_cast<int>((bytes + chunk - 1) / chunk)};
}

inline size_t bulkSharedBytes(const kernels::BulkShape& shape) {
  return static_cast<size_t>(kernels::BULK_WARPS) * kernels::STAGES * (shape.chunkBytes + sizeof(uint64_t));
}

inline bool bulkFits(const Rank& rank, size_t bytes) {
  return rank.hasBulk && bytes % 16 == 0 && bulkSharedBytes(bulkShape(bytes)) <= rank.sharedBytes;
}

}  // namespace fa2a
