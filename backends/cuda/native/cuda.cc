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

Stream::Stream(int device, int32_t rank) {
  OnDevice on(device);
  const cudaError_t error = cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    // Seen with four processes on one H100 under MPS and 32 connections each; with the default number all was well.
    failMessage(FA2A_OUT_OF_MEMORY,
                format("cudaStreamCreate: expected room on device %d for a stream, received %s; free memory there; where processes "
                       "share it under MPS, unset CUDA_DEVICE_MAX_CONNECTIONS or start fewer",
                       device, cudaGetErrorName(error)),
                rank);
  }
  check(error, "cudaStreamCreate", rank);
}

}  // namespace fa2a
