// The multihot form of routing: [tokens, ranks] and [tokens, experts] (core/layout/multihot.ts).
#pragma once

#include "views.cuh"

namespace kernels {

struct InRankArgs {
  Shape shape;
  const int32_t* slotExpert;
  uint8_t* isTokenInRank;
};

/** One thread per (token, rank). */
__global__ void markRanks(const __grid_constant__ InRankArgs args) {
  const Shape& shape = args.shape;
  for (int at = firstThread(); at < shape.numTokens * shape.numRanks; at += numThreads()) {
    const int token = at / shape.numRanks, rank = at % shape.numRanks;
    bool found = false;
    for (int slot = token * shape.topk; slot < (token + 1) * shape.topk; slot++) {
      const int expert = args.slotExpert[slot];
      found = found || (expert >= 0 && expert / shape.expertsPerRank == rank);
    }
    args.isTokenInRank[at] = found;
  }
}

struct MultihotArgs {
  int numTokens;
  int numExperts;
  int topk;
  const uint8_t* routingMap;
  const float* probs;
  int32_t* topkIdx;
  float* topkWeights;
  /** The most experts of any token. */
  int32_t* most;
};

/** One thread per token. With topkIdx null only `most` is found. */
__global__ void indexForm(const __grid_constant__ MultihotArgs args) {
  for (int token = firstThread(); token < args.numTokens; token += numThreads()) {
    int count = 0;
    for (int expert = 0; expert < args.numExperts; expert++) {
      const size_t from = static_cast<size_t>(token) * args.numExperts + expert;
      if (args.routingMap[from] == 0) continue;
      if (args.topkIdx != nullptr && count < args.topk) {
        const size_t to = static_cast<size_t>(token) * args.topk + count;
        args.topkIdx[to] = expert;
        if (args.topkWeights != nullptr) args.topkWeights[to] = args.probs[from];
      }
      count++;
    }
    dev::atomicMax(args.most, count);
    if (args.topkIdx == nullptr) continue;
    for (int slot = count; slot < args.topk; slot++) {
      args.topkIdx[static_cast<size_t>(token) * args.topk + slot] = -1;
      if (args.topkWeights != nullptr) args.topkWeights[static_cast<size_t>(token) * args.topk + slot] = 0.0f;
    }
  }
}

}  // namespace kernels
