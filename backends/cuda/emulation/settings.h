// What the emulated machine is like. Set once before groups are made (fa2a_emulation_configure).
#pragma once

#include <cstdint>

#include "../native/ncclAbi.h"

namespace emulated {

struct Settings {
  int numDevices = 8;
  int numSms = 8;
  int computeMajor = 9;
  /** 0 = in order and fast; else every choice of the scheduler follows from this number. */
  uint64_t seed = 0;
  bool weakStores = false;
  int slowDevice = -1;
  int stalledDevice = -1;
  int64_t deviceBytes = int64_t{64} << 30;
  bool poison = false;
};

Settings settings();
void configure(const Settings& settings);
/** Ways into the streams for the stand-in for NCCL (nccl/sockets.cc). */
nccl::EmulatedStreams streamsForNccl();

}  // namespace emulated
