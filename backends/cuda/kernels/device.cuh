// Everything of the device that kernels use beyond plain C++, threadIdx & co, __syncthreads and __syncwarp. Two
// implementations: here for the GPU, emulation/device.h for the CPU.
#pragma once

#ifdef FA2A_EMULATED
#include "../emulation/device.h"
#else

#include <cstdint>

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define FA2A_HAS_BULK 1
#endif

namespace dev {

/** Reads what no thread writes during the kernel, without keeping it in L1. */
template <class T>
__device__ __forceinline__ T load(const T* from) {
  return __ldg(from);
}
template <>
__device__ __forceinline__ uint4 load(const uint4* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

/** Writes what only later kernels, possibly on other devices, read. */
template <class T>
__device__ __forceinline__ void store(T* to, T value) {
  *to = value;
}
template <>
__device__ __forceinline__ void store(uint4* to, uint4 v) {
  asm volatile("st.global.L1::no_allocate.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z),
               "r"(v.w)
               : "memory");
}

__device__ __forceinline__ uint32_t bitsOf(float value) { return __float_as_uint(value); }
__device__ __forceinline__ float floatOf(uint32_t bits) { return __uint_as_float(bits); }

/** Subnormals become zero with their sign (design 2.11), whatever the compiler's -ftz says. */
__device__ __forceinline__ float flush(float value) {
  const uint32_t bits = bitsOf(value);
  return (bits & 0x7f800000u) == 0 ? floatOf(bits & 0x80000000u) : value;
}

/** The float32 sum of two terms, rounded to nearest even; terms and sum flushed. The instruction is exactly that rule. */
__device__ __forceinline__ float add(float a, float b) {
  float sum;
  asm("add.rn.ftz.f32 %0, %1, %2;" : "=f"(sum) : "f"(a), "f"(b));
  return sum;
}
/** Never contracted into a fused multiply-add. */
__device__ __forceinline__ float rawMultiply(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float divide(float a, float b) { return __fdiv_rn(a, b); }

/** Two floats to two codes, nearest even; any NaN becomes some NaN. */
__device__ __forceinline__ uint32_t packBf16(float low, float high) {
  uint32_t codes;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(codes) : "f"(high), "f"(low));
  return codes;
}
__device__ __forceinline__ uint32_t packFp16(float low, float high) {
  uint32_t codes;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(codes) : "f"(high), "f"(low));
  return codes;
}
__device__ __forceinline__ float fp16Value(uint32_t code) {
  float value;
  const auto half = static_cast<uint16_t>(code);
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}

__device__ __forceinline__ uint32_t shuffleXor(uint32_t value, unsigned mask) {
  return __shfl_xor_sync(0xffffffffu, value, static_cast<int>(mask));
}

__device__ __forceinline__ int atomicAdd(int* at, int value) { return ::atomicAdd(at, value); }
__device__ __forceinline__ void atomicMax(int* at, int value) { ::atomicMax(at, value); }

/** Dynamic shared memory of the block, aligned to 128 bytes. */
__device__ __forceinline__ char* shared() {
  extern __shared__ __align__(128) char fa2aShared[];
  return fa2aShared;
}

#ifdef FA2A_HAS_BULK

__device__ __forceinline__ uint32_t sharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/** A barrier in shared memory that one arrival and the bytes of bulk copies complete. */
__device__ __forceinline__ void barrierInit(uint64_t* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(sharedAddress(barrier)) : "memory");
}
/** After barrierInit, before the copy engine sees the barrier. */
__device__ __forceinline__ void barrierInitFence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void barrierArriveExpect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(sharedAddress(barrier)), "r"(bytes)
               : "memory");
}
/** Waits for the copy engine of this SM alone, never for another SM or device: it cannot hang on a partner. */
__device__ __forceinline__ void barrierWait(uint64_t* barrier, uint32_t phase) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(sharedAddress(barrier)),
      "r"(phase)
      : "memory");
}
__device__ __forceinline__ void bulkLoad(void* shared, const void* from, uint32_t bytes, uint64_t* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   sharedAddress(shared)),
               "l"(from), "r"(bytes), "r"(sharedAddress(barrier))
               : "memory");
}
__device__ __forceinline__ void bulkStore(void* to, const void* shared, uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(sharedAddress(shared)),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void bulkCommit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/** Until all but OUTSTANDING groups of bulk stores have read their shared memory. */
template <int OUTSTANDING>
__device__ __forceinline__ void bulkWaitRead() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(OUTSTANDING) : "memory");
}
/** Until all bulk stores are done and visible. */
__device__ __forceinline__ void bulkWaitAll() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

#endif

}  // namespace dev

#endif
