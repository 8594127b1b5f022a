// Kernel launches: only for files that the device compiler sees (.cu).
#pragma once

#include "cuda.h"

namespace fa2a {

/** Starts `kernel` on the current device. */
template <class Args>
void launch(const char* name, void (*kernel)(Args), unsigned grid, unsigned threads, size_t sharedBytes,
            cudaStream_t stream, const Args& args) {
#ifdef FA2A_EMULATED
  check(emulated::launch(name, grid, threads, sharedBytes, stream, [kernel, args] { kernel(args); }), name);
#else
  if (sharedBytes > 48 * 1024) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(sharedBytes)), name);
  }
  kernel<<<grid, threads, sharedBytes, stream>>>(args);
  check(cudaGetLastError(), name);
#endif
}

}  // namespace fa2a
