// One kernel launch on the emulated device: blocks of threads, their barriers, shared memory and kept-back stores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fiber.h"

namespace emulated {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

constexpr unsigned WARP = 32;

struct Block;

struct Thread {
  enum class State { Unstarted, Ready, AtBlockBarrier, AtWarpBarrier, Done };
  State state = State::Unstarted;
  Fiber* fiber = nullptr;
};

struct Warp {
  unsigned arrived = 0;
  unsigned exited = 0;
  uint64_t generation = 0;
  uint64_t values[2][WARP] = {};
};

/** A bulk copy that the copy engine has not made yet. */
struct BulkCopy {
  void* to;
  const void* from;
  size_t bytes;
  uint64_t* barrier;  // completes here (to shared memory), or null: belongs to a group of its thread
  unsigned thread;
  unsigned group;
};

struct Launch {
  std::string name;
  unsigned grid = 0;
  unsigned threads = 0;
  size_t sharedBytes = 0;
  std::function<void()> body;
  unsigned nextBlock = 0;
  unsigned doneBlocks = 0;
  /** Weak stores of the whole grid: written when it ends, or earlier by chance. */
  struct Store {
    void* to;
    unsigned char bytes[16];
    unsigned char size;
  };
  std::vector<Store> stores;
};

struct Block {
  Launch* launch = nullptr;
  unsigned index = 0;
  unsigned live = 0;
  unsigned atBarrier = 0;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<unsigned> ready;
  unsigned nextUnstarted = 0;
  std::unique_ptr<char[]> sharedMemory;
  char* shared = nullptr;
  std::vector<BulkCopy> bulk;
  std::vector<unsigned> openGroup;
  bool slow = false;
};

/** The thread that runs now. Kernels are only ever run by one OS thread at a time, under the runtime's lock. */
struct Current {
  Block* block = nullptr;
  unsigned thread = 0;
};
extern Current current;
extern Index threadIndex, blockIndex, blockSize, gridSize;

/** Makes block `index` of a launch ready to run. */
std::unique_ptr<Block> makeBlock(Launch& launch, unsigned index, bool slow);
/** Runs a block until it is done or, with a seed, until chance takes another. True when it is done. Throws on deadlock. */
bool runBlock(Block& block);
/** Writes what the grid's stores held back. */
void finishLaunch(Launch& launch);

/** Random numbers of the schedule; `chance(n)` is true once in n, and never without a seed. */
uint64_t nextRandom();
bool chance(unsigned n);
bool shuffled();
bool weakStores();
void startSchedule(uint64_t seed, bool weak, bool poison);

void blockBarrier();
void warpBarrier();
/** Every lane gives `value`; returns the 32 values. All 32 lanes take part. */
const uint64_t* warpExchange(uint64_t value);
/** A place where another thread may run. */
void maybePreempt();
void store(void* to, const void* from, size_t bytes);
void* sharedMemory();

void bulkToShared(void* to, const void* from, size_t bytes, uint64_t* barrier);
void bulkToGlobal(void* to, const void* from, size_t bytes);
void bulkCommit();
/** Waits until at most `outstanding` groups of this thread are unfinished. */
void bulkWait(unsigned outstanding);
void barrierInit(uint64_t* barrier, unsigned count);
void barrierArriveExpect(uint64_t* barrier, unsigned bytes);
void barrierWait(uint64_t* barrier, unsigned phase);

}  // namespace emulated
