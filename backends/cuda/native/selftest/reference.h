// What every operation must give, written straight from docs/design.md section 2: obvious, slow, nothing shared with the
// kernels. Codes of rows are kept as bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "../include/fused_a2a.h"

namespace reference {

struct Case {
  fa2a_kind kind = FA2A_FUSED;
  int ranks = 1;
  int ranksPerNode = 1;
  int experts = 1;
  int topk = 1;
  int64_t hidden = 1;
  fa2a_dtype dtype = FA2A_BF16;
  int alignment = 1;
  int64_t worstTokens = 0;
  int64_t padMultiple = 1;
  int64_t permutedTokens = -1;
  std::vector<int> tokens;
  /** [tokens, topk] per rank. */
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<uint32_t>> weights;  // float32 bits
  std::vector<std::vector<uint8_t>> x;
  int64_t scaleColumns = 0;
  std::vector<std::vector<uint8_t>> scales;
};

/** One row of a destination; src -1 = padding or tail. */
struct Row {
  int src = -1;
  int token = -1;
  int slot = -1;  // hybrid-ep
  int expert = -1;
};

struct Destination {
  std::vector<Row> rows;
  std::vector<int32_t> tokensPerExpert;
  std::vector<int32_t> numTokensPerExpert;
  std::vector<int32_t> cut;  // [n, 4]
};

struct Layout {
  std::vector<Destination> at;
};

int64_t elementBytes(fa2a_dtype dtype);
Layout layout(const Case& test);

/** Rows of plane `data` ([tokens, bytes] per rank) on destination `dst`. */
std::vector<uint8_t> dispatchRows(const Layout& layout, const std::vector<std::vector<uint8_t>>& data, int64_t bytes, int dst);
std::vector<int32_t> recvIds(const Case& test, const Layout& layout, int dst);
std::vector<uint32_t> recvWeights(const Case& test, const Layout& layout, int dst);
std::vector<uint32_t> recvProbs(const Case& test, const Layout& layout, int dst);

/** Sums back to rank `src`: rows[dst] are [rows, columns] of `dtype`; biases [tokens, columns] or empty. */
std::vector<uint8_t> combineRows(const Case& test, const Layout& layout, const std::vector<std::vector<uint8_t>>& rows,
                                 int64_t columns, fa2a_dtype dtype, const std::vector<std::vector<uint8_t>>& biases, int src);
/** [tokens, experts] float32 bits. */
std::vector<uint32_t> combineProbs(const Case& test, const Layout& layout, const std::vector<std::vector<uint32_t>>& probs, int src);

/** Numbers of design 2.10 and 2.11. */
float decode(fa2a_dtype dtype, const uint8_t* code);
void encode(fa2a_dtype dtype, float value, uint8_t* code);
float flushed(float value);
float product(float a, float b);

/** Casts of one row. */
void castToFp8(fa2a_dtype dtype, const uint8_t* row, int64_t hidden, uint8_t* codes, float* scales);
void castBack(const uint8_t* codes, const float* scales, int64_t hidden, uint8_t* row);

}  // namespace reference
