#include "../kernels/counts.h"
#include "network.h"

#include <algorithm>
#include <set>

namespace fa2a {

namespace {

constexpr size_t REGION = 256;

/** Moves `at` past a region of `bytes`; returns where it began. */
size_t region(size_t& at, size_t bytes) {
  const size_t start = at;
  at += (bytes + REGION - 1) / REGION * REGION;
  return start;
}

template <class T>
T orDefault(T value, T other) {
  return value == 0 ? other : value;
}

}  // namespace

ArenaLayout arenaLayout(const fa2a_buffer_shape& shape) {
  const auto ranks = static_cast<size_t>(shape.num_ranks);
  const auto experts = static_cast<size_t>(shape.num_experts);
  kernels::Shape counted = {};
  counted.numRanks = shape.num_ranks;
  counted.ranksPerNode = orDefault(shape.ranks_per_node, shape.num_ranks);
  counted.numExperts = shape.num_experts;
  const auto buckets = static_cast<size_t>(kernels::numBuckets(counted)), words = static_cast<size_t>(kernels::countWords(counted));
  const auto tokens = static_cast<size_t>(shape.num_tokens);
  const size_t tiles = (tokens + kernels::TILE_TOKENS - 1) / kernels::TILE_TOKENS;
  const size_t groups = std::min(static_cast<size_t>(shape.topk), ranks);
  ArenaLayout layout;
  size_t at = 0;
  region(at, ranks * sizeof(kernels::RankView));
  layout.tableOffset = region(at, ranks * words * sizeof(int32_t));
  layout.tilesOffset = region(at, tiles * buckets * sizeof(int32_t));
  layout.beginOffset = region(at, std::max(ranks, experts) * sizeof(int32_t));
  layout.wantedOffset = region(at, experts * sizeof(int32_t));
  layout.bytes.counts = static_cast<int64_t>(at);
  const bool pull = shape.combine_path == FA2A_COMBINE_PULL;
  const size_t rows = pull ? static_cast<size_t>(shape.num_rows) : tokens * groups;
  layout.stagingOffset = region(at, rows * static_cast<size_t>(shape.row_bytes));
  layout.bytes.staging = static_cast<int64_t>(at) - layout.bytes.counts;
  const size_t weightBytes = static_cast<size_t>(shape.topk) * sizeof(float);
  layout.stagingWeightsOffset = region(at, shape.weights != 0 ? rows * weightBytes : 0);
  layout.bytes.total = static_cast<int64_t>(at);
  layout.bytes.staging_weights = layout.bytes.total - layout.bytes.counts - layout.bytes.staging;
  return layout;
}

Group::Group(const fa2a_group_options& options) {
  numRanks_ = options.num_ranks;
  ranksPerNode_ = orDefault(options.ranks_per_node, options.num_ranks);
  const int32_t numLocal = orDefault(options.num_local_ranks, options.num_ranks);
  if (numRanks_ < 1) failArgument("num_ranks", "at least 1", std::to_string(numRanks_), "pass the size of the group");
  if (ranksPerNode_ < 1 || numRanks_ % ranksPerNode_ != 0) {
    failArgument("ranks_per_node", format("a divisor of num_ranks %d", numRanks_), std::to_string(ranksPerNode_),
                 "every node must hold the same number of ranks");
  }
  if (numLocal < 1 || numLocal > numRanks_) {
    failArgument("num_local_ranks", format("1..%d", numRanks_), std::to_string(numLocal), "count the ranks of this process");
  }
  const bool several = numLocal != numRanks_;
  if (several) {
    checkProcess(options, ranksPerNode_);
    requireNccl();
  }
  int numDevices = 0;
  const cudaError_t counted = cudaGetDeviceCount(&numDevices);
  if (counted != cudaSuccess || numDevices < 1) {
    cudaGetLastError();
    fa2a_driver_info info;
    fa2a_driver(&info, nullptr);
    failMessage(FA2A_UNAVAILABLE, info.message);
  }
  for (int32_t local = 0; local < numLocal; local++) {
    const int32_t rank = options.local_ranks == nullptr ? local : options.local_ranks[local];
    const int32_t wanted = local + (several && options.local_ranks != nullptr ? options.local_ranks[0] : 0);
    if (rank != wanted || rank >= numRanks_) {
      failArgument("local_ranks", several ? "the ranks of one process, ascending" : "ascending ranks from 0",
                   std::to_string(rank), "list every rank once");
    }
    const int64_t spread = static_cast<int64_t>(local) * numDevices / std::max(numLocal, numDevices);
    const int32_t device = options.devices == nullptr ? static_cast<int32_t>(numLocal > numDevices ? spread : local)
                                                      : options.devices[local];
    if (device < 0 || device >= numDevices) {
      failArgument("devices", format("0..%d", numDevices - 1), std::to_string(device), "pick a visible device",
                   {.rank = rank});
    }
    ranks.push_back(std::make_shared<Rank>(rank, device, numRanks_));
  }
  enablePeers();
  configure(options, true);
  if (several) network = std::make_unique<Network>(*this, options);
}

Group::~Group() = default;

void Group::requireOneProcess(const char* what) const {
  if (network == nullptr) return;
  fail(FA2A_UNAVAILABLE, what, "a group whose ranks are all in this process", "one over several processes",
       "use a group of one process");
}

bool Group::waitFor(cudaEvent_t event, const Deadline& deadline, int32_t rank) {
  if (network == nullptr) return fa2a::waitFor(event, deadline, rank);
  for (;;) {
    // Short turns, so that a broken connection ends the wait before the deadline.
    Deadline turn(20);
    if (deadline.passed()) return false;
    if (deadline.milliseconds >= 0) turn.end = std::min(turn.end, deadline.end);
    const bool done = fa2a::waitFor(event, turn, rank);
    const std::string why = network->failure();
    if (!why.empty()) {
      const std::string table = network->table();
      network->abort(why);
      failMessage(FA2A_BACKEND_FAILURE, operation + ": " + why + table + "; close the group", rank, false);
    }
    if (done) return true;
  }
}

void Group::giveUp() {
  if (network == nullptr) return;
  network->abort("network: an operation failed before");
  try {
    for (const auto& rank : ranks) rank->synchronize();
    release();
    for (const auto& rank : ranks) rank->pool->trim();
  } catch (const Failure&) {
    // A device that does not answer keeps its memory until the process ends.
  }
}

void Group::enablePeers() {
  std::set<int> devices;
  for (const auto& rank : ranks) devices.insert(rank->device);
  for (const int from : devices) {
    OnDevice on(from);
    for (const int to : devices) {
      if (from == to) continue;
      int can = 0;
      check(cudaDeviceCanAccessPeer(&can, from, to), "cudaDeviceCanAccessPeer");
      if (!can) {
        fail(FA2A_UNAVAILABLE, "devices", "devices that reach each other's memory",
             format("device %d cannot reach device %d", from, to),
             "use devices of one NVLink domain (doctor prints the peer matrix) or fewer devices");
      }
      const cudaError_t error = cudaDeviceEnablePeerAccess(to, 0);
      if (error == cudaErrorPeerAccessAlreadyEnabled) {
        cudaGetLastError();
      } else {
        check(error, "cudaDeviceEnablePeerAccess");
      }
    }
  }
}

void Group::configure(const fa2a_group_options& options, bool creating) {
  const auto take = [creating](auto& own, auto given) {
    if (given != 0 || creating) own = given;
  };
  const int32_t caps[] = {options.num_sms, options.num_sms_dispatch, options.num_sms_combine,
                          options.num_sms_preprocessing, options.num_blocks_permute, options.num_blocks_unpermute};
  for (const int32_t cap : caps) {
    if (cap < 0) failArgument("num_sms", "at least 1", std::to_string(cap), "pass 0 for the default");
  }
  take(options_.num_sms, options.num_sms);
  take(options_.num_sms_dispatch, options.num_sms_dispatch);
  take(options_.num_sms_combine, options.num_sms_combine);
  take(options_.num_sms_preprocessing, options.num_sms_preprocessing);
  take(options_.num_blocks_permute, options.num_blocks_permute);
  take(options_.num_blocks_unpermute, options.num_blocks_unpermute);
  take(options_.deadline_ms, options.deadline_ms == 0 && creating ? 60000 : options.deadline_ms);
  options_.combine_path = options.combine_path;
  options_.record_timings = options.record_timings;
  for (const auto& rank : ranks) rank->deadlineMs = options_.deadline_ms;
}

void Group::setNumSms(int32_t numSms) {
  if (numSms < 1) failArgument("numSms", "at least 1", std::to_string(numSms), "pass a number of SMs");
  options_.num_sms = numSms;
}

bool Group::onOneDevice() const {
  return std::all_of(ranks.begin(), ranks.end(), [&](const auto& rank) { return rank->device == ranks[0]->device; });
}

unsigned Group::blocks(Work work, const Rank& rank, int32_t operationCap, int64_t needed) const {
  constexpr int32_t DEFAULT_LINK_SMS = 24;
  const bool link = work == Work::Dispatch || work == Work::Combine;
  int32_t own = 0;
  switch (work) {
    case Work::Preprocessing: own = options_.num_sms_preprocessing; break;
    case Work::Dispatch: own = options_.num_sms_dispatch; break;
    case Work::Permute: own = options_.num_blocks_permute; break;
    case Work::Combine: own = options_.num_sms_combine; break;
    case Work::Unpermute: own = options_.num_blocks_unpermute; break;
  }
  int32_t cap = orDefault(own, orDefault(options_.num_sms, link ? DEFAULT_LINK_SMS : rank.numSms));
  if (operationCap > 0) cap = operationCap;
  return static_cast<unsigned>(std::max<int64_t>(1, std::min<int64_t>(std::min(cap, rank.numSms), needed)));
}

void Group::requireOpen() const {
  if (closed) failArgument("group", "an open group", "a closed one", "create another");
  if (!usable) failMessage(FA2A_BACKEND_FAILURE, "group: expected a usable group, received one whose device work failed; close it", -1, false);
}

void Group::reserve(size_t bytes) {
  if (ranks[0]->arenaBytes >= bytes && ranks[0]->arena != nullptr) return;
  if (capture != nullptr) {
    failArgument("communication memory", format("%zu bytes", bytes), format("%zu", ranks[0]->arenaBytes),
                 "run the operation once before capturing it, or reserve that much");
  }
  synchronize();
  if (ranks[0]->arena != nullptr) reallocations++;
  release();
  for (const auto& rank : ranks) {
    OnDevice on(rank->device);
    void* memory = nullptr;
    cudaError_t error = cudaMalloc(&memory, bytes);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      rank->pool->trim();
      error = cudaMalloc(&memory, bytes);
    }
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      release();
      fail(FA2A_OUT_OF_MEMORY, "communication memory", format("%zu bytes on device %d", bytes, rank->device),
           "not that much", "lower numTokens or topk, or free tensors", {.rank = rank->rank});
    }
    check(error, "cudaMalloc", rank->rank);
    rank->arena = static_cast<char*>(memory);
    rank->arenaBytes = bytes;
  }
  // A rank of another node is reached through the local rank on its rail.
  std::vector<char*> table;
  for (int32_t rank = 0; rank < numRanks_; rank++) table.push_back(ranks[static_cast<size_t>(rank) % ranks.size()]->arena);
  for (const auto& rank : ranks) rank->upload(rank->arenaTable, table.data(), table.size() * sizeof(char*));
}

void Group::release() {
  for (const auto& rank : ranks) {
    OnDevice on(rank->device);
    if (rank->arena != nullptr) check(cudaFree(rank->arena), "cudaFree", rank->rank);
    rank->arena = nullptr;
    rank->arenaBytes = 0;
  }
}

kernels::Arenas Group::arenas(size_t local, const ArenaLayout& layout) const {
  return {ranks[local]->arenaTable, layout.tableOffset, layout.stagingOffset, layout.stagingWeightsOffset};
}

void Group::synchronize() {
  try {
    for (const auto& rank : ranks) rank->synchronize();
  } catch (const Failure& failure) {
    if (failure.error.code != FA2A_TIMEOUT) throw;
    usable = false;
    failMessage(FA2A_TIMEOUT, failure.error.message + std::string("; ") + waitTable(), failure.error.rank, false);
  }
}

std::string Group::waitTable() const {
  std::string table = operation;
  for (size_t i = 0; i < barrierNames.size() && i < Rank::NUM_BARRIERS; i++) {
    std::string missing;
    size_t arrived = 0;
    for (const auto& rank : ranks) {
      if (cudaEventQuery(rank->arrived[i].get()) == cudaSuccess) {
        arrived++;
      } else {
        if (!missing.empty()) missing += ',';
        missing += std::to_string(rank->rank);
      }
    }
    cudaGetLastError();
    if (table.size() > 1200) break;
    table += format(", phase %s: expected %zu ranks, received %zu", barrierNames[i].c_str(), ranks.size(), arrived);
    if (!missing.empty()) table.append(" (missing ").append(missing).append(")");
  }
  return network == nullptr ? table : table + network->table();
}

void Group::close() {
  if (closed) return;
  closed = true;
  capture.reset();
  if (network != nullptr && !usable) giveUp();
  if (usable || network != nullptr) {
    synchronize();
    release();
    for (const auto& rank : ranks) rank->pool->trim();
  }
}

GraphState::~GraphState() {
  if (exec != nullptr) cudaGraphExecDestroy(exec);
  if (graph != nullptr) cudaGraphDestroy(graph);
}

}  // namespace fa2a
