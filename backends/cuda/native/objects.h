// The objects behind the C pointers: tensors, handles, events. Each pointer of the C interface is a box with a tag and a
// shared reference.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "rank.h"

namespace fa2a {

class Group;

struct Tensor {
  std::shared_ptr<Rank> rank;
  fa2a_dtype dtype = FA2A_U8;
  int64_t rows = 0;
  int64_t columns = 0;
  Memory memory;

  size_t bytes() const { return static_cast<size_t>(rows * columns * fa2a_dtype_bytes(dtype)); }
};

/** A pinned report of one rank. */
struct PinnedReport {
  PinnedReport() = default;
  explicit PinnedReport(std::shared_ptr<Rank> owner)
      : rank(std::move(owner)), report(static_cast<kernels::Report*>(rank->pinned.take())) {}
  ~PinnedReport() {
    if (report != nullptr) rank->pinned.put(report);
  }
  PinnedReport(PinnedReport&& other) noexcept { *this = std::move(other); }
  PinnedReport& operator=(PinnedReport&& other) noexcept {
    std::swap(rank, other.rank);
    std::swap(report, other.report);
    return *this;
  }
  std::shared_ptr<Rank> rank;
  kernels::Report* report = nullptr;
};

struct HandleState;

/** One stretch of an operation on one rank, between two events. */
struct TimedPhase {
  int32_t rank;
  std::string name;
  bool waiting;
  /** Whose rows or arrival it waits for; -1 = nobody's alone. */
  int32_t srcRank;
  Event start;
  Event end;
};

struct EventState {
  std::string operation;
  std::vector<std::shared_ptr<Rank>> ranks;
  /** One per rank: the end of the operation there. */
  std::vector<Event> done;
  std::vector<TimedPhase> phases;
  /** Group that runs it, for the table of a timeout; and the handle whose reports tell of bad ids. */
  std::weak_ptr<Group> group;
  std::weak_ptr<HandleState> handle;
  /** Waited for, and nothing had failed: what comes after cannot harm its results. */
  std::atomic<bool> settled{false};
};

struct RankNetwork;

/** The part of a handle that lives with one rank. */
struct RankHandleState {
  std::shared_ptr<Rank> rank;
  int32_t numTokens = 0;
  int32_t numRows = 0;
  Memory source;
  Memory destination;
  kernels::Report* report = nullptr;
  kernels::SendLists send = {};
  int32_t* slotExpert = nullptr;
  int32_t* slotRow = nullptr;
  int32_t* expertRow = nullptr;
  int32_t* tokensPerExpert = nullptr;
  int32_t* numTokensPerExpert = nullptr;
  kernels::Rows rows = {};
  /** Fused with a budget: recv ids, which the counts of kept slots are taken from. */
  Memory ownIds;
  PinnedReport pinned;
  /** Uploaded handles bring their list of cut slots. */
  std::vector<int32_t> cut;
  /** Groups over several processes. */
  std::shared_ptr<RankNetwork> network;
};

struct HandleState {
  fa2a_handle_meta meta = {};
  int32_t width = 0;
  bool uploaded = false;
  bool wideIds = false;
  std::vector<RankHandleState> ranks;
  std::mutex mutex;
  /** The operation that wrote the handle last. */
  std::shared_ptr<EventState> ready;

  bool hybrid() const { return meta.kind == FA2A_HYBRID_EP; }
  int32_t expertsPerRank() const { return meta.num_experts / meta.num_ranks; }
  int32_t groups() const { return meta.topk < meta.num_ranks ? meta.topk : meta.num_ranks; }
  int32_t budget() const;
  kernels::Shape shape(size_t local) const;
};

struct GraphState;

template <class State>
struct Box {
  uint32_t tag;
  std::shared_ptr<State> state;
};

}  // namespace fa2a

/** Freed boxes carry another tag: a second free or a late use is recognised while the memory is not reused. */
struct fa2a_group : fa2a::Box<fa2a::Group> {};
struct fa2a_tensor : fa2a::Box<fa2a::Tensor> {};
struct fa2a_handle : fa2a::Box<fa2a::HandleState> {};
struct fa2a_event : fa2a::Box<fa2a::EventState> {};
struct fa2a_graph : fa2a::Box<fa2a::GraphState> {};

namespace fa2a {

template <class Public>
struct TagOf;
template <>
struct TagOf<fa2a_group> {
  static constexpr uint32_t TAG = 0xfa2a0001;
  static constexpr const char* NAME = "group";
};
template <>
struct TagOf<fa2a_tensor> {
  static constexpr uint32_t TAG = 0xfa2a0002;
  static constexpr const char* NAME = "tensor";
};
template <>
struct TagOf<fa2a_handle> {
  static constexpr uint32_t TAG = 0xfa2a0003;
  static constexpr const char* NAME = "handle";
};
template <>
struct TagOf<fa2a_event> {
  static constexpr uint32_t TAG = 0xfa2a0004;
  static constexpr const char* NAME = "event";
};
template <>
struct TagOf<fa2a_graph> {
  static constexpr uint32_t TAG = 0xfa2a0005;
  static constexpr const char* NAME = "graph";
};

/** The state behind a pointer; InvalidArgument when it is null, of another type or freed. */
template <class Public>
auto& stateOf(Public* pointer) {
  if (pointer == nullptr || pointer->tag != TagOf<std::remove_const_t<Public>>::TAG) {
    failArgument(TagOf<std::remove_const_t<Public>>::NAME, "a live object of that type",
                 pointer == nullptr ? "null" : "something else or a freed one", "pass what the library returned");
  }
  return pointer->state;
}

template <class Public, class State>
Public* boxOf(std::shared_ptr<State> state) {
  auto* box = new Public;
  box->tag = TagOf<Public>::TAG;
  box->state = std::move(state);
  return box;
}

template <class Public>
void freeBox(Public* pointer) {
  if (pointer == nullptr || pointer->tag != TagOf<Public>::TAG) return;
  pointer->tag = 0;
  delete pointer;
}

}  // namespace fa2a
