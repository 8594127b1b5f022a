// Fibers: the emulation runs every CUDA thread that has to wait on a stack of its own, all on one OS thread at a time.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) || defined(FA2A_UCONTEXT)
#define FA2A_FIBER_UCONTEXT 1
#include <ucontext.h>
#endif

namespace emulated {

class Fiber {
 public:
  using Entry = void (*)(Fiber*);

  explicit Fiber(Entry entry);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /** Runs the fiber until it suspends; only from outside any fiber. The first call enters `entry`, which must not return. */
  void resume();
  /** Back to whoever resumed; only from inside this fiber. */
  void suspend();

 private:
  friend void fiberMain(Fiber* fiber);

  Entry entry_;
  char* stack_;
#ifdef FA2A_FIBER_UCONTEXT
  ucontext_t own_;
  ucontext_t caller_;
#else
  void* own_ = nullptr;
  void* caller_ = nullptr;
#endif
#ifdef __SANITIZE_ADDRESS__
  const void* callerBottom_ = nullptr;
  size_t callerSize_ = 0;
#endif
};

}  // namespace emulated
