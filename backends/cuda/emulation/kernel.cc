#include "kernel.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace emulated {

Current current;
Index threadIndex, blockIndex, blockSize, gridSize;

namespace {

uint64_t randomState = 0;
bool keepStoresBack = false;
bool poisonShared = false;

/** Fibers that run no thread now. */
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Fiber*> idleFibers;
std::string failure;

[[noreturn]] void fail(const std::string& what) {
  std::string name = current.block != nullptr ? current.block->launch->name : "?";
  std::string where = current.block != nullptr ? " block " + std::to_string(current.block->index) + " thread " +
                                                     std::to_string(current.thread)
                                               : "";
  throw std::runtime_error("kernel " + name + where + ": " + what);
}

void enter(Block& block, unsigned thread) {
  current.thread = thread;
  threadIndex.x = thread;
  (void)block;
}

void releaseBlockBarrier(Block& block) {
  if (block.atBarrier == 0 || block.atBarrier != block.live) return;
  block.atBarrier = 0;
  for (unsigned i = 0; i < block.threads.size(); i++) {
    if (block.threads[i].state != Thread::State::AtBlockBarrier) continue;
    block.threads[i].state = Thread::State::Ready;
    block.ready.push_back(i);
  }
}

/** Runs threads of the present block one after the other on one fiber; a thread that waits takes the fiber with it. */
void fiberLoop(Fiber* self) {
  for (;;) {
    Block& block = *current.block;
    const unsigned thread = current.thread;
    try {
      block.launch->body();
    } catch (const std::exception& error) {
      // Unwinding must not cross the stack switch: the scheduler throws it again.
      if (failure.empty()) failure = error.what();
    }
    Thread& done = block.threads[thread];
    done.state = Thread::State::Done;
    done.fiber = nullptr;
    block.live--;
    block.warps[thread / WARP].exited++;
    releaseBlockBarrier(block);
    if (!shuffled() && failure.empty() && block.ready.empty() && block.nextUnstarted < block.threads.size()) {
      const unsigned next = block.nextUnstarted++;
      block.threads[next].fiber = self;
      enter(block, next);
      continue;
    }
    idleFibers.push_back(self);
    self->suspend();
  }
}

void waitHere(Thread::State state) {
  Block& block = *current.block;
  const unsigned thread = current.thread;
  Thread& self = block.threads[thread];
  self.state = state;
  self.fiber->suspend();
  enter(block, thread);
}

unsigned takeReady(Block& block) {
  const size_t unstarted = block.threads.size() - block.nextUnstarted;
  if (!shuffled()) {
    if (!block.ready.empty()) {
      const unsigned thread = block.ready.back();
      block.ready.pop_back();
      return thread;
    }
    return block.nextUnstarted++;
  }
  const size_t pick = nextRandom() % (block.ready.size() + (unstarted > 0 ? 1 : 0));
  if (pick == block.ready.size()) return block.nextUnstarted++;
  const unsigned thread = block.ready[pick];
  block.ready[pick] = block.ready.back();
  block.ready.pop_back();
  return thread;
}

void makeBulkCopy(Block& block, size_t index) {
  const BulkCopy copy = block.bulk[index];
  block.bulk.erase(block.bulk.begin() + static_cast<ptrdiff_t>(index));
  if (copy.barrier == nullptr) {
    store(copy.to, copy.from, copy.bytes);
    return;
  }
  std::memcpy(copy.to, copy.from, copy.bytes);
  // Barrier word: phase in bit 63, arrivals still missing in bits 32..62, bytes still missing (signed) below.
  auto pending = static_cast<int32_t>(*copy.barrier & 0xffffffffu) - static_cast<int32_t>(copy.bytes);
  *copy.barrier = (*copy.barrier & ~uint64_t{0xffffffffu}) | static_cast<uint32_t>(pending);
}

void settleBarrier(uint64_t* barrier) {
  if ((*barrier & 0x7fffffffffffffffu) != 0) return;
  *barrier = ((*barrier ^ (uint64_t{1} << 63)) & (uint64_t{1} << 63)) | (uint64_t{1} << 32);
}

}  // namespace

uint64_t nextRandom() {
  randomState ^= randomState << 13;
  randomState ^= randomState >> 7;
  randomState ^= randomState << 17;
  return randomState * 0x2545f4914f6cdd1du >> 16;
}

bool shuffled() { return randomState != 0; }
bool weakStores() { return keepStoresBack; }
bool chance(unsigned n) { return shuffled() && nextRandom() % n == 0; }

void startSchedule(uint64_t seed, bool weak, bool poison) {
  randomState = seed == 0 ? 0 : seed * 0x9e3779b97f4a7c15u | 1;
  keepStoresBack = weak;
  poisonShared = poison;
}

std::unique_ptr<Block> makeBlock(Launch& launch, unsigned index, bool slow) {
  auto block = std::make_unique<Block>();
  block->launch = &launch;
  block->index = index;
  block->live = launch.threads;
  block->threads.resize(launch.threads);
  block->warps.resize((launch.threads + WARP - 1) / WARP);
  block->openGroup.resize(launch.threads, 0);
  block->slow = slow;
  if (launch.sharedBytes > 0) {
    block->sharedMemory.reset(new char[launch.sharedBytes + 128]);
    if (poisonShared) std::memset(block->sharedMemory.get(), 0xA5, launch.sharedBytes + 128);
    const auto address = reinterpret_cast<uintptr_t>(block->sharedMemory.get());
    block->shared = block->sharedMemory.get() + ((address + 127) / 128 * 128 - address);
  }
  return block;
}

bool runBlock(Block& block) {
  current.block = &block;
  blockIndex.x = block.index;
  blockSize = {block.launch->threads, 1, 1};
  gridSize = {block.launch->grid, 1, 1};
  while (block.live > 0) {
    if (block.ready.empty() && block.nextUnstarted == block.threads.size()) {
      unsigned atBarrier = 0, atWarp = 0;
      for (const Thread& thread : block.threads) {
        atBarrier += thread.state == Thread::State::AtBlockBarrier;
        atWarp += thread.state == Thread::State::AtWarpBarrier;
      }
      const std::string who = std::to_string(atBarrier) + " threads wait at __syncthreads, " + std::to_string(atWarp) +
                              " at __syncwarp, " + std::to_string(block.threads.size() - block.live) + " have left";
      throw std::runtime_error("kernel " + block.launch->name + " block " + std::to_string(block.index) +
                               ": deadlock: " + who);
    }
    const unsigned thread = takeReady(block);
    Thread& next = block.threads[thread];
    if (next.state == Thread::State::Unstarted) {
      if (idleFibers.empty()) {
        fibers.push_back(std::make_unique<Fiber>(fiberLoop));
        idleFibers.push_back(fibers.back().get());
      }
      next.fiber = idleFibers.back();
      idleFibers.pop_back();
    }
    next.state = Thread::State::Ready;
    enter(block, thread);
    next.fiber->resume();
    if (!failure.empty()) {
      const std::string what = failure;
      failure.clear();
      throw std::runtime_error(what);
    }
    if (shuffled() && !block.bulk.empty() && chance(4)) makeBulkCopy(block, nextRandom() % block.bulk.size());
    if (block.live > 0 && chance(64)) return false;
  }
  if (!block.bulk.empty()) {
    throw std::runtime_error("kernel " + block.launch->name + ": a block ended with bulk copies in flight");
  }
  return true;
}

void finishLaunch(Launch& launch) {
  for (const Launch::Store& kept : launch.stores) std::memcpy(kept.to, kept.bytes, kept.size);
  launch.stores.clear();
}

void blockBarrier() {
  Block& block = *current.block;
  if (++block.atBarrier == block.live) {
    releaseBlockBarrier(block);
    if (chance(2)) maybePreempt();
    return;
  }
  waitHere(Thread::State::AtBlockBarrier);
}

const uint64_t* warpExchange(uint64_t value) {
  Block& block = *current.block;
  const unsigned thread = current.thread;
  Warp& warp = block.warps[thread / WARP];
  if (warp.exited > 0) fail("a warp operation after lanes of the warp have left");
  const uint64_t generation = warp.generation;
  warp.values[generation & 1][thread % WARP] = value;
  if (++warp.arrived == WARP) {
    warp.arrived = 0;
    warp.generation++;
    for (unsigned lane = thread / WARP * WARP; lane < thread / WARP * WARP + WARP; lane++) {
      if (block.threads[lane].state != Thread::State::AtWarpBarrier) continue;
      block.threads[lane].state = Thread::State::Ready;
      block.ready.push_back(lane);
    }
  } else {
    waitHere(Thread::State::AtWarpBarrier);
  }
  return warp.values[generation & 1];
}

void warpBarrier() { warpExchange(0); }

void maybePreempt() {
  if (!chance(48)) return;
  Block& block = *current.block;
  block.ready.push_back(current.thread);
  waitHere(Thread::State::Ready);
}

void store(void* to, const void* from, size_t bytes) {
  if (!keepStoresBack) {
    std::memcpy(to, from, bytes);
    return;
  }
  auto& kept = current.block->launch->stores;
  for (size_t at = 0; at < bytes; at += 16) {
    Launch::Store one;
    one.to = static_cast<char*>(to) + at;
    one.size = static_cast<unsigned char>(std::min<size_t>(16, bytes - at));
    std::memcpy(one.bytes, static_cast<const char*>(from) + at, one.size);
    kept.push_back(one);
  }
}

void* sharedMemory() { return current.block->shared; }

namespace {
void checkBulk(const void* to, const void* from, size_t bytes) {
  const auto bits = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) | bytes;
  if (bits % 16 != 0) fail("bulk copy: address or size is not a multiple of 16");
}
}  // namespace

void bulkToShared(void* to, const void* from, size_t bytes, uint64_t* barrier) {
  checkBulk(to, from, bytes);
  Block& block = *current.block;
  block.bulk.push_back({to, from, bytes, barrier, current.thread, 0});
  if (!shuffled()) makeBulkCopy(block, block.bulk.size() - 1);
}

void bulkToGlobal(void* to, const void* from, size_t bytes) {
  checkBulk(to, from, bytes);
  Block& block = *current.block;
  block.bulk.push_back({to, from, bytes, nullptr, current.thread, block.openGroup[current.thread]});
  if (!shuffled()) makeBulkCopy(block, block.bulk.size() - 1);
}

void bulkCommit() { current.block->openGroup[current.thread]++; }

void bulkWait(unsigned outstanding) {
  Block& block = *current.block;
  const unsigned open = block.openGroup[current.thread];
  for (size_t i = 0; i < block.bulk.size();) {
    const BulkCopy& copy = block.bulk[i];
    if (copy.barrier == nullptr && copy.thread == current.thread && copy.group + outstanding < open) {
      makeBulkCopy(block, i);
    } else {
      i++;
    }
  }
}

void barrierInit(uint64_t* barrier, unsigned count) {
  if (count != 1) fail("the emulation knows transaction barriers of one arrival only");
  *barrier = uint64_t{1} << 32;
}

void barrierArriveExpect(uint64_t* barrier, unsigned bytes) {
  const auto pending = static_cast<int32_t>(*barrier & 0xffffffffu) + static_cast<int32_t>(bytes);
  const uint64_t missing = (*barrier >> 32 & 0x7fffffffu) - 1;
  *barrier = (*barrier & uint64_t{1} << 63) | missing << 32 | static_cast<uint32_t>(pending);
}

void barrierWait(uint64_t* barrier, unsigned phase) {
  Block& block = *current.block;
  for (unsigned tries = 0;; tries++) {
    settleBarrier(barrier);
    if ((*barrier >> 63) != (phase & 1)) return;
    bool found = false;
    for (size_t i = 0; i < block.bulk.size(); i++) {
      if (block.bulk[i].barrier != barrier) continue;
      makeBulkCopy(block, i);
      found = true;
      break;
    }
    if (!found) fail("waits at a transaction barrier that nothing completes");
    maybePreempt();
  }
}

}  // namespace emulated
