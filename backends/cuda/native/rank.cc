#include "rank.h"

#include <algorithm>
#include <thread>

namespace fa2a {

bool waitFor(cudaEvent_t event, const Deadline& deadline, int32_t rank) {
  for (unsigned turn = 0;; turn++) {
    const cudaError_t state = cudaEventQuery(event);
    if (state == cudaSuccess) return true;
    if (state != cudaErrorNotReady) check(state, "waiting for the device", rank);
    if (deadline.passed()) return false;
    // Short operations are awaited without giving the thread up; long ones do not burn a core.
    if (turn > 2000) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    } else {
      std::this_thread::yield();
    }
  }
}

Rank::Rank(int32_t rank, int device, int32_t numRanks) : rank(rank), device(device), numRanks(numRanks) {
  OnDevice on(device);
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties", rank);
  numSms = properties.multiProcessorCount;
  hasBulk = properties.major >= 9;
  sharedBytes = properties.sharedMemPerBlockOptin;
  comm = Stream(device, rank);
  compute = Stream(device, rank);
  for (Event& event : arrived) event = Event(device, false);
  for (Event& event : released) event = Event(device, false);
  computeMark = Event(device, false);
  for (Event& event : stagingUsed_) event = Event(device, false);
  done_ = Event(device, false);
  pool = std::make_shared<Pool>(device, rank, comm, compute);
  void* table = nullptr;
  check(cudaMalloc(&table, sizeof(char*) * static_cast<size_t>(numRanks)), "cudaMalloc", rank);
  arenaTable = static_cast<char**>(table);
}

Rank::~Rank() {
  try {
    OnDevice on(device);
    pool.reset();
    cudaFree(arena);
    cudaFree(arenaTable);
    for (char* chunk : staging_) cudaFreeHost(chunk);
  } catch (const Failure&) {
    // The device is lost; the process keeps its memory until it ends.
  }
}

void Rank::synchronize() {
  OnDevice on(device);
  done_.record(comm);
  const Deadline deadline(deadlineMs);
  if (waitFor(done_.get(), deadline, rank)) return;
  fail(FA2A_TIMEOUT, "device", format("its work done within %lld ms", static_cast<long long>(deadline.milliseconds)),
       "no answer", "look for the rank that stopped, or raise the deadline", {.rank = rank});
}

void Rank::upload(void* to, const void* host, size_t bytes) {
  std::lock_guard lock(stagingMutex_);
  OnDevice on(device);
  const Deadline deadline(deadlineMs);
  for (size_t at = 0, turn = 0; at < bytes; at += CHUNK, turn++) {
    const size_t length = std::min(CHUNK, bytes - at);
    char*& chunk = staging_[turn % 2];
    const Event& used = stagingUsed_[turn % 2];
    if (chunk == nullptr) {
      void* memory = nullptr;
      check(cudaHostAlloc(&memory, CHUNK, cudaHostAllocDefault), "cudaHostAlloc", rank);
      chunk = static_cast<char*>(memory);
    } else if (!waitFor(used.get(), deadline, rank)) {
      fail(FA2A_TIMEOUT, "upload", "the device to read its staging memory in time", "no answer",
           "look for the rank that stopped, or raise the deadline", {.rank = rank});
    }
    std::memcpy(chunk, static_cast<const char*>(host) + at, length);
    check(cudaMemcpyAsync(static_cast<char*>(to) + at, chunk, length, cudaMemcpyHostToDevice, comm), "upload", rank);
    used.record(comm);
  }
}

void Rank::download(void* host, const void* from, size_t bytes) {
  std::lock_guard lock(stagingMutex_);
  OnDevice on(device);
  const Deadline deadline(deadlineMs);
  const auto finish = [&](size_t at, size_t turn) {
    if (!waitFor(stagingUsed_[turn % 2].get(), deadline, rank)) {
      fail(FA2A_TIMEOUT, "download", "the device's work done in time", "no answer",
           "look for the rank that stopped, or raise the deadline", {.rank = rank});
    }
    std::memcpy(static_cast<char*>(host) + at, staging_[turn % 2], std::min(CHUNK, bytes - at));
  };
  size_t turn = 0, at = 0;
  for (; at < bytes; at += CHUNK, turn++) {
    char*& chunk = staging_[turn % 2];
    const Event& used = stagingUsed_[turn % 2];
    if (chunk == nullptr) {
      void* memory = nullptr;
      check(cudaHostAlloc(&memory, CHUNK, cudaHostAllocDefault), "cudaHostAlloc", rank);
      chunk = static_cast<char*>(memory);
    }
    check(cudaMemcpyAsync(chunk, static_cast<const char*>(from) + at, std::min(CHUNK, bytes - at),
                          cudaMemcpyDeviceToHost, comm), "download", rank);
    used.record(comm);
    // The chunk before this one is copied out while this one travels.
    if (turn > 0) finish(at - CHUNK, turn - 1);
  }
  if (turn > 0) finish(at - CHUNK, turn - 1);
}

}  // namespace fa2a
