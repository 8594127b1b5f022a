#include "cuda.h"

namespace fa2a {

void check(cudaError_t error, const char* what, int32_t rank) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  if (error == cudaErrorMemoryAllocation) {
    failMessage(FA2A_OUT_OF_MEMORY, format("%s: expected device memory, received %s; lower the sizes or free tensors",
                                           what, cudaGetErrorName(error)), rank);
  }
  failMessage(FA2A_BACKEND_FAILURE, format("%s: expected success, received %s (%s); close the group", what,
                                           cudaGetErrorName(error), cudaGetErrorString(error)), rank, false);
}

}  // namespace fa2a
