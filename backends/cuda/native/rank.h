// One local rank: its device, streams, memory, and the copies between host and device.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>

#include "../kernels/types.h"
#include "cuda.h"
#include "memory.h"

namespace fa2a {

using Clock = std::chrono::steady_clock;

/** When a wait has to end. */
struct Deadline {
  explicit Deadline(int64_t milliseconds)
      : milliseconds(milliseconds), end(Clock::now() + std::chrono::milliseconds(milliseconds)) {}
  bool passed() const { return milliseconds >= 0 && Clock::now() >= end; }
  int64_t milliseconds;
  Clock::time_point end;
};

/** Polls until the event is done. False when the deadline passed. Throws when the device failed. */
bool waitFor(cudaEvent_t event, const Deadline& deadline, int32_t rank);

class Rank {
 public:
  static constexpr int NUM_BARRIERS = 6;

  Rank(int32_t rank, int device, int32_t numRanks);
  ~Rank();
  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;

  const int32_t rank;
  const int device;
  const int32_t numRanks;
  int numSms = 0;
  /** The copy engine of sm_90 and newer may be used. */
  bool hasBulk = false;
  size_t sharedBytes = 0;
  std::atomic<int64_t> deadlineMs{60000};

  Stream comm;
  Stream compute;
  std::shared_ptr<Pool> pool;
  PinnedSlots pinned;

  /** Communication memory and the table of all ranks' arenas on this device. */
  char* arena = nullptr;
  size_t arenaBytes = 0;
  char** arenaTable = nullptr;

  /** Latest arrival at each barrier of an operation, release of it (hub only), and marks for the compute stream. */
  Event arrived[NUM_BARRIERS];
  Event released[NUM_BARRIERS];
  Event computeMark;

  /** Copies through pinned memory. upload returns when `host` has been read, download when `host` has been written. */
  void upload(void* to, const void* host, size_t bytes);
  void download(void* host, const void* from, size_t bytes);
  /** Waits for everything on the comm stream; Timeout after the deadline. */
  void synchronize();

 private:
  static constexpr size_t CHUNK = size_t{4} << 20;
  std::mutex stagingMutex_;
  char* staging_[2] = {nullptr, nullptr};
  Event stagingUsed_[2];
  Event done_;
};

}  // namespace fa2a
