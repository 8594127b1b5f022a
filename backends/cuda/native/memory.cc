#include "memory.h"

#include <cstring>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace fa2a {

namespace {

/** Sizes of one class are reused for each other: 256 bytes steps, from 1 MiB on steps of 1/8 of the size. */
size_t blockSize(size_t bytes) {
  size_t step = 256;
  while (step * 8 < bytes && bytes >= (size_t{1} << 20)) step *= 2;
  return bytes == 0 ? 256 : (bytes + step - 1) / step * step;
}

/** With AddressSanitizer (emulated build) the unused end of a block, and all of a free one, may not be touched. */
void setUsable(void* data, size_t usable, size_t blockBytes) {
#ifdef __SANITIZE_ADDRESS__
  ASAN_UNPOISON_MEMORY_REGION(data, usable);
  ASAN_POISON_MEMORY_REGION(static_cast<char*>(data) + usable, blockBytes - usable);
#else
  (void)data;
  (void)usable;
  (void)blockBytes;
#endif
}

}  // namespace

Memory::~Memory() {
  if (pool_ != nullptr) pool_->put(data_, blockBytes_, ofComm_);
}

Memory Pool::take(size_t bytes, bool ofComm) {
  const size_t wanted = blockSize(bytes);
  OnDevice on(device_);
  std::unique_lock lock(mutex_);
  const auto found = free_.find(wanted);
  if (found != free_.end()) {
    void* data = found->second.data;
    Event used = std::move(found->second.usedByCompute);
    free_.erase(found);
    freeTotal_ -= static_cast<int64_t>(wanted);
    lock.unlock();
    if (used.get() != nullptr) check(cudaStreamWaitEvent(comm_, used.get(), 0), "cudaStreamWaitEvent", rank_);
    setUsable(data, bytes, wanted);
    return Memory(shared_from_this(), data, bytes, wanted, ofComm);
  }
  lock.unlock();
  void* data = nullptr;
  cudaError_t error = cudaMalloc(&data, wanted);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    trim();
    error = cudaMalloc(&data, wanted);
  }
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    fail(FA2A_OUT_OF_MEMORY, "device memory", format("%zu bytes on device %d", wanted, device_),
         format("%zu of %zu bytes free", free, total), "lower the sizes, free tensors or use more devices",
         {.rank = rank_});
  }
  check(error, "cudaMalloc", rank_);
  lock.lock();
  total_ += static_cast<int64_t>(wanted);
  lock.unlock();
  setUsable(data, bytes, wanted);
  return Memory(shared_from_this(), data, bytes, wanted, ofComm);
}

void Pool::put(void* data, size_t blockBytes, bool ofComm) {
  Free entry{data, {}};
  if (!ofComm) {
    try {
      entry.usedByCompute = Event(device_, false);
      entry.usedByCompute.record(compute_);
    } catch (const Failure&) {
      // The device is lost: nothing will run in this block any more.
      entry.usedByCompute = Event();
    }
  }
  setUsable(data, 0, blockBytes);
  std::lock_guard lock(mutex_);
  free_.emplace(blockBytes, std::move(entry));
  freeTotal_ += static_cast<int64_t>(blockBytes);
}

void Pool::trim() {
  std::multimap<size_t, Free> gone;
  {
    std::lock_guard lock(mutex_);
    gone.swap(free_);
    total_ -= freeTotal_;
    freeTotal_ = 0;
  }
  OnDevice on(device_);
  for (auto& [bytes, entry] : gone) {
    setUsable(entry.data, bytes, bytes);
    cudaFree(entry.data);
  }
}

Pool::~Pool() {
  try {
    trim();
  } catch (const Failure&) {
    // Nothing to give back on a lost device.
  }
}

int64_t Pool::totalBytes() const {
  std::lock_guard lock(mutex_);
  return total_;
}

int64_t Pool::freeBytes() const {
  std::lock_guard lock(mutex_);
  return freeTotal_;
}

PinnedSlots::~PinnedSlots() {
  for (void* page : pages_) cudaFreeHost(page);
}

void* PinnedSlots::take() {
  std::lock_guard lock(mutex_);
  if (free_.empty()) {
    constexpr size_t PAGE = 16384;
    void* page = nullptr;
    check(cudaHostAlloc(&page, PAGE, cudaHostAllocDefault), "cudaHostAlloc");
    pages_.push_back(page);
    for (size_t at = 0; at < PAGE; at += SLOT_BYTES) free_.push_back(static_cast<char*>(page) + at);
  }
  void* slot = free_.back();
  free_.pop_back();
  std::memset(slot, 0, SLOT_BYTES);
  return slot;
}

void PinnedSlots::put(void* slot) {
  std::lock_guard lock(mutex_);
  free_.push_back(slot);
}

}  // namespace fa2a
