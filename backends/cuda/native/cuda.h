// The CUDA runtime with failures as exceptions and handles as objects. The emulated build finds its own cuda_runtime.h.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <utility>

#include "error.h"

namespace fa2a {

/** Throws when `error` is one. Out of memory is told apart; anything else leaves the group unusable. */
void check(cudaError_t error, const char* what, int32_t rank = -1);

/** Makes `device` current for the life of the object. */
class OnDevice {
 public:
  explicit OnDevice(int device) {
    cudaGetDevice(&before_);
    if (before_ != device) check(cudaSetDevice(device), "cudaSetDevice");
  }
  ~OnDevice() { cudaSetDevice(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
};

/** A cudaStream_t of one device that waits for no other stream by itself. OUT_OF_MEMORY where the device has no room for one. */
class Stream {
 public:
  Stream() = default;
  Stream(int device, int32_t rank);
  ~Stream() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  Stream& operator=(Stream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

/** A cudaEvent_t of one device. */
class Event {
 public:
  Event() = default;
  Event(int device, bool timed) : device_(device) {
    OnDevice on(device);
    check(cudaEventCreateWithFlags(&event_, timed ? cudaEventDefault : cudaEventDisableTiming), "cudaEventCreate");
  }
  ~Event() {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  Event(Event&& other) noexcept : device_(other.device_), event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(event_, other.event_);
    return *this;
  }
  cudaEvent_t get() const { return event_; }
  void record(cudaStream_t stream) const {
    OnDevice on(device_);
    check(cudaEventRecord(event_, stream), "cudaEventRecord");
  }

 private:
  int device_ = 0;
  cudaEvent_t event_ = nullptr;
};

}  // namespace fa2a
