// The numbers of design 2.11: element types that can be summed, their terms and their rounding.
#pragma once

#include "device.cuh"

namespace kernels {

constexpr uint32_t NAN_BITS = 0x7fc00000u;

__device__ __forceinline__ bool isNan(float value) { return (dev::bitsOf(value) & 0x7fffffffu) > 0x7f800000u; }

/** A total: -0 becomes +0, every NaN the canonical one. */
__device__ __forceinline__ float total(float value) {
  return isNan(value) ? dev::floatOf(NAN_BITS) : dev::add(value, 0.0f);
}

/** A product counts as zero when its exponent field is 0 or 1; factors are flushed first. */
__device__ __forceinline__ float multiply(float a, float b) {
  const float product = dev::rawMultiply(dev::flush(a), dev::flush(b));
  const uint32_t bits = dev::bitsOf(product);
  return (bits & 0x7f800000u) <= 0x00800000u ? dev::floatOf(bits & 0x80000000u) : product;
}

/** Replaces the halves of `codes` whose float was NaN. */
__device__ __forceinline__ uint32_t canonical(uint32_t codes, float low, float high, uint32_t nan) {
  if (isNan(low)) codes = (codes & 0xffff0000u) | nan;
  if (isNan(high)) codes = (codes & 0x0000ffffu) | nan << 16;
  return codes;
}

struct Bf16 {
  using Code = uint16_t;
  static constexpr int PER_WORD = 2;
  __device__ static float value(Code code) { return dev::floatOf(static_cast<uint32_t>(code) << 16); }
  __device__ static Code round(float sum) { return static_cast<Code>(pack(sum, 0.0f)); }
  /** Without the rule for zero totals. */
  __device__ static Code roundProduct(float product) {
    return static_cast<Code>(canonical(dev::packBf16(product, 0.0f), product, 0.0f, 0x7fc0u));
  }
  __device__ static void unpack(uint32_t word, float* values) {
    values[0] = dev::floatOf(word << 16);
    values[1] = dev::floatOf(word & 0xffff0000u);
  }
  __device__ static uint32_t pack(const float* sums) { return pack(sums[0], sums[1]); }
  __device__ static uint32_t pack(float low, float high) {
    return canonical(dev::packBf16(dev::add(low, 0.0f), dev::add(high, 0.0f)), low, high, 0x7fc0u);
  }
};

struct Fp16 {
  using Code = uint16_t;
  static constexpr int PER_WORD = 2;
  __device__ static float value(Code code) { return dev::fp16Value(code); }
  __device__ static Code round(float sum) { return static_cast<Code>(pack(sum, 0.0f)); }
  __device__ static Code roundProduct(float product) {
    return static_cast<Code>(canonical(dev::packFp16(product, 0.0f), product, 0.0f, 0x7e00u));
  }
  __device__ static void unpack(uint32_t word, float* values) {
    values[0] = dev::fp16Value(word & 0xffffu);
    values[1] = dev::fp16Value(word >> 16);
  }
  __device__ static uint32_t pack(const float* sums) { return pack(sums[0], sums[1]); }
  __device__ static uint32_t pack(float low, float high) {
    return canonical(dev::packFp16(dev::add(low, 0.0f), dev::add(high, 0.0f)), low, high, 0x7e00u);
  }
};

/** Codes are bits, so that no NaN passes through a float register on its way. */
struct Fp32 {
  using Code = uint32_t;
  static constexpr int PER_WORD = 1;
  __device__ static float value(Code code) { return dev::floatOf(code); }
  __device__ static Code round(float sum) { return dev::bitsOf(total(sum)); }
  __device__ static Code roundProduct(float product) { return isNan(product) ? NAN_BITS : dev::bitsOf(product); }
  __device__ static void unpack(uint32_t word, float* values) { values[0] = dev::floatOf(word); }
  __device__ static uint32_t pack(const float* sums) { return round(sums[0]); }
};

/** How many elements one access of type V moves and how they become float32 terms and back. */
template <class D, class V>
struct Lanes {
  static constexpr int COUNT = 1;
  __device__ static void unpack(V code, float* values) { values[0] = D::value(code); }
  __device__ static V pack(const float* sums) { return D::round(sums[0]); }
};

template <class D>
struct Lanes<D, uint4> {
  static constexpr int PER_WORD = D::PER_WORD;
  static constexpr int COUNT = 4 * PER_WORD;
  __device__ static void unpack(uint4 v, float* values) {
    D::unpack(v.x, values);
    D::unpack(v.y, values + PER_WORD);
    D::unpack(v.z, values + 2 * PER_WORD);
    D::unpack(v.w, values + 3 * PER_WORD);
  }
  __device__ static uint4 pack(const float* sums) {
    return {D::pack(sums), D::pack(sums + PER_WORD), D::pack(sums + 2 * PER_WORD), D::pack(sums + 3 * PER_WORD)};
  }
};

/** sums += the terms of v, each partial sum flushed. */
template <class D, class V>
__device__ __forceinline__ void accumulate(float* sums, V v) {
  float terms[Lanes<D, V>::COUNT];
  Lanes<D, V>::unpack(v, terms);
#pragma unroll
  for (int i = 0; i < Lanes<D, V>::COUNT; i++) sums[i] = dev::add(sums[i], terms[i]);
}

/** sums += the sums of `part` rounded to D. */
template <class D, class V>
__device__ __forceinline__ void accumulateRounded(float* sums, const float* part) {
  accumulate<D, V>(sums, Lanes<D, V>::pack(part));
}

template <class D, class V>
__device__ __forceinline__ void clear(float* sums) {
#pragma unroll
  for (int i = 0; i < Lanes<D, V>::COUNT; i++) sums[i] = 0.0f;
}

}  // namespace kernels
