#include "bench.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "../group.h"
#include "harness.h"

namespace selftest {

namespace {

using Options = std::map<std::string, int64_t>;

int64_t option(const Options& options, const char* name, int64_t fallback) {
  const auto found = options.find(name);
  return found == options.end() ? fallback : found->second;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

double nowUs() {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void requireCuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

/** Median time of a copy of `bytes` within the device, in microseconds; 0 without the memory for it. */
double copyTimeUs(int64_t bytes, int repeats) {
  void* from = nullptr;
  void* to = nullptr;
  cudaStream_t stream = nullptr;
  requireCuda(cudaSetDevice(0), "cudaSetDevice");
  if (cudaMalloc(&from, static_cast<size_t>(bytes)) != cudaSuccess) return 0;
  if (cudaMalloc(&to, static_cast<size_t>(bytes)) != cudaSuccess) return 0;
  requireCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  cudaEvent_t start = nullptr, end = nullptr;
  requireCuda(cudaEventCreateWithFlags(&start, cudaEventDefault), "cudaEventCreate");
  requireCuda(cudaEventCreateWithFlags(&end, cudaEventDefault), "cudaEventCreate");
  std::vector<double> times;
  for (int i = 0; i < repeats + 5; i++) {
    requireCuda(cudaEventRecord(start, stream), "cudaEventRecord");
    requireCuda(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream), "cudaMemcpy");
    requireCuda(cudaEventRecord(end, stream), "cudaEventRecord");
    requireCuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    float milliseconds = 0;
    requireCuda(cudaEventElapsedTime(&milliseconds, start, end), "cudaEventElapsedTime");
    if (i >= 5) times.push_back(milliseconds * 1000.0);
  }
  cudaEventDestroy(start);
  cudaEventDestroy(end);
  cudaStreamDestroy(stream);
  cudaFree(from);
  cudaFree(to);
  return median(times);
}

struct Shape {
  int ranks;
  int tokens;
  int64_t hidden;
  int topk;
  int experts;
  int repeats;
};

/** Uniform routing with distinct experts; rows of any bits. Several sets, so that no run finds its data in the cache. */
struct Workload {
  reference::Case test;
  Inputs inputs;
  int64_t rankRows = 0;    // rows that cross to a rank, own rank included, all ranks together
  int64_t slots = 0;       // permuted rows, all ranks together
  int64_t singleRows = 0;  // of rankRows, those with one expert there
};

Workload makeWorkload(fa2a_group* group, const Shape& shape, fa2a_kind kind, fa2a_dtype dtype, uint64_t seed) {
  Random random(seed);
  Workload work;
  reference::Case& test = work.test;
  test.kind = kind;
  test.ranks = shape.ranks;
  test.ranksPerNode = shape.ranks;
  test.experts = shape.experts;
  test.topk = shape.topk;
  test.hidden = shape.hidden;
  test.dtype = dtype;
  test.scaleColumns = dtype == FA2A_FP8E4M3 ? (shape.hidden + 127) / 128 : 0;
  const int perRank = shape.experts / shape.ranks;
  std::vector<int> perDestination(static_cast<size_t>(shape.ranks), 0);
  for (int rank = 0; rank < shape.ranks; rank++) {
    test.tokens.push_back(shape.tokens);
    std::vector<int32_t> ids;
    for (int token = 0; token < shape.tokens; token++) {
      std::vector<int> on(static_cast<size_t>(shape.ranks), 0);
      const size_t first = ids.size();
      while (ids.size() < first + static_cast<size_t>(shape.topk)) {
        const auto id = static_cast<int32_t>(random.below(shape.experts));
        if (std::find(ids.begin() + static_cast<int64_t>(first), ids.end(), id) != ids.end()) continue;
        ids.push_back(id);
        on[static_cast<size_t>(id / perRank)]++;
      }
      for (size_t dst = 0; dst < on.size(); dst++) {
        work.rankRows += on[dst] > 0;
        work.singleRows += on[dst] == 1;
        work.slots += on[dst];
        perDestination[dst] += kind == FA2A_FUSED ? on[dst] > 0 : on[dst];
      }
    }
    test.ids.push_back(std::move(ids));
  }
  // A budget that fits, so that no operation waits for the host: 2 % above the largest rank.
  const int64_t most = *std::max_element(perDestination.begin(), perDestination.end());
  (kind == FA2A_FUSED ? test.worstTokens : test.permutedTokens) = (most * 102 / 100 + 127) / 128 * 128;
  const auto rowBytes = static_cast<size_t>(shape.hidden * reference::elementBytes(dtype));
  std::vector<uint8_t> pattern(rowBytes * 64);
  for (uint8_t& byte : pattern) byte = static_cast<uint8_t>(random.next());
  for (int rank = 0; rank < shape.ranks; rank++) {
    std::vector<uint8_t> rows(static_cast<size_t>(shape.tokens) * rowBytes);
    for (size_t at = 0; at < rows.size(); at += pattern.size()) {
      std::memcpy(rows.data() + at, pattern.data(), std::min(pattern.size(), rows.size() - at));
    }
    test.x.push_back(std::move(rows));
    test.weights.push_back(randomFloats(random, static_cast<int64_t>(shape.tokens) * shape.topk, false));
    test.scales.push_back(randomRows(random, FA2A_FP32, shape.tokens * test.scaleColumns, false));
  }
  work.inputs = makeInputs(group, test, true, false);
  test.x.clear();
  return work;
}

/** Times by phase: per operation the span from the first start to the last end over all ranks. */
class PhaseTimes {
 public:
  void add(fa2a_event* event) {
    int32_t count = 0;
    FA2A_CALL(fa2a_event_phases, event, 0, nullptr, &count);
    std::vector<fa2a_phase> phases(static_cast<size_t>(count));
    FA2A_CALL(fa2a_event_phases, event, count, phases.data(), &count);
    std::map<std::string, std::pair<double, double>> spans;
    double first = 1e30, last = 0;
    for (const fa2a_phase& phase : phases) {
      if (spans.find(phase.name) == spans.end()) order(phase.name);
      auto& span = spans.try_emplace(phase.name, 1e30, 0.0).first->second;
      span.first = std::min(span.first, phase.start_us);
      span.second = std::max(span.second, phase.start_us + phase.duration_us);
      first = std::min(first, phase.start_us);
      last = std::max(last, phase.start_us + phase.duration_us);
    }
    for (const auto& [name, span] : spans) times_[name].push_back(span.second - span.first);
    total_.push_back(last - first);
  }
  double of(const std::string& name) const {
    const auto found = times_.find(name);
    return found == times_.end() ? 0 : median(found->second);
  }
  double total() const { return median(total_); }
  const std::vector<std::string>& names() const { return names_; }

 private:
  void order(const std::string& name) {
    if (std::find(names_.begin(), names_.end(), name) == names_.end()) names_.push_back(name);
  }
  std::map<std::string, std::vector<double>> times_;
  std::vector<double> total_;
  std::vector<std::string> names_;
};

void setCaps(fa2a_group* group, int sms, bool pull, bool timings) {
  fa2a_group_options caps = {};
  caps.num_sms = sms;
  caps.num_sms_preprocessing = caps.num_blocks_permute = caps.num_blocks_unpermute = 1 << 20;
  caps.combine_path = pull ? FA2A_COMBINE_PULL : FA2A_COMBINE_PUSH;
  caps.record_timings = timings;
  FA2A_CALL(fa2a_group_configure, group, &caps);
}

/** Bytes that a phase reads and writes in device memory, all ranks together. */
int64_t phaseBytes(const std::string& name, const Workload& work, int64_t rowBytes) {
  const int64_t tokens = static_cast<int64_t>(work.test.tokens.size()) * work.test.tokens[0];
  const int64_t budget = std::max<int64_t>(work.test.worstTokens, work.test.permutedTokens) * work.test.ranks;
  const bool hybrid = work.test.kind == FA2A_HYBRID_EP;
  const int64_t multi = work.rankRows - work.singleRows;
  if (name == "push") return (tokens + work.rankRows) * rowBytes;
  if (name == "fill") return ((hybrid ? multi + work.slots - work.rankRows : 0) + budget - (hybrid ? work.slots : work.rankRows)) * rowBytes;
  if (name == "return") return ((hybrid ? work.slots : work.rankRows) + work.rankRows) * rowBytes;
  if (name == "reduce") return (work.rankRows + tokens) * rowBytes;
  return 0;
}

void printTable(const char* title, const PhaseTimes& times, const Workload& work, int64_t rowBytes, int repeats) {
  std::printf("\n%s: total %.1f us (median of %d, all ranks together)\n", title, times.total(), repeats);
  std::printf("  %-16s %10s %12s %10s %12s %8s\n", "phase", "us", "MB moved", "GB/s", "copy us", "of copy");
  for (const std::string& name : times.names()) {
    const int64_t bytes = phaseBytes(name, work, rowBytes);
    const double us = times.of(name);
    if (bytes == 0) {
      std::printf("  %-16s %10.1f\n", name.c_str(), us);
      continue;
    }
    // A copy of n bytes reads n and writes n: the phase's bytes, read and written, are a copy of half as many.
    const double copy = copyTimeUs(bytes / 2, std::min(repeats, 20));
    std::printf("  %-16s %10.1f %12.1f %10.1f %12.1f %7.1f%%\n", name.c_str(), us, static_cast<double>(bytes) / 1e6,
                static_cast<double>(bytes) / us / 1e3, copy, copy / us * 100);
  }
}

fa2a_stream_options asynchronous() {
  fa2a_stream_options stream = {};
  stream.async_finish = 1;
  stream.allocate_on_comm_stream = 1;
  return stream;
}

void benchKind(fa2a_group* group, const Shape& shape, fa2a_kind kind, fa2a_dtype dtype, const char* title, bool pull, int sms) {
  std::vector<Workload> sets;
  for (uint64_t seed = 1; seed <= 2; seed++) sets.push_back(makeWorkload(group, shape, kind, dtype, seed));
  const int64_t rowBytes = shape.hidden * reference::elementBytes(dtype);
  setCaps(group, sms, pull, true);
  const fa2a_stream_options stream = asynchronous();
  PhaseTimes forward, back, cached;
  std::vector<Dispatched> outs;
  std::vector<Combined> sums;
  for (int i = 0; i < shape.repeats + 6; i++) {
    const Workload& work = sets[static_cast<size_t>(i) % sets.size()];
    const bool first = i < static_cast<int>(sets.size());
    Dispatched out = dispatch(group, work.test, work.inputs, nullptr, stream, first ? nullptr : &outs[static_cast<size_t>(i) % sets.size()]);
    if (i >= 6) forward.add(out.event.get());
    Dispatched again = dispatch(group, work.test, work.inputs, out.handle.get(), stream, first ? &out : &outs[static_cast<size_t>(i) % sets.size()]);
    if (i >= 6) cached.add(again.event.get());
    if (dtype != FA2A_FP8E4M3) {
      const std::vector<fa2a_array> x = out.x.arrays();
      Combined sum = combine(group, out.handle.get(), x, {}, {}, {}, stream, first ? nullptr : &sums[static_cast<size_t>(i) % sets.size()]);
      if (i >= 6) back.add(sum.event.get());
      if (first) sums.push_back(std::move(sum));
    }
    if (first) outs.push_back(std::move(out));
  }
  const std::string name = std::string(title) + ", " + std::to_string(sms) + " SMs per rank";
  printTable((name + ", dispatch").c_str(), forward, sets[0], rowBytes, shape.repeats);
  printTable((name + ", dispatch with cached handle").c_str(), cached, sets[0], rowBytes, shape.repeats);
  if (dtype != FA2A_FP8E4M3) printTable((name + (pull ? ", combine (pull)" : ", combine (push)")).c_str(), back, sets[0], rowBytes, shape.repeats);
}

/** Times of push, fill, return and reduce for several caps. */
void sweep(fa2a_group* group, const Shape& shape) {
  const Workload work = makeWorkload(group, shape, FA2A_HYBRID_EP, FA2A_BF16, 7);
  std::printf("\nSM sweep, hybrid-ep bf16 (SMs per rank; us)\n  %6s %10s %10s %10s %10s %10s %10s\n", "SMs", "dispatch", "push", "fill",
              "combine", "return", "reduce");
  const fa2a_stream_options stream = asynchronous();
  setCaps(group, 24, false, true);
  const Dispatched out = dispatch(group, work.test, work.inputs, nullptr, stream);
  const std::vector<fa2a_array> x = out.x.arrays();
  const Combined sum = combine(group, out.handle.get(), x, {}, {}, {}, stream);
  for (const int sms : {4, 8, 12, 16, 24, 32, 64, 132}) {
    fa2a_group_options caps = {};
    caps.num_sms = caps.num_sms_preprocessing = caps.num_blocks_permute = caps.num_blocks_unpermute = sms;
    caps.record_timings = 1;
    FA2A_CALL(fa2a_group_configure, group, &caps);
    PhaseTimes forward, back;
    for (int i = 0; i < 18; i++) {
      const Dispatched again = dispatch(group, work.test, work.inputs, nullptr, stream, &out);
      const Combined more = combine(group, out.handle.get(), x, {}, {}, {}, stream, &sum);
      if (i < 3) continue;
      forward.add(again.event.get());
      back.add(more.event.get());
    }
    std::printf("  %6d %10.1f %10.1f %10.1f %10.1f %10.1f %10.1f\n", sms, forward.total(), forward.of("push"), forward.of("fill"),
                back.total(), back.of("return"), back.of("reduce"));
  }
}

/** Bulk copies and vector copies of the same rows: what the copy engine of sm_90 is worth. */
void copyPaths(fa2a_group* group, const Shape& shape) {
  const Workload work = makeWorkload(group, shape, FA2A_FUSED, FA2A_BF16, 8);
  std::printf("\nCopies, fused bf16 (SMs per rank; us)\n  %6s %12s %12s %14s %14s\n", "SMs", "push bulk", "push vector", "return bulk",
              "return vector");
  const fa2a_stream_options stream = asynchronous();
  setCaps(group, 24, false, true);
  const Dispatched out = dispatch(group, work.test, work.inputs, nullptr, stream);
  const std::vector<fa2a_array> x = out.x.arrays();
  const Combined sum = combine(group, out.handle.get(), x, {}, {}, {}, stream);
  const auto& ranks = fa2a::stateOf(group)->ranks;
  const bool hadBulk = ranks[0]->hasBulk;
  for (const int sms : {8, 16, 24, 64, 132}) {
    setCaps(group, sms, false, true);
    double times[2][2] = {};
    for (const bool bulk : {true, false}) {
      for (const auto& rank : ranks) rank->hasBulk = bulk && hadBulk;
      PhaseTimes forward, back;
      for (int i = 0; i < 18; i++) {
        const Dispatched again = dispatch(group, work.test, work.inputs, out.handle.get(), stream, &out);
        const Combined more = combine(group, out.handle.get(), x, {}, {}, {}, stream, &sum);
        if (i < 3) continue;
        forward.add(again.event.get());
        back.add(more.event.get());
      }
      times[bulk][0] = forward.of("push");
      times[bulk][1] = back.of("return");
    }
    std::printf("  %6d %12.1f %12.1f %14.1f %14.1f\n", sms, times[1][0], times[0][0], times[1][1], times[0][1]);
  }
  for (const auto& rank : ranks) rank->hasBulk = hadBulk;
}

/** Host time to enqueue, and the same work from a CUDA graph. */
void overhead(fa2a_group* group, const Shape& shape) {
  const Workload work = makeWorkload(group, shape, FA2A_HYBRID_EP, FA2A_BF16, 9);
  setCaps(group, 24, false, false);
  const fa2a_stream_options stream = asynchronous();
  const Dispatched out = dispatch(group, work.test, work.inputs, nullptr, stream);
  const std::vector<fa2a_array> x = out.x.arrays();
  const Combined sum = combine(group, out.handle.get(), x, {}, {}, {}, stream);
  FA2A_CALL(fa2a_group_synchronize, group);
  const auto measure = [&](const std::function<void()>& run) {
    std::vector<double> enqueue, whole;
    for (int i = 0; i < shape.repeats + 5; i++) {
      const double start = nowUs();
      run();
      const double enqueued = nowUs();
      FA2A_CALL(fa2a_group_synchronize, group);
      if (i < 5) continue;
      enqueue.push_back(enqueued - start);
      whole.push_back(nowUs() - start);
    }
    return std::pair(median(enqueue), median(whole));
  };
  const auto plain = measure([&] {
    dispatch(group, work.test, work.inputs, nullptr, stream, &out);
    combine(group, out.handle.get(), x, {}, {}, {}, stream, &sum);
  });
  FA2A_CALL(fa2a_graph_begin, group);
  dispatch(group, work.test, work.inputs, nullptr, stream, &out);
  combine(group, out.handle.get(), x, {}, {}, {}, stream, &sum);
  fa2a_graph* raw = nullptr;
  FA2A_CALL(fa2a_graph_end, group, &raw);
  const Graph graph(raw);
  const auto replayed = measure([&] {
    fa2a_event* event = nullptr;
    FA2A_CALL(fa2a_graph_launch, graph.get(), &event);
    const Event owner(event);
  });
  std::printf("\n%d tokens per rank, dispatch + combine, host clock: calls %.1f us to enqueue, %.1f us to the end; CUDA graph %.1f us and %.1f us\n",
              shape.tokens, plain.first, plain.second, replayed.first, replayed.second);
}

}  // namespace

int bench(const Options& options) {
  const Shape shape = {static_cast<int>(option(options, "ranks", 8)),    static_cast<int>(option(options, "tokens", 4096)),
                       option(options, "hidden", 7168),                  static_cast<int>(option(options, "topk", 8)),
                       static_cast<int>(option(options, "experts", 256)), static_cast<int>(option(options, "repeats", 50))};
  const auto sms = static_cast<int>(option(options, "sms", 24));
  fa2a_device_info device;
  FA2A_CALL(fa2a_device, 0, &device);
  fa2a_driver_info driver;
  FA2A_CALL(fa2a_driver, &driver);
  std::printf("%s (%d SMs), %s, %s, %s\n%d ranks x %d tokens x %lld, top-%d of %d; every rank on device 0: all traffic is local memory\n",
              device.name, device.num_sms, driver.message, driver.architectures, driver.compiler, shape.ranks, shape.tokens,
              static_cast<long long>(shape.hidden), shape.topk, shape.experts);
  const std::vector<int32_t> devices(static_cast<size_t>(shape.ranks), 0);
  fa2a_group_options create = {};
  create.num_ranks = shape.ranks;
  create.devices = devices.data();
  const auto inGroup = [&](const std::function<void(fa2a_group*)>& run) {
    const Group group(create);
    run(group.get());
  };
  inGroup([&](fa2a_group* g) { benchKind(g, shape, FA2A_HYBRID_EP, FA2A_BF16, "hybrid-ep bf16", false, sms); });
  inGroup([&](fa2a_group* g) { benchKind(g, shape, FA2A_HYBRID_EP, FA2A_BF16, "hybrid-ep bf16", true, sms); });
  inGroup([&](fa2a_group* g) { benchKind(g, shape, FA2A_FUSED, FA2A_BF16, "fused bf16", false, sms); });
  inGroup([&](fa2a_group* g) { benchKind(g, shape, FA2A_FUSED, FA2A_BF16, "fused bf16", true, sms); });
  inGroup([&](fa2a_group* g) { benchKind(g, shape, FA2A_HYBRID_EP, FA2A_FP8E4M3, "hybrid-ep fp8", false, sms); });
  inGroup([&](fa2a_group* g) { sweep(g, shape); });
  inGroup([&](fa2a_group* g) { copyPaths(g, shape); });
  Shape small = shape;
  small.tokens = std::min(128, shape.tokens);
  for (const Shape& one : {shape, small}) inGroup([&](fa2a_group* g) { overhead(g, one); });
  return 0;
}

}  // namespace selftest
