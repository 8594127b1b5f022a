#pragma once

#include "harness.h"

namespace selftest {

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

}  // namespace selftest
