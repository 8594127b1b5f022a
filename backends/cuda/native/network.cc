#include "network.h"

#include <algorithm>
#include <thread>

namespace fa2a {

NodeRows::NodeRows(std::vector<int64_t> counts) : count(std::move(counts)) {
  for (const int64_t rows : count) {
    first.push_back(total);
    total += rows;
  }
}

void checkNode(const fa2a_group_options& options, int32_t ranksPerNode) {
  const int32_t first = options.local_ranks == nullptr ? 0 : options.local_ranks[0];
  if (options.num_local_ranks != ranksPerNode || first % ranksPerNode != 0) {
    fail(FA2A_UNAVAILABLE, "local_ranks", format("the %d ranks of one node in each process", ranksPerNode),
         format("%d ranks from rank %d", options.num_local_ranks, first),
         "start one process per host and let it drive all of its ranks");
  }
  const int64_t bytes = int64_t{ranksPerNode} * FA2A_NETWORK_ID_BYTES;
  if (options.network_id == nullptr || options.network_id_bytes != bytes) {
    failArgument("network_id", format("%lld bytes of fa2a_network_id", static_cast<long long>(bytes)),
                 options.network_id == nullptr ? "none" : std::to_string(options.network_id_bytes),
                 "bring the id that one process made to all of them");
  }
}

Network::Network(Group& group, const fa2a_group_options& options) : group_(group), api_(requireNccl()) {
  numNodes_ = group.numRanks() / group.ranksPerNode();
  node_ = group.ranks[0]->rank / group.ranksPerNode();
  rails_.resize(group.numLocal());
  sent.resize(group.numLocal());
  for (size_t local = 0; local < rails_.size(); local++) {
    Rank& rank = *group.ranks[local];
    Rail& rail = rails_[local];
    OnDevice on(rank.device);
    check(cudaStreamCreateWithFlags(&rail.stream, cudaStreamNonBlocking), "cudaStreamCreate", rank.rank);
    rail.ready = Event(rank.device, false);
    for (Event& event : rail.arrived) event = Event(rank.device, false);
    nccl::UniqueId id;
    std::memcpy(&id, options.network_id + local * FA2A_NETWORK_ID_BYTES, sizeof id);
    // Not blocking, so that a process that never comes is a timeout and no hang.
    nccl::Config config;
    config.blocking = 0;
    const nccl::Result result = api_.CommInitRankConfig(&rail.comm, numNodes_, id, node_, &config);
    if (result != nccl::Result::InProgress) call(result, "ncclCommInitRankConfig", local);
  }
  for (size_t local = 0; local < rails_.size(); local++) settle(local, "meeting the other nodes");
}

Network::~Network() {
  for (Rail& rail : rails_) {
    if (rail.comm != nullptr) (aborted_.empty() ? api_.CommDestroy : api_.CommAbort)(rail.comm);
    if (rail.stream != nullptr) cudaStreamDestroy(rail.stream);
  }
}

void Network::call(nccl::Result result, const char* what, size_t local) {
  if (result == nccl::Result::Success) return;
  if (result == nccl::Result::InProgress) return settle(local, what);
  const std::string detail = api_.GetLastError(rails_[local].comm);
  const std::string why = format("network: %s on rank %d: expected success, received %s (%s); close the group", what,
                                 group_.ranks[local]->rank, api_.GetErrorString(result), detail.c_str());
  for (Rail& rail : rails_) {
    if (rail.comm != nullptr) api_.CommAbort(std::exchange(rail.comm, nullptr));
  }
  aborted_ = why;
  failMessage(FA2A_BACKEND_FAILURE, why, group_.ranks[local]->rank, false);
}

void Network::settle(size_t local, const char* what) {
  const Deadline deadline = group_.deadline();
  for (;;) {
    nccl::Result state = nccl::Result::Success;
    api_.CommGetAsyncError(rails_[local].comm, &state);
    if (state != nccl::Result::InProgress) return call(state, what, local);
    if (deadline.passed()) {
      const std::string why = format("network: %s on rank %d: expected an answer of the other nodes within %lld ms, received "
                                     "none; look at their processes", what, group_.ranks[local]->rank,
                                     static_cast<long long>(deadline.milliseconds));
      for (Rail& rail : rails_) {
        if (rail.comm != nullptr) api_.CommAbort(std::exchange(rail.comm, nullptr));
      }
      aborted_ = why;
      failMessage(FA2A_TIMEOUT, why, group_.ranks[local]->rank, false);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

std::pair<int64_t, int64_t> Network::chunkOf(int64_t rows, int chunk) {
  const int64_t size = std::max(LEAST_CHUNK_ROWS, (rows + CHUNKS - 1) / CHUNKS);
  const int64_t first = std::min(rows, size * chunk);
  return {first, std::min(rows, first + size) - first};
}

void Network::begin() { steps_.clear(); }

void Network::gather(Operation& operation, size_t local, char* table, size_t bytes) {
  const std::lock_guard lock(mutex_);
  Rank& rank = *group_.ranks[local];
  if (!aborted_.empty()) failMessage(FA2A_BACKEND_FAILURE, aborted_, rank.rank, false);
  OnDevice on(rank.device);
  operation.timed(rank, rank.comm, "network counts", true, [&] {
    const char* own = table + static_cast<size_t>(node_) * bytes;
    call(api_.AllGather(own, table, bytes, nccl::DataType::Uint8, rails_[local].comm, rank.comm), "ncclAllGather", local);
  });
  sent[local].count_bytes += static_cast<int64_t>(bytes) * (numNodes_ - 1);
  steps_.push_back({"counts", local, Event(rank.device, false), format("the counts of %d other nodes", numNodes_ - 1)});
  steps_.back().done.record(rank.comm);
}

void Network::exchange(Operation& operation, size_t local, const char* phase, int chunk, const RowBuffer& from,
                       const RowBuffer& to, size_t rowBytes) {
  const std::lock_guard lock(mutex_);
  Rank& rank = *group_.ranks[local];
  Rail& rail = rails_[local];
  if (!aborted_.empty()) failMessage(FA2A_BACKEND_FAILURE, aborted_, rank.rank, false);
  OnDevice on(rank.device);
  rail.ready.record(rank.comm);
  check(cudaStreamWaitEvent(rail.stream, rail.ready.get(), 0), "cudaStreamWaitEvent", rank.rank);
  std::string expected;
  operation.timed(rank, rail.stream, phase, false, [&] {
    call(api_.GroupStart(), "ncclGroupStart", local);
    for (int node = 0; node < numNodes_; node++) {
      const auto part = [&](const RowBuffer& buffer, char*& at) {
        const auto n = static_cast<size_t>(node);
        const auto [first, rows] = chunkOf(buffer.rows->count[n], chunk);
        at = buffer.data + static_cast<size_t>(buffer.rows->first[n] + first) * rowBytes;
        return static_cast<size_t>(rows) * rowBytes;
      };
      char* at = nullptr;
      const size_t sendBytes = part(from, at);
      if (sendBytes > 0) call(api_.Send(at, sendBytes, nccl::DataType::Uint8, node, rail.comm, rail.stream), "ncclSend", local);
      const size_t receiveBytes = part(to, at);
      if (receiveBytes == 0) continue;
      call(api_.Recv(at, receiveBytes, nccl::DataType::Uint8, node, rail.comm, rail.stream), "ncclRecv", local);
      expected += format("%s%zu bytes of rank %d", expected.empty() ? "" : ", ", receiveBytes,
                         node * group_.ranksPerNode() + rank.rank % group_.ranksPerNode());
    }
    call(api_.GroupEnd(), "ncclGroupEnd", local);
  });
  rail.arrived[chunk].record(rail.stream);
  steps_.push_back({format("%s %d of %d", phase, chunk + 1, CHUNKS), local, Event(rank.device, false), expected});
  steps_.back().done.record(rail.stream);
}

void Network::arrive(size_t local, int chunk) {
  Rank& rank = *group_.ranks[local];
  OnDevice on(rank.device);
  check(cudaStreamWaitEvent(rank.comm, rails_[local].arrived[chunk].get(), 0), "cudaStreamWaitEvent", rank.rank);
}

std::string Network::failure() {
  const std::lock_guard lock(mutex_);
  for (size_t local = 0; local < rails_.size() && aborted_.empty(); local++) {
    nccl::Result state = nccl::Result::Success;
    api_.CommGetAsyncError(rails_[local].comm, &state);
    if (state == nccl::Result::Success || state == nccl::Result::InProgress) continue;
    return format("network: expected the rail of rank %d to work, received %s (%s)", group_.ranks[local]->rank,
                  api_.GetErrorString(state), api_.GetLastError(rails_[local].comm));
  }
  return aborted_;
}

void Network::abort(const std::string& why) {
  const std::lock_guard lock(mutex_);
  if (!aborted_.empty()) return;
  aborted_ = why;
  for (Rail& rail : rails_) {
    if (rail.comm != nullptr) api_.CommAbort(std::exchange(rail.comm, nullptr));
  }
}

bool Network::aborted() {
  const std::lock_guard lock(mutex_);
  return !aborted_.empty();
}

std::string Network::table() {
  std::string text;
  for (const Step& step : steps_) {
    const bool done = cudaEventQuery(step.done.get()) == cudaSuccess;
    cudaGetLastError();
    if (done) continue;
    text += format("; rank %d, %s: expects %s, not received", group_.ranks[step.local]->rank, step.phase.c_str(),
                   step.expected.empty() ? "nothing" : step.expected.c_str());
    if (text.size() > 1200) break;
  }
  return text;
}

}  // namespace fa2a

fa2a_code fa2a_network_id(int32_t numRails, uint8_t* id, fa2a_error* error) {
  using namespace fa2a;
  return guard(error, [&] {
    if (numRails < 1 || id == nullptr) failArgument("num_rails", "at least 1 and room for the ids", std::to_string(numRails), "pass ranks_per_node");
    const nccl::Api& api = requireNccl();
    for (int32_t rail = 0; rail < numRails; rail++) {
      nccl::UniqueId one;
      const nccl::Result result = api.GetUniqueId(&one);
      if (result != nccl::Result::Success) {
        failMessage(FA2A_BACKEND_FAILURE, format("ncclGetUniqueId: expected an id, received %s (%s)", api.GetErrorString(result),
                                                 api.GetLastError(nullptr)));
      }
      std::memcpy(id + static_cast<size_t>(rail) * FA2A_NETWORK_ID_BYTES, &one, sizeof one);
    }
  });
}
