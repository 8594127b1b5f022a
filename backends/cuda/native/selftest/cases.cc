#include "cases.h"

#include <algorithm>
#include <cstring>

namespace selftest {

std::vector<uint8_t> randomRows(Random& random, fa2a_dtype dtype, int64_t count, bool specials) {
  const int64_t bytes = reference::elementBytes(dtype);
  std::vector<uint8_t> data(static_cast<size_t>(count * bytes));
  for (int64_t i = 0; i < count; i++) {
    uint8_t* code = data.data() + i * bytes;
    const uint64_t bits = random.next();
    if (dtype == FA2A_FP8E4M3 || dtype == FA2A_U8 || (specials && bits % 16 == 0)) {
      // Any bit pattern at all.
      std::memcpy(code, &bits, static_cast<size_t>(bytes));
      if (specials && bits >> 8 & 1) {
        const uint32_t special = dtype == FA2A_FP32 ? 0x007fffffu : dtype == FA2A_BF16 ? 0x807fu : 0x83ffu;
        std::memcpy(code, &special, static_cast<size_t>(bytes));
      }
      continue;
    }
    const float value = static_cast<float>(static_cast<int64_t>(bits >> 40) - (1 << 23)) * 0x1p-20f;
    reference::encode(dtype, value, code);
  }
  return data;
}

std::vector<uint32_t> randomFloats(Random& random, int64_t count, bool specials) {
  const std::vector<uint8_t> bytes = randomRows(random, FA2A_FP32, count, specials);
  std::vector<uint32_t> words(static_cast<size_t>(count));
  if (count > 0) std::memcpy(words.data(), bytes.data(), bytes.size());
  return words;
}

void redrawRows(Random& random, reference::Case& test, bool specials) {
  test.x.clear();
  test.weights.clear();
  test.scales.clear();
  for (const int tokens : test.tokens) {
    test.x.push_back(randomRows(random, test.dtype, tokens * test.hidden, specials));
    test.weights.push_back(randomFloats(random, tokens * test.topk, specials));
    test.scales.push_back(randomRows(random, FA2A_FP32, tokens * test.scaleColumns, specials));
  }
}

reference::Case randomCase(Random& random, int ranks, int ranksPerNode, int maxTokens, bool specials) {
  reference::Case test;
  test.kind = random.pick({FA2A_FUSED, FA2A_HYBRID_EP});
  test.ranks = ranks;
  test.ranksPerNode = ranksPerNode;
  test.experts = ranks * static_cast<int>(random.pick({1, 2, 3, 5, 8}));
  test.topk = 1 + static_cast<int>(random.below(std::min(test.experts, random.once(6) ? 40 : 8)));
  test.hidden = random.pick<int64_t>({1, 3, 7, 8, 16, 24, 64, 100, 128, 136, 250, 512, 1000, 2880});
  test.dtype = random.pick({FA2A_BF16, FA2A_BF16, FA2A_FP16, FA2A_FP32, FA2A_FP8E4M3});
  if (test.dtype == FA2A_FP8E4M3 || random.once(5)) test.scaleColumns = (test.hidden + 127) / 128;
  const bool skewed = random.once(3);
  for (int rank = 0; rank < ranks; rank++) {
    const int tokens = random.once(8) ? 0 : static_cast<int>(random.below(maxTokens + 1));
    test.tokens.push_back(tokens);
    std::vector<int32_t> ids(static_cast<size_t>(tokens * test.topk));
    for (int token = 0; token < tokens; token++) {
      const auto first = ids.begin() + token * test.topk;
      for (int slot = 0; slot < test.topk; slot++) {
        int32_t id = -1;
        for (int tries = 0; tries < 20 && !random.once(12); tries++) {
          id = static_cast<int32_t>(random.below(skewed && random.once(2) ? std::min(3, test.experts) : test.experts));
          if (std::find(first, first + slot, id) == first + slot) break;
          id = -1;
        }
        first[slot] = id;
      }
    }
    test.ids.push_back(std::move(ids));
  }
  if (test.kind == FA2A_FUSED) {
    test.alignment = random.pick({1, 1, 4, 16});
    if (random.once(2)) test.worstTokens = 1 + random.below(random.once(2) ? ranks * maxTokens : maxTokens);
  } else {
    test.padMultiple = random.pick<int64_t>({1, 1, 2, 16});
    if (random.once(2)) {
      test.permutedTokens = random.below(2 + ranks * maxTokens * (random.once(2) ? 1 : 3) / ranks) * test.padMultiple;
    }
  }
  redrawRows(random, test, specials);
  return test;
}

std::string describe(const reference::Case& test) {
  char text[256];
  std::snprintf(text, sizeof text, "%s R %d/%d E %d topk %d hidden %lld dtype %d scales %lld worst %lld pad %lld permuted %lld",
                test.kind == FA2A_FUSED ? "fused" : "hybrid-ep", test.ranks, test.ranksPerNode, test.experts, test.topk,
                static_cast<long long>(test.hidden), test.dtype, static_cast<long long>(test.scaleColumns),
                static_cast<long long>(test.worstTokens), static_cast<long long>(test.padMultiple),
                static_cast<long long>(test.permutedTokens));
  std::string line = text;
  line += " tokens";
  for (const int tokens : test.tokens) line.append(" ").append(std::to_string(tokens));
  return line;
}

}  // namespace selftest
