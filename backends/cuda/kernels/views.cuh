// What ranks know of each other's memory. Every rank has one arena at a fixed place; its first part is a table of views,
// one per rank, that the ranks fill in each other's arenas before a barrier: who needs an address reads it at home.
#pragma once

#include "counts.h"
#include "device.cuh"
#include "types.h"

namespace kernels {

__device__ __forceinline__ RankView* views(const Arenas& arenas, int rank) {
  return reinterpret_cast<RankView*>(arenas.at[rank]);
}
/** [numRanks, countWords] of every source. */
__device__ __forceinline__ int32_t* countTable(const Arenas& arenas, int rank) {
  return reinterpret_cast<int32_t*>(arenas.at[rank] + arenas.tableOffset);
}

__device__ __forceinline__ int firstThread() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }
__device__ __forceinline__ int numThreads() { return static_cast<int>(gridDim.x * blockDim.x); }
__device__ __forceinline__ int firstWarp() { return firstThread() / 32; }
__device__ __forceinline__ int numWarps() { return numThreads() / 32; }
__device__ __forceinline__ int laneIndex() { return static_cast<int>(threadIdx.x % 32); }

__device__ __forceinline__ int roundUp(int count, int multiple) {
  return multiple > 1 ? (count + multiple - 1) / multiple * multiple : count;
}

}  // namespace kernels
