#pragma once

#include "harness.h"

namespace selftest {

using Bytes = std::vector<std::vector<uint8_t>>;

/** Rows to combine, biases, weights and probs for a layout, for all ranks. */
struct CombineInput {
  fa2a_dtype dtype;
  int64_t hidden;
  Bytes rows;
  std::vector<Bytes> bias;
  Bytes weights;
  std::vector<std::vector<uint32_t>> probs;
};
struct CombineArrays {
  std::vector<fa2a_array> x, weights, probs;
  std::vector<std::vector<fa2a_array>> bias;
};
CombineInput drawCombine(const reference::Case& test, const reference::Layout& layout, Random& random, bool specials);
CombineArrays arraysOf(const reference::Case& test, const CombineInput& input);
void checkCombined(const reference::Case& test, const reference::Layout& layout, const CombineInput& input, const Combined& out);

struct CheckOptions {
  int maxTokens = 40;
  bool specials = true;
  /** Combine by reading from the expert's rank instead of writing to the source. */
  bool pull = false;
};

/** One random case on one group: every operation, forward, cached, reused outputs, handle through the host. */
void checkCase(fa2a_group* group, const reference::Case& test, Random& random, const CheckOptions& options);
void checkLayout(fa2a_group* group, const reference::Case& test, bool wide);
void checkCasts(fa2a_group* group, int ranks, Random& random);
/** `count` asynchronous operations in a row, sizes changing, results checked at the end. */
void checkBackToBack(fa2a_group* group, int ranks, int ranksPerNode, int count, Random& random, const CheckOptions& options);
/** A captured dispatch and combine, replayed with other routing and poisoned outputs. */
void checkGraph(fa2a_group* group, int ranks, int ranksPerNode, Random& random);
/** Emulated build: a device that stops is a timeout that names the phase and the rank; four ranks on four devices. */
void checkDeadline(fa2a_group* group, int stalledRank);
/** Every refusal that the header promises. */
void checkRefusals(fa2a_group* group, int ranks);
/** Random cases on a group of `nodes` parts, each driven by a thread of its own, that talk through NCCL. `cutting`: budgets that cut. */
void checkNodes(int nodes, int ranksPerNode, int ranksPerProcess, int cases, Random& random, int maxTokens, bool cutting = false);
/** Emulated devices: what waits for a process when their machine is set anew goes on. */
void checkConfigured();
/** A part that never comes, one that goes, and an abort: each ends the other's wait, and the process goes on. */
void checkNodeFailures();

}  // namespace selftest
