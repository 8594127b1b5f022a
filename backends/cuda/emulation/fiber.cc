#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulated {

namespace {
#ifdef __SANITIZE_ADDRESS__
constexpr size_t STACK_BYTES = 256 * 1024;
#else
constexpr size_t STACK_BYTES = 64 * 1024;
#endif
constexpr size_t GUARD_BYTES = 4096;
}  // namespace

void fiberMain(Fiber* fiber) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &fiber->callerBottom_, &fiber->callerSize_);
#endif
  fiber->entry_(fiber);
  __builtin_trap();
}

#ifdef FA2A_FIBER_UCONTEXT

namespace {
void contextMain(unsigned low, unsigned high) {
  fiberMain(reinterpret_cast<Fiber*>(static_cast<uintptr_t>(low) | static_cast<uintptr_t>(high) << 32));
}
}  // namespace

#else

// Saves the callee-saved registers on the present stack, its top in *from, and continues on `to`. Floating point control
// words are never changed by kernels and are not saved.
extern "C" __attribute__((visibility("hidden"))) void fa2a_switch_stack(void** from, void* to);
extern "C" __attribute__((visibility("hidden"))) void fa2a_fiber_start();
asm(R"(
.text
.globl fa2a_switch_stack
.hidden fa2a_switch_stack
.type fa2a_switch_stack,@function
fa2a_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fa2a_switch_stack,.-fa2a_switch_stack
.globl fa2a_fiber_start
.hidden fa2a_fiber_start
.type fa2a_fiber_start,@function
fa2a_fiber_start:
  movq %r12, %rdi
  callq *%r13
  ud2
.size fa2a_fiber_start,.-fa2a_fiber_start
)");

#endif

Fiber::Fiber(Entry entry) : entry_(entry) {
  void* memory = mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, GUARD_BYTES, PROT_NONE);
  stack_ = static_cast<char*>(memory);
  char* bottom = stack_ + GUARD_BYTES;
#ifdef FA2A_FIBER_UCONTEXT
  getcontext(&own_);
  own_.uc_stack.ss_sp = bottom;
  own_.uc_stack.ss_size = STACK_BYTES;
  own_.uc_link = nullptr;
  const auto self = reinterpret_cast<uintptr_t>(this);
  makecontext(&own_, reinterpret_cast<void (*)()>(contextMain), 2, static_cast<unsigned>(self),
              static_cast<unsigned>(self >> 32));
#else
  // The frame that fa2a_switch_stack pops: r15, r14, r13 = fiberMain, r12 = this, rbx, rbp, return address. The stack is
  // aligned for the call in fa2a_fiber_start.
  auto* top = reinterpret_cast<uintptr_t*>(bottom + STACK_BYTES);
  *--top = 0;
  *--top = 0;
  *--top = reinterpret_cast<uintptr_t>(&fa2a_fiber_start);
  *--top = 0;
  *--top = 0;
  *--top = reinterpret_cast<uintptr_t>(this);
  *--top = reinterpret_cast<uintptr_t>(&fiberMain);
  *--top = 0;
  *--top = 0;
  own_ = top;
#endif
}

Fiber::~Fiber() { munmap(stack_, GUARD_BYTES + STACK_BYTES); }

void Fiber::resume() {
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, stack_ + GUARD_BYTES, STACK_BYTES);
#endif
#ifdef FA2A_FIBER_UCONTEXT
  swapcontext(&caller_, &own_);
#else
  fa2a_switch_stack(&caller_, own_);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void Fiber::suspend() {
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, callerBottom_, callerSize_);
#endif
#ifdef FA2A_FIBER_UCONTEXT
  swapcontext(&own_, &caller_);
#else
  fa2a_switch_stack(&own_, caller_);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, &callerBottom_, &callerSize_);
#endif
}

}  // namespace emulated
