// The device wrappers of kernels/device.cuh, emulated side.
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda_runtime.h"
#include "kernel.h"

#define threadIdx ::emulated::threadIndex
#define blockIdx ::emulated::blockIndex
#define blockDim ::emulated::blockSize
#define gridDim ::emulated::gridSize
#define FA2A_HAS_BULK 1

inline void __syncthreads() { ::emulated::blockBarrier(); }
inline void __syncwarp() { ::emulated::warpBarrier(); }

namespace dev {

template <class T>
__device__ __forceinline__ T load(const T* from) {
  return *from;
}

template <class T>
__device__ __forceinline__ void store(T* to, T value) {
  if (!::emulated::shuffled()) {
    *to = value;
    return;
  }
  ::emulated::store(to, &value, sizeof(T));
  ::emulated::maybePreempt();
}

inline uint32_t bitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float floatOf(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float flush(float value) {
  const uint32_t bits = bitsOf(value);
  return (bits & 0x7f800000u) == 0 ? floatOf(bits & 0x80000000u) : value;
}

inline float add(float a, float b) { return flush(flush(a) + flush(b)); }
inline float rawMultiply(float a, float b) { return a * b; }
inline float divide(float a, float b) { return a / b; }

/** Nearest even; any NaN becomes some NaN. */
inline uint32_t bf16Bits(float value) {
  const uint32_t bits = bitsOf(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline uint32_t fp16Bits(float value) {
  const uint32_t bits = bitsOf(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return 0x7fff;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) return sign | (magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000) >> 13;
  if (magnitude <= 0x33000000) return sign;
  const uint32_t shift = 126 - (magnitude >> 23);
  const uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000;
  const uint32_t half = 1u << (shift - 1);
  const uint32_t kept = mantissa >> shift;
  const uint32_t rest = mantissa & ((1u << shift) - 1);
  return sign | (kept + (rest > half || (rest == half && (kept & 1)) ? 1 : 0));
}

inline float fp16Value(uint32_t code) {
  const uint32_t sign = (code & 0x8000u) << 16;
  const uint32_t exponent = code >> 10 & 0x1f;
  const uint32_t mantissa = code & 0x3ff;
  if (exponent == 31) return floatOf(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return floatOf(sign | (exponent + 112) << 23 | mantissa << 13);
  const float value = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -value : value;
}

inline uint32_t packBf16(float low, float high) { return bf16Bits(low) | bf16Bits(high) << 16; }
inline uint32_t packFp16(float low, float high) { return fp16Bits(low) | fp16Bits(high) << 16; }

inline uint32_t shuffleXor(uint32_t value, unsigned mask) {
  return static_cast<uint32_t>(::emulated::warpExchange(value)[(threadIdx.x % 32) ^ mask]);
}

inline int atomicAdd(int* at, int value) {
  const int old = *at;
  *at = old + value;
  return old;
}
inline void atomicMax(int* at, int value) { *at = value > *at ? value : *at; }

inline char* shared() { return static_cast<char*>(::emulated::sharedMemory()); }

inline void barrierInit(uint64_t* barrier) { ::emulated::barrierInit(barrier, 1); }
inline void barrierInitFence() {}
inline void barrierArriveExpect(uint64_t* barrier, uint32_t bytes) { ::emulated::barrierArriveExpect(barrier, bytes); }
inline void barrierWait(uint64_t* barrier, uint32_t phase) { ::emulated::barrierWait(barrier, phase); }
inline void bulkLoad(void* shared, const void* from, uint32_t bytes, uint64_t* barrier) {
  ::emulated::bulkToShared(shared, from, bytes, barrier);
}
inline void bulkStore(void* to, const void* shared, uint32_t bytes) { ::emulated::bulkToGlobal(to, shared, bytes); }
inline void bulkCommit() { ::emulated::bulkCommit(); }
template <int OUTSTANDING>
inline void bulkWaitRead() {
  ::emulated::bulkWait(OUTSTANDING);
}
inline void bulkWaitAll() { ::emulated::bulkWait(0); }

}  // namespace dev
