// The part of NCCL's C interface that the library calls, declared here so that no NCCL header is needed to build. Values
// and sizes are those of NCCL 2.18.1 and hold for every later 2.x; ncclCheck.cc compares them with a real header.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>

namespace nccl {

using Comm = struct CommOpaque*;
using Stream = void*;

/** Passed by value. */
struct UniqueId {
  char internal[128];
};

enum class Result : int {
  Success = 0,
  UnhandledCudaError = 1,
  SystemError = 2,
  InternalError = 3,
  InvalidArgument = 4,
  InvalidUsage = 5,
  RemoteError = 6,
  InProgress = 7,
};

enum class DataType : int { Uint8 = 1, Int32 = 2 };

constexpr int UNDEFINED = INT_MIN;
constexpr unsigned CONFIG_MAGIC = 0xcafebeefu;
constexpr int CONFIG_VERSION = 21801;
constexpr int LEAST_VERSION = 21800;

/** ncclConfig_t of 2.18.1: newer releases copy what they are given and look at `version`. */
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = CONFIG_MAGIC;
  unsigned version = CONFIG_VERSION;
  int blocking = UNDEFINED;
  int cgaClusterSize = UNDEFINED;
  int minCTAs = UNDEFINED;
  int maxCTAs = UNDEFINED;
  const char* netName = nullptr;
  int splitShare = UNDEFINED;
};

/** The functions, by their names without "nccl". */
struct Api {
  Result (*GetVersion)(int*) = nullptr;
  const char* (*GetErrorString)(Result) = nullptr;
  const char* (*GetLastError)(Comm) = nullptr;
  Result (*GetUniqueId)(UniqueId*) = nullptr;
  Result (*CommInitRankConfig)(Comm*, int, UniqueId, int, Config*) = nullptr;
  Result (*CommDestroy)(Comm) = nullptr;
  Result (*CommAbort)(Comm) = nullptr;
  Result (*CommGetAsyncError)(Comm, Result*) = nullptr;
  Result (*GroupStart)() = nullptr;
  Result (*GroupEnd)() = nullptr;
  Result (*Send)(const void*, size_t, DataType, int, Comm, Stream) = nullptr;
  Result (*Recv)(void*, size_t, DataType, int, Comm, Stream) = nullptr;
  Result (*AllGather)(const void*, void*, size_t, DataType, Comm, Stream) = nullptr;
};

/** Calls f(name, member) for every function. */
template <class F>
void forEachFunction(Api& api, F f) {
  f("ncclGetVersion", api.GetVersion);
  f("ncclGetErrorString", api.GetErrorString);
  f("ncclGetLastError", api.GetLastError);
  f("ncclGetUniqueId", api.GetUniqueId);
  f("ncclCommInitRankConfig", api.CommInitRankConfig);
  f("ncclCommDestroy", api.CommDestroy);
  f("ncclCommAbort", api.CommAbort);
  f("ncclCommGetAsyncError", api.CommGetAsyncError);
  f("ncclGroupStart", api.GroupStart);
  f("ncclGroupEnd", api.GroupEnd);
  f("ncclSend", api.Send);
  f("ncclRecv", api.Recv);
  f("ncclAllGather", api.AllGather);
}

/** What the emulated build hands to the stand-in: ways into the emulated streams. */
struct EmulatedStreams {
  /** Enqueues an operation: `poll(state)` is called until it answers 1, then `release(state)`. */
  void (*enqueue)(Stream stream, int (*poll)(void*), void (*release)(void*), void* state);
  /** Runs what can run. */
  void (*drive)();
};
/** Exported by the stand-in alone: void fa2aAttachEmulatedStreams(const nccl::EmulatedStreams*). */
constexpr const char* ATTACH_NAME = "fa2aAttachEmulatedStreams";

}  // namespace nccl
