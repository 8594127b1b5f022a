// Device memory of one rank. Blocks come from a pool that keeps what is freed; docs/cuda.md has the rule that makes the
// reuse safe: when a rank's stream reaches the end of an operation nobody else touches that rank's blocks any more.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda.h"

namespace fa2a {

class Pool;

/** A block of device memory, or nothing. Goes back to its pool when destroyed. */
class Memory {
 public:
  Memory() = default;
  Memory(std::shared_ptr<Pool> pool, void* data, size_t bytes, size_t blockBytes, bool ofComm)
      : pool_(std::move(pool)), data_(static_cast<char*>(data)), bytes_(bytes), blockBytes_(blockBytes), ofComm_(ofComm) {}
  ~Memory();
  Memory(Memory&& other) noexcept { *this = std::move(other); }
  Memory& operator=(Memory&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(blockBytes_, other.blockBytes_);
    std::swap(ofComm_, other.ofComm_);
    return *this;
  }
  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<Pool> pool_;
  char* data_ = nullptr;
  size_t bytes_ = 0;
  size_t blockBytes_ = 0;
  bool ofComm_ = false;
};

class Pool : public std::enable_shared_from_this<Pool> {
 public:
  Pool(int device, int32_t rank, cudaStream_t comm, cudaStream_t compute)
      : device_(device), rank_(rank), comm_(comm), compute_(compute) {}
  ~Pool();

  /**
   * At least `bytes` (0 is allowed). `ofComm`: the caller orders its own compute stream; else reuse of the block waits for
   * what the compute stream holds when the block is freed.
   */
  Memory take(size_t bytes, bool ofComm = true);
  /** Gives free blocks back to the device. */
  void trim();
  int64_t totalBytes() const;
  int64_t freeBytes() const;

 private:
  friend class Memory;
  struct Free {
    void* data;
    Event usedByCompute;
  };
  void put(void* data, size_t blockBytes, bool ofComm);

  const int device_;
  const int32_t rank_;
  const cudaStream_t comm_;
  const cudaStream_t compute_;
  mutable std::mutex mutex_;
  std::multimap<size_t, Free> free_;
  int64_t total_ = 0;
  int64_t freeTotal_ = 0;
};

/** Small pinned words that devices report to; slots are kept for ever. */
class PinnedSlots {
 public:
  static constexpr size_t SLOT_BYTES = 64;
  ~PinnedSlots();
  void* take();
  void put(void* slot);

 private:
  std::mutex mutex_;
  std::vector<void*> pages_;
  std::vector<void*> free_;
};

}  // namespace fa2a
