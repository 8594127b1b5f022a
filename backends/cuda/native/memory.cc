#include "memory.h"

#include <cstring>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace fa2a {

namespace {

/** Sizes of one class are reused for each other: 256 bytes steps, from 1 MiB on steps of 1/8 of the size. */
size_t blockSize(size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  // A block may be freed while work on it is still enqueued, so free blocks cannot be closed; but a block that is only
  // reused for its own size has an end that can be watched all the time.
  if (bytes > 0) return bytes;
#endif
  size_t step = 256;
  while (step * 8 < bytes && bytes >= (size_t{1} << 20)) step *= 2;
  return bytes == 0 ? 256 : (bytes + step - 1) / step * step;
}

/** With AddressSanitizer (emulated build) the rest of the allocation behind a block may not be touched. */
void closeEnd(void* data, size_t bytes, bool closed) {
#ifdef __SANITIZE_ADDRESS__
  const size_t allocated = (bytes + 255) / 256 * 256;
  char* end = static_cast<char*>(data) + bytes;
  if (closed) ASAN_POISON_MEMORY_REGION(end, allocated - bytes);
  if (!closed) ASAN_UNPOISON_MEMORY_REGION(end, allocated - bytes);
#else
  (void)data;
  (void)bytes;
  (void)closed;
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
  closeEnd(data, wanted, true);
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
    closeEnd(entry.data, bytes, false);
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
