// Cases: settings, routing and rows drawn from a seed.
#pragma once

#include <cstdint>
#include <string>

#include "reference.h"

namespace selftest {

/** A small, good generator: the same numbers on every machine. */
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x1234567) {}
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  /** 0..n-1. */
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  bool once(int n) { return below(n) == 0; }
  template <class T>
  T pick(std::initializer_list<T> values) {
    return *(values.begin() + below(static_cast<int64_t>(values.size())));
  }

 private:
  uint64_t state_;
};

/** Bytes of `count` elements: ordinary values, with specials (zeros, subnormals, infinities, NaN payloads) in between. */
std::vector<uint8_t> randomRows(Random& random, fa2a_dtype dtype, int64_t count, bool specials);
std::vector<uint32_t> randomFloats(Random& random, int64_t count, bool specials);
/** A case for a group of that many ranks; `maxTokens` per rank. */
reference::Case randomCase(Random& random, int ranks, int ranksPerNode, int maxTokens, bool specials);
/** New rows and weights for the same routing. */
void redrawRows(Random& random, reference::Case& test, bool specials);
std::string describe(const reference::Case& test);

}  // namespace selftest
