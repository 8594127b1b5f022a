// Casts and row scaling: no communication (design 2.10, 2.11, section 6).
#pragma once

#include "numbers.cuh"
#include "views.cuh"

namespace kernels {

/** Columns that share one scale. */
constexpr int SCALE_BLOCK = 128;
/** 1e-4 and 448 as float32. */
constexpr float MIN_AMAX = 1e-4f;
constexpr float FP8_MAX = 448.0f;

/** Nearest e4m3fn code, ties to even, saturating at 448; NaN becomes 0x7f. */
__device__ __forceinline__ uint8_t fp8Bits(float value) {
  const uint32_t bits = dev::bitsOf(value);
  const uint32_t sign = bits >> 24 & 0x80u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7f;
  if (magnitude >= 0x43e00000u) return static_cast<uint8_t>(sign | 0x7eu);
  if (magnitude >= 0x3c800000u) {
    const uint32_t code = (magnitude + 0x7ffffu + (magnitude >> 20 & 1u) - 0x3c000000u) >> 20;
    return static_cast<uint8_t>(sign | (code < 0x7eu ? code : 0x7eu));
  }
  if (magnitude <= 0x3a800000u) return static_cast<uint8_t>(sign);
  const uint32_t shift = 141 - (magnitude >> 23);
  const uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  const uint32_t half = 1u << (shift - 1);
  const uint32_t kept = mantissa >> shift;
  const uint32_t rest = mantissa & ((1u << shift) - 1);
  return static_cast<uint8_t>(sign | (kept + (rest > half || (rest == half && (kept & 1u)) ? 1 : 0)));
}

/** The value of an e4m3fn code; exact. */
__device__ __forceinline__ float fp8Value(uint8_t code) {
  const uint32_t sign = (code & 0x80u) << 24;
  const uint32_t exponent = code >> 3 & 0xfu;
  const uint32_t mantissa = code & 7u;
  if (exponent == 15 && mantissa == 7) return dev::floatOf(NAN_BITS);
  if (exponent != 0) return dev::floatOf(sign | (exponent + 120) << 23 | mantissa << 20);
  const float value = dev::rawMultiply(static_cast<float>(mantissa), 0.001953125f);
  return dev::floatOf(sign | dev::bitsOf(value));
}

struct CastArgs {
  int rows;
  int hidden;
  const void* x;
  uint8_t* fp8;
  float* scales;
};

/** One warp per (row, block of 128 columns). */
template <class D>
__global__ void __launch_bounds__(512, 1) castToFp8(const __grid_constant__ CastArgs args) {
  using Code = typename D::Code;
  const int blocks = (args.hidden + SCALE_BLOCK - 1) / SCALE_BLOCK;
  for (int at = firstWarp(); at < args.rows * blocks; at += numWarps()) {
    const int row = at / blocks, block = at % blocks;
    const size_t start = static_cast<size_t>(row) * args.hidden;
    // Magnitudes order as their bits do, NaN above infinity: one NaN makes the whole block NaN.
    uint32_t most = dev::bitsOf(MIN_AMAX);
    float values[SCALE_BLOCK / 32];
#pragma unroll
    for (int i = 0; i < SCALE_BLOCK / 32; i++) {
      const int column = block * SCALE_BLOCK + i * 32 + laneIndex();
      values[i] = column < args.hidden ? D::value(static_cast<const Code*>(args.x)[start + column]) : 0.0f;
      const uint32_t magnitude = dev::bitsOf(values[i]) & 0x7fffffffu;
      most = magnitude > most ? magnitude : most;
    }
    for (unsigned mask = 16; mask > 0; mask /= 2) {
      const uint32_t other = dev::shuffleXor(most, mask);
      most = other > most ? other : most;
    }
    const float amax = dev::floatOf(most);
    const float factor = dev::divide(FP8_MAX, amax);
#pragma unroll
    for (int i = 0; i < SCALE_BLOCK / 32; i++) {
      const int column = block * SCALE_BLOCK + i * 32 + laneIndex();
      if (column < args.hidden) args.fp8[start + column] = fp8Bits(multiply(values[i], factor));
    }
    if (laneIndex() == 0) args.scales[static_cast<size_t>(row) * blocks + block] = total(dev::divide(amax, FP8_MAX));
  }
}

struct CastBackArgs {
  int64_t elements;
  int hidden;
  const uint8_t* fp8;
  const float* scales;
  uint16_t* x;
};

/** One thread per element. */
__global__ void __launch_bounds__(512, 1) castBack(const __grid_constant__ CastBackArgs args) {
  const int blocks = (args.hidden + SCALE_BLOCK - 1) / SCALE_BLOCK;
  for (int64_t at = firstThread(); at < args.elements; at += numThreads()) {
    const int64_t row = at / args.hidden;
    const int column = static_cast<int>(at - row * args.hidden);
    const float product = multiply(fp8Value(args.fp8[at]), args.scales[row * blocks + column / SCALE_BLOCK]);
    args.x[at] = Bf16::roundProduct(product);
  }
}

struct ScaleArgs {
  int64_t elements;
  int hidden;
  const void* x;
  const float* factors;
  void* out;
};

/** One thread per element. A zero product keeps its sign: it is no sum. */
template <class D>
__global__ void __launch_bounds__(512, 1) scaleRows(const __grid_constant__ ScaleArgs args) {
  using Code = typename D::Code;
  for (int64_t at = firstThread(); at < args.elements; at += numThreads()) {
    const float product = multiply(D::value(static_cast<const Code*>(args.x)[at]), args.factors[at / args.hidden]);
    static_cast<Code*>(args.out)[at] = D::roundProduct(product);
  }
}

}  // namespace kernels
