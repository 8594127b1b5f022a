#include "network.h"

#include <algorithm>
#include <condition_variable>
#include <thread>

namespace fa2a {

namespace {

constexpr auto POLL = std::chrono::microseconds(100);

}  // namespace

HopRows::HopRows(const std::vector<std::vector<int64_t>>& counts) {
  for (const std::vector<int64_t>& part : counts) {
    places_.emplace_back();
    for (const int64_t rows : part) {
      places_.back().push_back({total, rows});
      total += rows;
    }
  }
}

HopRows::Range HopRows::part(int part) const {
  const std::vector<Range>& places = places_[static_cast<size_t>(part)];
  const Range& last = places.back();
  return {places[0].first, last.first + last.rows - places[0].first};
}

int64_t networkIdBytes(int32_t numRanks, int32_t ranksPerNode, int32_t numLocal) {
  const int64_t nodes = numRanks / ranksPerNode;
  const int64_t rails = nodes > 1 ? ranksPerNode : 0;
  return (rails + (numLocal < ranksPerNode ? nodes : 0)) * FA2A_NETWORK_ID_BYTES;
}

void checkProcess(const fa2a_group_options& options, int32_t ranksPerNode) {
  const int32_t first = options.local_ranks == nullptr ? 0 : options.local_ranks[0];
  const bool node = options.num_local_ranks == ranksPerNode && first % ranksPerNode == 0;
  if (!node && options.num_local_ranks != 1) {
    fail(FA2A_UNAVAILABLE, "local_ranks", format("the %d ranks of one node in each process, or one rank", ranksPerNode),
         format("%d ranks from rank %d", options.num_local_ranks, first),
         "start one process per host that drives all of its ranks, or one per rank");
  }
  const int64_t bytes = networkIdBytes(options.num_ranks, ranksPerNode, options.num_local_ranks);
  if (options.network_id == nullptr || options.network_id_bytes != bytes) {
    failArgument("network_id", format("%lld bytes of fa2a_network_id", static_cast<long long>(bytes)),
                 options.network_id == nullptr ? "none" : std::to_string(options.network_id_bytes),
                 "bring the id that one process made to all of them");
  }
}

Network::Network(Group& group, const fa2a_group_options& options)
    : group_(group), api_(requireNccl()), ranksPerProcess_(static_cast<int>(group.numLocal())) {
  sent.resize(group.numLocal());
  const bool rails = group.numRanks() > group.ranksPerNode();
  const uint8_t* id = options.network_id;
  try {
    if (rails) open(HopKind::Rail, id, false);
    if (rails) id += int64_t{group.ranksPerNode()} * FA2A_NETWORK_ID_BYTES;
    if (ranksPerProcess_ < group.ranksPerNode()) open(HopKind::Node, id, true);
  } catch (const Failure&) {
    endAll(api_.CommAbort);
    throw;
  }
}

void Network::meet() {
  const Deadline deadline = group_.deadline();
  for (const HopKind kind : HOPS) {
    for (size_t local = 0; !met_ && has(kind) && local < sent.size(); local++) {
      const int32_t rank = group_.ranks[local]->rank;
      for (bool settled = false; !settled;) {
        {
          // Let go between two looks: another thread may abort.
          const std::lock_guard lock(mutex_);
          if (!aborted_.empty()) failMessage(FA2A_BACKEND_FAILURE, aborted_, rank, false);
          settled = isSettled("meeting the other processes", rail(kind, local), rank, deadline);
        }
        if (!settled) std::this_thread::sleep_for(POLL);
      }
    }
  }
  met_ = true;
}

void Network::open(HopKind kind, const uint8_t* ids, bool ofNode) {
  hops_[static_cast<size_t>(kind)].resize(group_.numLocal());
  for (size_t local = 0; local < group_.numLocal(); local++) {
    Rank& rank = *group_.ranks[local];
    Rail& rail = this->rail(kind, local);
    OnDevice on(rank.device);
    rail.stream = Stream(rank.device, rank.rank);
    rail.ready = Event(rank.device, false);
    for (auto& plane : rail.arrived) {
      for (Event& event : plane) event = Event(rank.device, false);
    }
    const int32_t which = ofNode ? rank.rank / group_.ranksPerNode() : rank.rank % group_.ranksPerNode();
    nccl::UniqueId id;
    std::memcpy(&id, ids + int64_t{which} * FA2A_NETWORK_ID_BYTES, sizeof id);
    // Not blocking, so that a process that never comes is a timeout and no hang.
    nccl::Config config;
    config.blocking = 0;
    const nccl::Result result = api_.CommInitRankConfig(&rail.comm, hop(kind, rank).count, id, placeOf(kind, rank), &config);
    if (result != nccl::Result::InProgress) call(result, "ncclCommInitRankConfig", rail, rank.rank);
  }
}

Network::~Network() { endAll(met_ && aborted_.empty() ? api_.CommDestroy : api_.CommAbort); }

void Network::endAll(nccl::Result (*end)(nccl::Comm)) {
  // Over a real NCCL the process beside a stopped one did not go on while this was waited for (docs/gpu/nccl.txt): nobody
  // waits longer than this, and a thread that is left in there ends with the process.
  constexpr auto PATIENCE = std::chrono::seconds(3);
  struct Left {
    std::mutex mutex;
    std::condition_variable none;
    int count = 0;
  };
  const auto left = std::make_shared<Left>();
  for (auto& hop : hops_) {
    for (Rail& rail : hop) {
      if (rail.comm == nullptr) continue;
      const std::lock_guard lock(left->mutex);
      left->count++;
      std::thread([end, left, comm = std::exchange(rail.comm, nullptr)] {
        end(comm);
        const std::lock_guard done(left->mutex);
        if (--left->count == 0) left->none.notify_all();
      }).detach();
    }
  }
  std::unique_lock lock(left->mutex);
  left->none.wait_for(lock, PATIENCE, [&] { return left->count == 0; });
}

kernels::Hop Network::hop(HopKind kind, const Rank& rank) const {
  const int perNode = group_.ranksPerNode();
  if (kind == HopKind::Rail) return {true, rank.rank % perNode, perNode, group_.numRanks() / perNode, ranksPerProcess_};
  return {false, rank.rank / perNode * perNode, 1, perNode, ranksPerProcess_};
}

int Network::placeOf(HopKind kind, const Rank& rank) const {
  return kind == HopKind::Rail ? rank.rank / group_.ranksPerNode() : rank.rank % group_.ranksPerNode();
}

void Network::abortAll(const std::string& why) {
  left_ = outstanding();
  aborted_ = why;
  endAll(api_.CommAbort);
}

void Network::call(nccl::Result result, const char* what, Rail& rail, int32_t rank) {
  if (result == nccl::Result::Success) return;
  if (result == nccl::Result::InProgress) return settle(what, rail, rank);
  const std::string detail = api_.GetLastError(rail.comm);
  abortAll(format("network: %s on rank %d: expected success, received %s (%s); close the group", what, rank,
                  api_.GetErrorString(result), detail.c_str()));
  failMessage(FA2A_BACKEND_FAILURE, aborted_, rank, false);
}

void Network::settle(const char* what, Rail& rail, int32_t rank) {
  const Deadline deadline = group_.deadline();
  while (!isSettled(what, rail, rank, deadline)) std::this_thread::sleep_for(POLL);
}

bool Network::isSettled(const char* what, Rail& rail, int32_t rank, const Deadline& deadline) {
  nccl::Result state = nccl::Result::Success;
  api_.CommGetAsyncError(rail.comm, &state);
  if (state != nccl::Result::InProgress) {
    call(state, what, rail, rank);
    return true;
  }
  if (!deadline.passed()) return false;
  abortAll(format("network: %s on rank %d: expected an answer of the other processes within %lld ms, received none; look "
                  "at them",
                  what, rank, static_cast<long long>(deadline.milliseconds)));
  failMessage(FA2A_TIMEOUT, aborted_, rank, false);
}

void Network::begin() {
  meet();
  const std::lock_guard lock(mutex_);
  steps_.clear();
}

void Network::gather(Operation& operation, HopKind kind, size_t local, char* table, size_t bytes) {
  const std::lock_guard lock(mutex_);
  Rank& rank = *group_.ranks[local];
  Rail& rail = this->rail(kind, local);
  if (!aborted_.empty()) failMessage(FA2A_BACKEND_FAILURE, aborted_, rank.rank, false);
  OnDevice on(rank.device);
  const int place = placeOf(kind, rank);
  const kernels::Hop hop = this->hop(kind, rank);
  operation.timed(rank, rank.comm, kind == HopKind::Rail ? "network counts" : "node counts", true, -1, [&] {
    const char* own = table + static_cast<size_t>(place) * bytes;
    call(api_.AllGather(own, table, bytes, nccl::DataType::Uint8, rail.comm, rank.comm), "ncclAllGather", rail, rank.rank);
  });
  sent[local].count_bytes += static_cast<int64_t>(bytes) * (hop.count - 1);
  const auto done = std::make_shared<Event>(rank.device, false);
  done->record(rank.comm);
  for (int other = 0; other < hop.count; other++) {
    if (other != place) steps_.push_back({"counts", rank.rank, hop.first + other * hop.stride, static_cast<int64_t>(bytes), done});
  }
}

void connect(Group& group) {
  if (group.network == nullptr) return;
  Network& network = *group.network;
  Operation operation(group, "connecting", {});
  std::vector<Memory> words;
  for (const HopKind kind : HOPS) {
    for (size_t local = 0; network.has(kind) && local < group.numLocal(); local++) {
      Rank& rank = *group.ranks[local];
      OnDevice on(rank.device);
      const auto places = static_cast<size_t>(network.hop(kind, rank).count);
      constexpr size_t WORD = sizeof(int32_t);
      const HopRows each({std::vector<int64_t>(places, 1)});
      for (int i = 0; i < 2; i++) {
        words.push_back(rank.pool->take(places * WORD));
        check(cudaMemsetAsync(words.back().data(), 0, places * WORD, rank.comm), "cudaMemset", rank.rank);
      }
      char* sent = words[words.size() - 2].data();
      network.gather(operation, kind, local, sent, WORD);
      network.exchange(operation, kind, local, "connecting", -1, {sent, &each}, {words.back().data(), &each}, WORD);
      network.arrive(kind, local, -1);
      network.sent[local] = {};
    }
  }
  operation.finish(nullptr);
}

void Network::exchange(Operation& operation, HopKind kind, size_t local, const char* phase, int part, const RowBuffer& from,
                       const RowBuffer& to, size_t rowBytes, int plane) {
  const std::lock_guard lock(mutex_);
  Rank& rank = *group_.ranks[local];
  Rail& rail = this->rail(kind, local);
  if (!aborted_.empty()) failMessage(FA2A_BACKEND_FAILURE, aborted_, rank.rank, false);
  OnDevice on(rank.device);
  rail.ready.record(rank.comm);
  check(cudaStreamWaitEvent(rail.stream, rail.ready.get(), 0), "cudaStreamWaitEvent", rank.rank);
  const kernels::Hop hop = this->hop(kind, rank);
  const int own = placeOf(kind, rank);
  const int firstPart = std::max(0, part), endPart = part < 0 ? from.rows->numParts() : part + 1;
  std::vector<Step> steps;
  // The ring's next step has one place to send to and one to receive from.
  const auto pair = [&](int dst, int src) {
    size_t expected = 0;
    for (int which = firstPart; which < endPart; which++) {
      const HopRows::Range sent = from.rows->at(which, dst), received = to.rows->at(which, src);
      const auto at = [&](const RowBuffer& buffer, int64_t row) { return buffer.data + static_cast<size_t>(row) * rowBytes; };
      const auto bytes = [&](const HopRows::Range& rows) { return static_cast<size_t>(rows.rows) * rowBytes; };
      if (sent.rows > 0) {
        call(api_.Send(at(from, sent.first), bytes(sent), nccl::DataType::Uint8, dst, rail.comm, rail.stream), "ncclSend", rail, rank.rank);
      }
      if (received.rows > 0) {
        call(api_.Recv(at(to, received.first), bytes(received), nccl::DataType::Uint8, src, rail.comm, rail.stream), "ncclRecv", rail,
             rank.rank);
      }
      expected += bytes(received);
    }
    if (expected == 0) return;
    const std::string name = part < 0 ? phase : format("%s %d of %d", phase, part + 1, from.rows->numParts());
    steps.push_back({name, rank.rank, hop.first + src * hop.stride, static_cast<int64_t>(expected), nullptr});
  };
  const auto moves = [&](int dst, int src) {
    for (int which = firstPart; which < endPart; which++) {
      if (from.rows->at(which, dst).rows > 0 || to.rows->at(which, src).rows > 0) return true;
    }
    return false;
  };
  std::vector<std::pair<int, int>> pairs;
  for (int step = 1; step < hop.count; step++) {
    const int dst = (own + step) % hop.count, src = (own + hop.count - step) % hop.count;
    if (moves(dst, src)) pairs.emplace_back(dst, src);
  }
  // Timed, each step is a phase of its own and tells whose rows were slow; else all are one group. Both sides may differ in that.
  const size_t together = group_.recordTimings() ? 1 : pairs.size();
  for (size_t first = 0; first < pairs.size(); first += together) {
    operation.timed(rank, rail.stream, phase, false, together == 1 ? hop.first + pairs[first].second * hop.stride : -1, [&] {
      call(api_.GroupStart(), "ncclGroupStart", rail, rank.rank);
      for (size_t i = first; i < first + together; i++) pair(pairs[i].first, pairs[i].second);
      call(api_.GroupEnd(), "ncclGroupEnd", rail, rank.rank);
    });
    const auto done = std::make_shared<Event>(rank.device, false);
    done->record(rail.stream);
    for (Step& step : steps) step.done = done;
    steps_.insert(steps_.end(), steps.begin(), steps.end());
    steps.clear();
  }
  rail.arrived[plane][std::max(0, part)].record(rail.stream);
}

void Network::arrive(HopKind kind, size_t local, int part, int plane) {
  Rank& rank = *group_.ranks[local];
  OnDevice on(rank.device);
  const Event& arrived = rail(kind, local).arrived[plane][std::max(0, part)];
  check(cudaStreamWaitEvent(rank.comm, arrived.get(), 0), "cudaStreamWaitEvent", rank.rank);
}

std::string Network::failure() {
  const std::lock_guard lock(mutex_);
  if (!aborted_.empty()) return aborted_;
  for (const HopKind kind : HOPS) {
    for (size_t local = 0; has(kind) && local < sent.size(); local++) {
      nccl::Result state = nccl::Result::Success;
      api_.CommGetAsyncError(rail(kind, local).comm, &state);
      if (state == nccl::Result::Success || state == nccl::Result::InProgress) continue;
      return format("network: expected the %s of rank %d to work, received %s (%s)", kind == HopKind::Rail ? "rail" : "node",
                    group_.ranks[local]->rank, api_.GetErrorString(state), api_.GetLastError(rail(kind, local).comm));
    }
  }
  return "";
}

void Network::abort(const std::string& why) {
  const std::lock_guard lock(mutex_);
  if (aborted_.empty()) abortAll(why);
}

std::vector<fa2a_wait> Network::outstanding() {
  std::vector<fa2a_wait> waits;
  for (const Step& step : steps_) {
    const bool done = cudaEventQuery(step.done->get()) == cudaSuccess;
    cudaGetLastError();
    if (done) continue;
    fa2a_wait wait = {};
    wait.rank = step.rank;
    wait.src_rank = step.srcRank;
    wait.expected_bytes = step.bytes;
    std::snprintf(wait.phase, sizeof wait.phase, "%s", step.phase.c_str());
    waits.push_back(wait);
  }
  return waits;
}

std::vector<fa2a_wait> Network::waits() {
  const std::lock_guard lock(mutex_);
  return aborted_.empty() ? outstanding() : left_;
}

std::string Network::table() {
  const std::vector<fa2a_wait> all = waits();
  if (all.empty()) return "";
  const fa2a_wait& first = all.front();
  const std::string text = format("; rank %d, %s: expects %lld bytes of rank %d, not received", first.rank, first.phase,
                                  static_cast<long long>(first.expected_bytes), first.src_rank);
  return all.size() == 1 ? text : text + format(" (and %zu more)", all.size() - 1);
}

void Network::useLinks(const std::shared_ptr<HandleState>& handle, size_t rowBytes, bool dispatched) {
  links_.push_back({handle, rowBytes, dispatched});
}

void Network::settleLinks() {
  for (const LinkUse& use : links_) {
    for (size_t local = 0; local < sent.size(); local++) {
      const RankHandleState& own = use.handle->ranks[local];
      const kernels::Report& report = *own.pinned.report;
      const HandleHop& node = own.network->hop(HopKind::Node);
      const int64_t rows = use.dispatched ? report.linkRowsPushed + node.sent.total : report.linkRowsReturned + node.received.total;
      (use.dispatched ? sent[local].link_rows_dispatched : sent[local].link_rows_combined) += rows;
      sent[local].link_bytes += rows * static_cast<int64_t>(use.rowBytes);
    }
  }
  links_.clear();
}

}  // namespace fa2a

int64_t fa2a_network_id_bytes(int32_t numRanks, int32_t ranksPerNode, int32_t numLocalRanks) {
  const bool whole = numRanks >= 1 && ranksPerNode >= 1 && numRanks % ranksPerNode == 0 && numLocalRanks >= 1;
  return whole ? fa2a::networkIdBytes(numRanks, ranksPerNode, numLocalRanks) : 0;
}

fa2a_code fa2a_network_id(int32_t numRanks, int32_t ranksPerNode, int32_t numLocalRanks, uint8_t* id, fa2a_error* error) {
  using namespace fa2a;
  return guard(error, [&] {
    const int64_t bytes = fa2a_network_id_bytes(numRanks, ranksPerNode, numLocalRanks);
    if (bytes == 0 || id == nullptr) {
      failArgument("network_id", "a group of several processes and room for its id",
                   format("%d ranks, %d per node, %d per process", numRanks, ranksPerNode, numLocalRanks), "pass the group's sizes");
    }
    const nccl::Api& api = requireNccl();
    for (int64_t at = 0; at < bytes; at += FA2A_NETWORK_ID_BYTES) {
      nccl::UniqueId one;
      const nccl::Result result = api.GetUniqueId(&one);
      if (result != nccl::Result::Success) {
        failMessage(FA2A_BACKEND_FAILURE, format("ncclGetUniqueId: expected an id, received %s (%s)", api.GetErrorString(result),
                                                 api.GetLastError(nullptr)));
      }
      std::memcpy(id + at, &one, sizeof one);
    }
  });
}
