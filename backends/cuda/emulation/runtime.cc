// The emulated CUDA runtime: devices, memory, streams, events and graphs (cuda_runtime.h).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "failure.h"
#include "kernel.h"
#include "settings.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace emulated {

using Clock = std::chrono::steady_clock;

struct Event {
  /** What has happened; operations in flight keep it when the event is destroyed before they run. */
  struct State {
    uint64_t done = 0;
    Clock::time_point time;
  };
  uint64_t recorded = 0;
  std::shared_ptr<State> state = std::make_shared<State>();
  /** Position in the capture that recorded it last; the capturing graph is not null then. */
  Graph* capture = nullptr;
};

/** One operation of a stream. `ready` is asked until it says yes, then `run` is called until it says it is done. */
struct Operation {
  std::function<bool()> ready;
  std::function<bool(int device)> run;
};

struct Stream {
  int device = 0;
  std::deque<Operation> queue;
  Graph* capture = nullptr;
};

struct Graph {
  Stream* origin = nullptr;
  std::set<Stream*> streams;
  /** In the order of the calls, which is an order the captured events allow. */
  std::vector<std::pair<int, std::function<Operation()>>> operations;
};

namespace {

struct RunningBlock {
  std::unique_ptr<Block> block;
  Launch* launch;
  int device;
};

std::recursive_mutex mutex;
Settings machine;
std::set<Stream*> streams;
std::vector<RunningBlock> running;
std::map<void*, std::pair<int, size_t>> allocations;
std::map<int, int64_t> allocated;
std::map<int, int> blocksOnDevice;
std::string failureText;
thread_local int device = 0;
thread_local cudaError_t lastError = cudaSuccess;

cudaError_t answer(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) lastError = error;
  return error;
}

void startBlocks(Launch& launch, int onDevice) {
  while (launch.nextBlock < launch.grid && blocksOnDevice[onDevice] < machine.numSms) {
    const bool slow = shuffled() && (onDevice == machine.slowDevice || chance(4));
    running.push_back({makeBlock(launch, launch.nextBlock++, slow), &launch, onDevice});
    blocksOnDevice[onDevice]++;
  }
}

/** In order: the whole grid, block after block. Shuffled: starts blocks as SMs are free; runBlocks moves them on. */
bool runLaunch(Launch& launch, int onDevice) {
  if (!shuffled()) {
    while (launch.nextBlock < launch.grid) {
      auto block = makeBlock(launch, launch.nextBlock++, false);
      runBlock(*block);
    }
    finishLaunch(launch);
    return true;
  }
  startBlocks(launch, onDevice);
  if (launch.doneBlocks < launch.grid) return false;
  finishLaunch(launch);
  return true;
}

bool runSomeBlock() {
  if (running.empty()) return false;
  size_t pick = nextRandom() % running.size();
  for (int tries = 0; tries < 8 && running[pick].block->slow && !chance(16); tries++) pick = nextRandom() % running.size();
  RunningBlock& entry = running[pick];
  if (!runBlock(*entry.block)) return true;
  entry.launch->doneBlocks++;
  blocksOnDevice[entry.device]--;
  running.erase(running.begin() + static_cast<ptrdiff_t>(pick));
  return true;
}

bool stalled(const Stream& stream) { return stream.device == machine.stalledDevice; }

/** Moves the first operation of a stream on. True when something happened. */
bool advance(Stream& stream) {
  if (stream.queue.empty() || stalled(stream)) return false;
  Operation& operation = stream.queue.front();
  if (operation.ready && !operation.ready()) return false;
  operation.ready = nullptr;
  if (!operation.run(stream.device)) return false;
  stream.queue.pop_front();
  return true;
}

/** Runs everything that can run. False when operations remain that nothing will release. */
bool drain() {
  if (!failureText.empty()) return false;
  try {
    std::vector<Stream*> order(streams.begin(), streams.end());
    constexpr unsigned SLOW_TURNS = 400;
    unsigned slowWaits = 0;
    // Rounds in which streams were passed over and nothing else happened: what is left may wait for another thread, or
    // for another process, and this one holds the lock.
    constexpr unsigned IDLE_ROUNDS = 8;
    unsigned idleRounds = 0;
    for (;;) {
      bool progress = false, passedOver = false;
      if (shuffled()) {
        for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[nextRandom() % i]);
      }
      for (Stream* stream : order) {
        // The slow device hardly moves while any other can.
        if (shuffled() && stream->device == machine.slowDevice && slowWaits < SLOW_TURNS) continue;
        if (shuffled() && chance(3)) {
          passedOver |= !stream->queue.empty() && !stalled(*stream);
          continue;
        }
        while (advance(*stream)) {
          progress = true;
          if (shuffled()) break;
        }
      }
      if (shuffled()) {
        const uint64_t turns = 1 + nextRandom() % 8;
        for (uint64_t i = 0; i < turns; i++) progress |= runSomeBlock();
      }
      idleRounds = progress ? 0 : idleRounds + 1;
      progress |= passedOver && idleRounds < IDLE_ROUNDS;
      if (progress && slowWaits < SLOW_TURNS) {
        slowWaits++;
      } else if (!progress && slowWaits < SLOW_TURNS) {
        slowWaits = SLOW_TURNS;
        continue;
      } else if (chance(64)) {
        slowWaits = 0;
      }
      if (!progress && running.empty()) break;
    }
  } catch (const std::exception& error) {
    failureText = error.what();
    running.clear();
    blocksOnDevice.clear();
    return false;
  }
  for (const Stream* stream : streams) {
    if (!stream->queue.empty()) return false;
  }
  return true;
}

/** Adds an operation to a stream, or to the graph that captures it. */
cudaError_t enqueue(Stream* stream, std::function<Operation()> make) {
  if (stream->capture != nullptr) {
    stream->capture->operations.emplace_back(stream->device, std::move(make));
    return cudaSuccess;
  }
  if (!failureText.empty()) return answer(cudaErrorLaunchFailure);
  stream->queue.push_back(make());
  return cudaSuccess;
}

Operation simple(std::function<void()> run) {
  return {nullptr, [run = std::move(run)](int) {
            run();
            return true;
          }};
}

}  // namespace

Settings settings() {
  std::lock_guard lock(mutex);
  return machine;
}

void configure(const Settings& settings) {
  std::lock_guard lock(mutex);
  drain();
  machine = settings;
  if (!failureText.empty()) {
    failureText.clear();
    running.clear();
    blocksOnDevice.clear();
    for (Stream* stream : streams) stream->queue.clear();
  }
  // What else is left waits for other processes: of a group whose operations go on while another group is made.
  startSchedule(settings.seed, settings.weakStores && settings.seed != 0, settings.poison);
}

nccl::EmulatedStreams streamsForNccl() {
  const auto add = [](nccl::Stream stream, int (*poll)(void*), void (*release)(void*), void* state) {
    std::lock_guard lock(mutex);
    const std::shared_ptr<void> owner(state, release);
    enqueue(static_cast<Stream*>(stream), [=] { return Operation{nullptr, [=](int) { return poll(owner.get()) != 0; }}; });
  };
  // The thread that drives may outlive main.
  static bool ended = false;
  std::atexit([] {
    std::lock_guard lock(mutex);
    ended = true;
  });
  const auto drive = [] {
    std::lock_guard lock(mutex);
    if (!ended) drain();
  };
  return {add, drive};
}

std::string failureMessage() {
  std::lock_guard lock(mutex);
  return failureText;
}

cudaError_t launch(const char* name, unsigned grid, unsigned threads, size_t sharedBytes, cudaStream_t stream,
                   std::function<void()> body) {
  std::lock_guard lock(mutex);
  if (grid == 0 || threads == 0 || threads > 1024) return answer(cudaErrorInvalidValue);
  return enqueue(stream, [=] {
    auto one = std::make_shared<Launch>();
    one->name = name;
    one->grid = grid;
    one->threads = threads;
    one->sharedBytes = sharedBytes;
    one->body = body;
    return Operation{nullptr, [one](int onDevice) { return runLaunch(*one, onDevice); }};
  });
}

}  // namespace emulated

using namespace emulated;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorPeerAccessAlreadyEnabled: return "cudaErrorPeerAccessAlreadyEnabled";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
  }
  return "cudaErrorUnknown";
}

const char* cudaGetErrorString(cudaError_t error) {
  thread_local std::string text;
  text = error == cudaErrorLaunchFailure ? failureMessage() : "";
  return text.empty() ? cudaGetErrorName(error) : text.c_str();
}

cudaError_t cudaGetLastError() { return std::exchange(lastError, cudaSuccess); }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  std::lock_guard lock(mutex);
  *count = machine.numDevices;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int wanted) {
  std::lock_guard lock(mutex);
  if (wanted < 0 || wanted >= machine.numDevices) return answer(cudaErrorInvalidDevice);
  device = wanted;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* present) {
  *present = device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int wanted) {
  std::lock_guard lock(mutex);
  if (wanted < 0 || wanted >= machine.numDevices) return answer(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated device %d", wanted);
  properties->totalGlobalMem = static_cast<size_t>(machine.deviceBytes);
  properties->sharedMemPerBlockOptin = machine.computeMajor >= 9 ? 227 * 1024 : 163 * 1024;
  properties->major = machine.computeMajor;
  properties->multiProcessorCount = machine.numSms;
  properties->l2CacheSize = 50 << 20;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int wanted) {
  std::snprintf(id, static_cast<size_t>(length), "0000:%02x:00.0", wanted);
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int one, int other) {
  *can = one != other;
  return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  std::lock_guard lock(mutex);
  *total = static_cast<size_t>(machine.deviceBytes);
  *free = static_cast<size_t>(machine.deviceBytes - allocated[device]);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  std::lock_guard lock(mutex);
  if (allocated[device] + static_cast<int64_t>(bytes) > machine.deviceBytes) return answer(cudaErrorMemoryAllocation);
  void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (memory == nullptr) return answer(cudaErrorMemoryAllocation);
  if (machine.poison) std::memset(memory, 0xA5, bytes);
  allocations[memory] = {device, bytes};
  allocated[device] += static_cast<int64_t>(bytes);
  *pointer = memory;
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  std::lock_guard lock(mutex);
  if (pointer == nullptr) return cudaSuccess;
  const auto found = allocations.find(pointer);
  if (found == allocations.end()) return answer(cudaErrorInvalidValue);
  drain();  // cudaFree waits for the device
  allocated[found->second.first] -= static_cast<int64_t>(found->second.second);
  allocations.erase(found);
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  *pointer = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return *pointer == nullptr ? answer(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  std::lock_guard lock(mutex);
  return enqueue(stream, [=] { return simple([=] { std::memcpy(to, from, bytes); }); });
}

cudaError_t cudaMemsetAsync(void* to, int byte, size_t bytes, cudaStream_t stream) {
  std::lock_guard lock(mutex);
  return enqueue(stream, [=] { return simple([=] { std::memset(to, byte, bytes); }); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  std::lock_guard lock(mutex);
  if (allocated[device] >= machine.deviceBytes) return answer(cudaErrorMemoryAllocation);
  *stream = new Stream;
  (*stream)->device = device;
  streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  std::lock_guard lock(mutex);
  drain();
  streams.erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  std::lock_guard lock(mutex);
  drain();
  if (!failureText.empty()) return answer(cudaErrorLaunchFailure);
  // A real device would block here for ever; the library only synchronises streams whose events are done.
  return stream->queue.empty() ? cudaSuccess : answer(cudaErrorNotReady);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  std::lock_guard lock(mutex);
  if (event->capture != nullptr) {
    // An edge of the capture: the stream joins it. The order of the calls is the order of the replay.
    if (stream->capture != nullptr && stream->capture != event->capture) return answer(cudaErrorStreamCaptureUnsupported);
    stream->capture = event->capture;
    event->capture->streams.insert(stream);
    return cudaSuccess;
  }
  const uint64_t target = event->recorded;
  return enqueue(stream, [state = event->state, target] {
    return Operation{[=] { return state->done >= target; }, [](int) { return true; }};
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new Event;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  std::lock_guard lock(mutex);
  drain();
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  std::lock_guard lock(mutex);
  if (stream->capture != nullptr) {
    event->capture = stream->capture;
    return cudaSuccess;
  }
  event->capture = nullptr;
  const uint64_t version = ++event->recorded;
  return enqueue(stream, [state = event->state, version] {
    return simple([=] {
      state->done = std::max(state->done, version);
      state->time = Clock::now();
    });
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  std::lock_guard lock(mutex);
  if (event->state->done < event->recorded) drain();
  if (!failureText.empty()) return answer(cudaErrorLaunchFailure);
  return event->state->done >= event->recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  std::lock_guard lock(mutex);
  *milliseconds = std::chrono::duration<float, std::milli>(to->state->time - from->state->time).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  std::lock_guard lock(mutex);
  if (stream->capture != nullptr) return answer(cudaErrorStreamCaptureUnsupported);
  stream->capture = new Graph;
  stream->capture->origin = stream;
  stream->capture->streams.insert(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  std::lock_guard lock(mutex);
  if (stream->capture == nullptr || stream->capture->origin != stream) return answer(cudaErrorStreamCaptureUnsupported);
  *graph = stream->capture;
  for (Stream* member : (*graph)->streams) member->capture = nullptr;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new Graph(*graph);
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  std::lock_guard lock(mutex);
  for (const auto& [onDevice, make] : exec->operations) {
    const cudaError_t error = enqueue(stream, [onDevice = onDevice, make = make] {
      Operation operation = make();
      return Operation{operation.ready, [run = operation.run, onDevice](int) { return run(onDevice); }};
    });
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
