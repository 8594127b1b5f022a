#include "reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <tuple>

namespace reference {

namespace {

int64_t roundUp(int64_t count, int64_t multiple) {
  return multiple > 1 ? (count + multiple - 1) / multiple * multiple : count;
}

/** The nearest value with `mantissa` bits and exponents from `least`, ties to even, as a multiple of its last place. */
double roundTo(double value, int mantissa, int least) {
  if (value == 0 || std::isinf(value)) return value;
  int exponent = 0;
  std::frexp(value, &exponent);
  const int step = std::max(exponent - 1, least) - mantissa;
  return std::ldexp(std::nearbyint(std::ldexp(value, -step)), step);
}

/** Sign, exponent and mantissa fields of a value that the format holds exactly. */
uint32_t fields(double value, int exponentBits, int mantissa, bool negative) {
  const int bias = (1 << (exponentBits - 1)) - 1;
  const uint32_t sign = negative ? 1u << (exponentBits + mantissa) : 0;
  if (value == 0) return sign;
  int exponent = 0;
  std::frexp(value, &exponent);
  exponent -= 1;
  const double magnitude = std::fabs(value);
  if (exponent < 1 - bias) return sign | static_cast<uint32_t>(std::ldexp(magnitude, bias - 1 + mantissa));
  const auto fraction = static_cast<uint32_t>(std::ldexp(magnitude, mantissa - exponent)) - (1u << mantissa);
  return sign | static_cast<uint32_t>(exponent + bias) << mantissa | fraction;
}

double valueOf(uint32_t code, int exponentBits, int mantissa) {
  const int bias = (1 << (exponentBits - 1)) - 1;
  const uint32_t exponent = code >> mantissa & ((1u << exponentBits) - 1);
  const uint32_t fraction = code & ((1u << mantissa) - 1);
  const double sign = code >> (exponentBits + mantissa) & 1 ? -1.0 : 1.0;
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - mantissa);
  return sign * std::ldexp(fraction + (1u << mantissa), static_cast<int>(exponent) - bias - mantissa);
}

uint32_t bitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float fromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

int64_t elementBytes(fa2a_dtype dtype) { return fa2a_dtype_bytes(dtype); }

float flushed(float value) { return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value; }

float product(float a, float b) {
  const float rounded = flushed(a) * flushed(b);
  return std::fabs(rounded) < 0x1p-125f ? std::copysign(0.0f, rounded) : rounded;
}

float decode(fa2a_dtype dtype, const uint8_t* code) {
  if (dtype == FA2A_FP32) {
    float value;
    std::memcpy(&value, code, sizeof value);
    return value;
  }
  if (dtype == FA2A_FP8E4M3) {
    return (*code & 0x7f) == 0x7f ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(valueOf(*code, 4, 3));
  }
  uint16_t bits;
  std::memcpy(&bits, code, sizeof bits);
  const int exponentBits = dtype == FA2A_BF16 ? 8 : 5, mantissa = dtype == FA2A_BF16 ? 7 : 10;
  const uint32_t all = (1u << exponentBits) - 1;
  if ((bits >> mantissa & all) == all) {
    if (bits & ((1u << mantissa) - 1)) return std::numeric_limits<float>::quiet_NaN();
    return bits >> 15 ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::infinity();
  }
  return static_cast<float>(valueOf(bits, exponentBits, mantissa));
}

void encode(fa2a_dtype dtype, float value, uint8_t* code) {
  if (dtype == FA2A_FP32) {
    const uint32_t bits = std::isnan(value) ? 0x7fc00000u : bitsOf(value);
    std::memcpy(code, &bits, sizeof bits);
    return;
  }
  if (dtype == FA2A_FP8E4M3) {
    const double rounded = std::isnan(value) ? 0 : std::clamp(roundTo(value, 3, -6), -448.0, 448.0);
    *code = std::isnan(value) ? 0x7f : static_cast<uint8_t>(fields(rounded, 4, 3, std::signbit(value)));
    return;
  }
  const bool bf16 = dtype == FA2A_BF16;
  const int exponentBits = bf16 ? 8 : 5, mantissa = bf16 ? 7 : 10;
  const double largest = bf16 ? std::ldexp(255, 120) : 65504;
  const double rounded = roundTo(value, mantissa, bf16 ? -126 : -14);
  uint32_t bits = bf16 ? 0x7fc0 : 0x7e00;
  if (!std::isnan(value)) {
    const uint32_t sign = std::signbit(value) ? 0x8000 : 0;
    bits = std::fabs(rounded) > largest ? sign | (bf16 ? 0x7f80 : 0x7c00)
                                        : fields(rounded, exponentBits, mantissa, sign != 0);
  }
  const auto narrow = static_cast<uint16_t>(bits);
  std::memcpy(code, &narrow, sizeof narrow);
}

Layout layout(const Case& test) {
  const int perRank = test.experts / test.ranks;
  Layout result;
  result.at.resize(static_cast<size_t>(test.ranks));
  for (int dst = 0; dst < test.ranks; dst++) {
    Destination& here = result.at[static_cast<size_t>(dst)];
    const auto idOf = [&](int src, int token, int slot) {
      return test.ids[static_cast<size_t>(src)][static_cast<size_t>(token * test.topk + slot)];
    };
    here.numTokensPerExpert.assign(static_cast<size_t>(perRank), 0);
    if (test.kind == FA2A_FUSED) {
      const int64_t budget = test.worstTokens > 0 ? test.worstTokens : INT64_MAX;
      for (int src = 0; src < test.ranks; src++) {
        for (int token = 0; token < test.tokens[static_cast<size_t>(src)]; token++) {
          bool comesHere = false;
          for (int slot = 0; slot < test.topk; slot++) {
            const int id = idOf(src, token, slot);
            comesHere = comesHere || (id >= 0 && id / perRank == dst);
          }
          if (!comesHere) continue;
          const bool fits = static_cast<int64_t>(here.rows.size()) < budget;
          for (int slot = 0; slot < test.topk; slot++) {
            const int id = idOf(src, token, slot);
            if (id < 0 || id / perRank != dst) continue;
            if (fits) {
              here.numTokensPerExpert[static_cast<size_t>(id - dst * perRank)]++;
            } else {
              here.cut.insert(here.cut.end(), {src, token, slot, id});
            }
          }
          if (fits) here.rows.push_back({src, token, -1, -1});
        }
      }
      if (test.worstTokens > 0) {
        here.rows.resize(static_cast<size_t>(test.worstTokens));
      } else {
        for (const int count : here.numTokensPerExpert) {
          here.tokensPerExpert.push_back(static_cast<int32_t>(roundUp(count, test.alignment)));
        }
      }
      continue;
    }
    const int64_t budget = test.permutedTokens >= 0 ? test.permutedTokens : INT64_MAX;
    struct Cut {
      int src, token, expert, slot;
    };
    std::vector<Cut> cut;
    for (int local = 0; local < perRank; local++) {
      const int expert = dst * perRank + local;
      int64_t kept = 0;
      for (int src = 0; src < test.ranks; src++) {
        for (int token = 0; token < test.tokens[static_cast<size_t>(src)]; token++) {
          for (int slot = 0; slot < test.topk; slot++) {
            if (idOf(src, token, slot) != expert) continue;
            if (static_cast<int64_t>(here.rows.size()) >= budget) {
              cut.push_back({src, token, expert, slot});
            } else {
              kept++;
            }
            here.rows.push_back({src, token, slot, expert});
          }
        }
      }
      // The block is padded to a multiple of padMultiple rows.
      const int64_t blockRows = std::count_if(here.rows.begin(), here.rows.end(), [&](const Row& row) { return row.expert == expert; });
      here.rows.resize(here.rows.size() + static_cast<size_t>(roundUp(blockRows, test.padMultiple) - blockRows));
      here.numTokensPerExpert[static_cast<size_t>(local)] = static_cast<int32_t>(kept);
      here.tokensPerExpert.push_back(static_cast<int32_t>(roundUp(kept, test.padMultiple)));
    }
    if (test.permutedTokens >= 0) here.rows.resize(static_cast<size_t>(test.permutedTokens));
    std::sort(cut.begin(), cut.end(), [](const Cut& a, const Cut& b) {
      return std::tie(a.src, a.token, a.expert) < std::tie(b.src, b.token, b.expert);
    });
    for (const Cut& one : cut) here.cut.insert(here.cut.end(), {one.src, one.token, one.slot, one.expert});
  }
  return result;
}

std::vector<uint8_t> dispatchRows(const Layout& layout, const std::vector<std::vector<uint8_t>>& data, int64_t bytes, int dst) {
  const auto& rows = layout.at[static_cast<size_t>(dst)].rows;
  std::vector<uint8_t> out(rows.size() * static_cast<size_t>(bytes), 0);
  for (size_t row = 0; row < rows.size(); row++) {
    if (rows[row].src < 0) continue;
    const auto& from = data[static_cast<size_t>(rows[row].src)];
    std::copy_n(from.begin() + rows[row].token * bytes, bytes, out.begin() + static_cast<int64_t>(row) * bytes);
  }
  return out;
}

std::vector<int32_t> recvIds(const Case& test, const Layout& layout, int dst) {
  const int perRank = test.experts / test.ranks;
  std::vector<int32_t> out;
  for (const Row& row : layout.at[static_cast<size_t>(dst)].rows) {
    for (int slot = 0; slot < test.topk; slot++) {
      const int id = row.src < 0 ? -1 : test.ids[static_cast<size_t>(row.src)][static_cast<size_t>(row.token * test.topk + slot)];
      out.push_back(id >= 0 && id / perRank == dst ? id - dst * perRank : -1);
    }
  }
  return out;
}

std::vector<uint32_t> recvWeights(const Case& test, const Layout& layout, int dst) {
  const std::vector<int32_t> ids = recvIds(test, layout, dst);
  std::vector<uint32_t> out(ids.size(), 0);
  const auto& rows = layout.at[static_cast<size_t>(dst)].rows;
  for (size_t at = 0; at < ids.size(); at++) {
    if (ids[at] < 0) continue;
    const Row& row = rows[at / static_cast<size_t>(test.topk)];
    const size_t slot = at % static_cast<size_t>(test.topk);
    out[at] = test.weights[static_cast<size_t>(row.src)][static_cast<size_t>(row.token * test.topk) + slot];
  }
  return out;
}

std::vector<uint32_t> recvProbs(const Case& test, const Layout& layout, int dst) {
  std::vector<uint32_t> out;
  for (const Row& row : layout.at[static_cast<size_t>(dst)].rows) {
    out.push_back(row.src < 0 ? 0 : test.weights[static_cast<size_t>(row.src)][static_cast<size_t>(row.token * test.topk + row.slot)]);
  }
  return out;
}

namespace {

/** A float32 sum, term after term, under the flush rule. */
struct Sum {
  float value = 0;
  void add(float term) { value = flushed(value + flushed(term)); }
  /** Rounded to the dtype and read back: a zero is +0. */
  float rounded(fa2a_dtype dtype) const {
    uint8_t code[4];
    encode(dtype, value == 0 ? 0.0f : value, code);
    return decode(dtype, code);
  }
};

}  // namespace

std::vector<uint8_t> combineRows(const Case& test, const Layout& layout, const std::vector<std::vector<uint8_t>>& rows,
                                 int64_t columns, fa2a_dtype dtype, const std::vector<std::vector<uint8_t>>& biases, int src) {
  const int64_t bytes = elementBytes(dtype);
  const int numTokens = test.tokens[static_cast<size_t>(src)];
  // Rows of every token, by rank and then by row: rows of one rank ascend by expert.
  std::vector<std::map<int, std::vector<int64_t>>> places(static_cast<size_t>(numTokens));
  for (int dst = 0; dst < test.ranks; dst++) {
    const auto& here = layout.at[static_cast<size_t>(dst)].rows;
    for (size_t row = 0; row < here.size(); row++) {
      if (here[row].src == src) places[static_cast<size_t>(here[row].token)][dst].push_back(static_cast<int64_t>(row));
    }
  }
  std::vector<uint8_t> out(static_cast<size_t>(numTokens * columns * bytes));
  for (int token = 0; token < numTokens; token++) {
    for (int64_t column = 0; column < columns; column++) {
      const auto at = [&](const std::vector<uint8_t>& data, int64_t row) {
        return decode(dtype, data.data() + (row * columns + column) * bytes);
      };
      Sum all;
      for (const auto& bias : biases) all.add(at(bias, token));
      const int nodes = test.ranks / test.ranksPerNode;
      for (int node = 0; node < nodes; node++) {
        Sum ofNode;
        bool any = false;
        for (const auto& [dst, list] : places[static_cast<size_t>(token)]) {
          if (dst / test.ranksPerNode != node) continue;
          any = true;
          Sum ofRank;
          for (const int64_t row : list) ofRank.add(at(rows[static_cast<size_t>(dst)], row));
          // The row that crosses the link is a rounded sum, even of one term.
          (nodes == 1 ? all : ofNode).add(ofRank.rounded(dtype));
        }
        if (nodes > 1 && any) all.add(ofNode.rounded(dtype));
      }
      encode(dtype, all.value == 0 ? 0.0f : all.value, out.data() + (token * columns + column) * bytes);
    }
  }
  return out;
}

std::vector<uint32_t> combineProbs(const Case& test, const Layout& layout, const std::vector<std::vector<uint32_t>>& probs, int src) {
  std::vector<uint32_t> out(static_cast<size_t>(test.tokens[static_cast<size_t>(src)]) * static_cast<size_t>(test.experts), 0);
  for (int dst = 0; dst < test.ranks; dst++) {
    const auto& here = layout.at[static_cast<size_t>(dst)].rows;
    for (size_t row = 0; row < here.size(); row++) {
      if (here[row].src != src) continue;
      out[static_cast<size_t>(here[row].token * test.experts + here[row].expert)] = probs[static_cast<size_t>(dst)][row];
    }
  }
  return out;
}

void castToFp8(fa2a_dtype dtype, const uint8_t* row, int64_t hidden, uint8_t* codes, float* scales) {
  for (int64_t block = 0; block * 128 < hidden; block++) {
    float amax = 1e-4f;
    bool nan = false;
    const int64_t end = std::min(hidden, (block + 1) * 128);
    for (int64_t i = block * 128; i < end; i++) {
      const float value = decode(dtype, row + i * elementBytes(dtype));
      nan = nan || std::isnan(value);
      amax = std::fabs(value) > amax ? std::fabs(value) : amax;
    }
    if (nan) amax = std::numeric_limits<float>::quiet_NaN();
    for (int64_t i = block * 128; i < end; i++) {
      encode(FA2A_FP8E4M3, product(decode(dtype, row + i * elementBytes(dtype)), 448.0f / amax), codes + i);
    }
    scales[block] = nan ? fromBits(0x7fc00000u) : amax / 448.0f;
  }
}

void castBack(const uint8_t* codes, const float* scales, int64_t hidden, uint8_t* row) {
  for (int64_t i = 0; i < hidden; i++) {
    encode(FA2A_BF16, product(decode(FA2A_FP8E4M3, codes + i), scales[i / 128]), row + 2 * i);
  }
}

}  // namespace reference
