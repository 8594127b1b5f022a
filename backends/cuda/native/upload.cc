// Handles made elsewhere, brought to a group's devices: checked, then linked as a dispatch links its own.
#include <algorithm>

#include "handle.h"
#include "layout.h"
#include "network.h"

namespace fa2a {

namespace {

constexpr const char* UNDAMAGED = "pass an undamaged handle";

/** Rows of the ranks in this process that are named; each may be once. */
class RowCheck {
 public:
  RowCheck(const Group& group, const fa2a_handle_sizes* sizes) : first_(group.ranks[0]->rank) {
    for (size_t local = 0; local < group.numLocal(); local++) taken_.emplace_back(static_cast<size_t>(sizes[local].num_rows));
  }

  /** A row of a rank elsewhere is looked at there. */
  void take(int32_t dst, int32_t row, int32_t rank, int64_t token) {
    if (dst < first_ || dst >= first_ + static_cast<int32_t>(taken_.size())) return;
    std::vector<bool>& rows = taken_[static_cast<size_t>(dst - first_)];
    if (row < 0 || static_cast<size_t>(row) >= rows.size()) {
      failArgument("handle", format("rows 0..%lld of rank %d", static_cast<long long>(rows.size()) - 1, dst), std::to_string(row),
                   UNDAMAGED, {.rank = rank, .token = token});
    }
    if (rows[static_cast<size_t>(row)]) {
      failArgument("handle", "every row once", format("row %d of rank %d twice", row, dst), UNDAMAGED, {.rank = rank, .token = token});
    }
    rows[static_cast<size_t>(row)] = true;
  }

 private:
  int32_t first_;
  std::vector<std::vector<bool>> taken_;
};

void checkArrays(const fa2a_handle_meta& meta, const HandleState& handle, const fa2a_handle_sizes& size, const fa2a_handle_arrays& array,
                 int32_t rank, RowCheck& rows) {
  if (size.rank != rank || size.num_entries != handle.width || size.num_local_experts != handle.expertsPerRank()) {
    failArgument("handle", format("sizes of rank %d with %d entries per token and %d local experts", rank, handle.width,
                                  handle.expertsPerRank()),
                 format("rank %d, %lld, %lld", size.rank, static_cast<long long>(size.num_entries),
                        static_cast<long long>(size.num_local_experts)),
                 "pass the handle of a group of this shape", {.rank = rank});
  }
  const bool complete = (array.send_rank && array.send_row) || size.num_tokens == 0;
  const bool hybrid = (array.send_expert && array.send_slot) || !handle.hybrid() || size.num_tokens == 0;
  if (!complete || !hybrid) failArgument("handle", "its send lists", "null", "pass all arrays", {.rank = rank});
  for (int64_t at = 0; at < size.num_tokens * size.num_entries; at++) {
    const int32_t dst = array.send_rank[at], row = array.send_row[at];
    const int64_t first = at / size.num_entries * size.num_entries;
    if (dst == -1) continue;
    const bool inside = dst >= 0 && dst < meta.num_ranks && row >= 0;
    const bool ordered = at == first || (array.send_rank[at - 1] >= 0 && array.send_rank[at - 1] <= dst);
    bool expert = true;
    if (handle.hybrid()) {
      const int32_t id = array.send_expert[at], slot = array.send_slot[at];
      expert = id >= 0 && id < meta.num_experts && id / handle.expertsPerRank() == dst && slot >= 0 && slot < meta.topk;
      for (int64_t other = first; other < at; other++) expert = expert && array.send_slot[other] != slot && array.send_expert[other] < id;
    } else {
      expert = at == first || array.send_rank[at - 1] != dst;
    }
    if (!inside || !ordered || !expert) {
      failArgument("handle", "entries in ascending order of ranks, with rows, experts and slots that exist",
                   format("destination %d, row %d", dst, row), UNDAMAGED, {.rank = rank, .token = at / size.num_entries});
    }
    rows.take(dst, row, rank, at / size.num_entries);
  }
}

void checkMeta(const Group& group, const fa2a_handle_meta& meta, const fa2a_handle_sizes* sizes) {
  if (meta.num_ranks != group.numRanks() || meta.ranks_per_node != group.ranksPerNode()) {
    failArgument("handle", format("%d ranks, %d per node", group.numRanks(), group.ranksPerNode()),
                 format("%d, %d", meta.num_ranks, meta.ranks_per_node), "use a group of the same shape");
  }
  if (meta.num_experts < 1 || meta.num_experts % meta.num_ranks != 0 || meta.topk < 1 || meta.topk > meta.num_experts) {
    failArgument("handle", "numExperts divisible by numRanks and topk of 1..numExperts",
                 format("%d and %d", meta.num_experts, meta.topk), UNDAMAGED);
  }
  for (size_t local = 0; local < group.numLocal(); local++) {
    const fa2a_handle_sizes& size = sizes[local];
    if (size.num_tokens < 0 || size.num_rows < 0 || size.num_rows > INT32_MAX || size.num_tokens > INT32_MAX) {
      failArgument("handle", "sizes that are not negative", "others", UNDAMAGED, {.rank = size.rank});
    }
  }
}

/**
 * Over several processes relays and destinations learn of rows by slots: here as many as a token has entries, with the
 * entry's expert, or (fused) the first one of its rank.
 */
void putSlots(const HandleState& handle, size_t local, const fa2a_handle_arrays& from) {
  const RankHandleState& own = handle.ranks[local];
  const auto topk = static_cast<size_t>(handle.meta.topk), width = static_cast<size_t>(handle.width);
  const size_t slots = static_cast<size_t>(own.numTokens) * topk;
  std::vector<int32_t> experts(slots, -1), rows(slots, -1);
  for (size_t entry = 0; entry < static_cast<size_t>(own.numTokens) * width; entry++) {
    if (from.send_rank[entry] < 0) continue;
    const size_t slot = handle.hybrid() ? static_cast<size_t>(from.send_slot[entry]) : entry % width;
    const size_t at = entry / width * topk + slot;
    experts[at] = handle.hybrid() ? from.send_expert[entry] : from.send_rank[entry] * handle.expertsPerRank();
    rows[at] = from.send_row[entry];
  }
  own.rank->upload(own.slotExpert, experts.data(), slots * sizeof(int32_t));
  own.rank->upload(own.slotRow, rows.data(), slots * sizeof(int32_t));
}

/** Counts, routes and what they need, as in a dispatch. */
void exchangeSlots(Operation& operation, HandleState& handle, const ArenaLayout& layout) {
  std::vector<Input> slots(handle.ranks.size());
  for (size_t local = 0; local < slots.size(); local++) {
    slots[local].data = handle.ranks[local].slotExpert;
    slots[local].dtype = FA2A_I32;
    slots[local].rows = handle.ranks[local].numTokens;
    slots[local].columns = handle.meta.topk;
  }
  countAndExchange(operation, handle, layout, slots, {});
  operation.wait();
  sizeNetwork(operation, handle, layout);
}

/** What other processes' handles say of rows here. */
void checkRelayed(const Group& group, const HandleState& handle, RowCheck& rows) {
  for (size_t local = 0; local < group.numLocal(); local++) {
    const RankHandleState& own = handle.ranks[local];
    const RankNetwork& net = *own.network;
    const auto fetch = [&](const int32_t* from, int64_t count) {
      std::vector<int32_t> to(static_cast<size_t>(count));
      if (count > 0) own.rank->download(to.data(), from, to.size() * sizeof(int32_t));
      return to;
    };
    const std::vector<int32_t> srcRank = fetch(net.srcRank, net.numRelayed), srcToken = fetch(net.srcToken, net.numRelayed);
    const std::vector<int32_t> dst = fetch(net.relayed.rank, net.numRelayed * handle.width);
    const std::vector<int32_t> row = fetch(net.relayed.row, net.numRelayed * handle.width);
    for (size_t at = 0; at < dst.size(); at++) {
      const size_t item = at / static_cast<size_t>(handle.width);
      if (dst[at] >= 0) rows.take(dst[at], row[at], srcRank[item], srcToken[item]);
    }
  }
}

void putArrays(const HandleState& handle, size_t local, const fa2a_handle_sizes& size, const fa2a_handle_arrays& from) {
  const RankHandleState& own = handle.ranks[local];
  const auto put = [&](int32_t* to, const int32_t* values, int64_t count) {
    if (to != nullptr && values != nullptr && count > 0) own.rank->upload(to, values, static_cast<size_t>(count) * sizeof(int32_t));
  };
  const int64_t entries = size.num_tokens * handle.width;
  put(own.send.rank, from.send_rank, entries);
  put(own.send.row, from.send_row, entries);
  put(own.send.expert, from.send_expert, entries);
  put(own.send.slot, from.send_slot, entries);
  put(own.tokensPerExpert, from.tokens_per_expert, size.tokens_per_expert_length);
  put(own.numTokensPerExpert, from.num_tokens_per_expert, handle.expertsPerRank());
}

void publishRows(Operation& operation, const HandleState& handle, const ArenaLayout& layout) {
  publishViews(operation, layout, [&](size_t local) {
    kernels::RankView view = {};
    const kernels::Rows& rows = handle.ranks[local].rows;
    view.rowSrcRank = rows.srcRank;
    view.rowSrcToken = rows.srcToken;
    view.rowNext = rows.next;
    view.rowReturn = rows.back;
    return view;
  });
  if (operation.group().network != nullptr) publishHops(operation, handle, layout, {}, {});
  operation.barrier("addresses");
}

}  // namespace

std::shared_ptr<HandleState> uploadHandle(Group& group, const fa2a_handle_meta& meta, const fa2a_handle_sizes* sizes,
                                          const fa2a_handle_arrays* arrays) {
  group.requireOpen();
  checkMeta(group, meta, sizes);
  HandleState probe;
  probe.meta = meta;
  probe.width = meta.kind == FA2A_HYBRID_EP ? meta.topk : std::min(meta.topk, meta.num_ranks);
  RowCheck rows(group, sizes);
  std::vector<int64_t> tokens;
  for (size_t local = 0; local < group.numLocal(); local++) {
    checkArrays(meta, probe, sizes[local], arrays[local], group.ranks[local]->rank, rows);
    tokens.push_back(sizes[local].num_tokens);
  }
  const auto handle = makeHandle(group, meta, tokens);
  handle->uploaded = true;
  const ArenaLayout layout = arenaLayout(bufferShape(group, *handle, 0, false));
  group.reserve(static_cast<size_t>(layout.bytes.total));
  const bool network = group.network != nullptr;
  for (size_t local = 0; local < group.numLocal(); local++) {
    allocateRows(group, *handle, local, sizes[local].num_rows, false);
    if (arrays[local].cut != nullptr) handle->ranks[local].cut.assign(arrays[local].cut, arrays[local].cut + 4 * sizes[local].num_cut);
  }
  Operation operation(group, "handle upload", {});
  for (size_t local = 0; local < group.numLocal(); local++) {
    const RankHandleState& own = handle->ranks[local];
    OnDevice on(own.rank->device);
    check(cudaMemsetAsync(own.source.data(), 0, own.source.bytes(), own.rank->comm), "cudaMemset", own.rank->rank);
    check(cudaMemsetAsync(own.destination.data(), 0xff, own.destination.bytes(), own.rank->comm), "cudaMemset", own.rank->rank);
    if (network) putSlots(*handle, local, arrays[local]);
  }
  if (network) exchangeSlots(operation, *handle, layout);
  for (size_t local = 0; local < group.numLocal(); local++) putArrays(*handle, local, sizes[local], arrays[local]);
  operation.barrier("entry");
  publishRows(operation, *handle, layout);
  if (network) {
    exchangeRoutes(operation, *handle, {});
    operation.wait();
    checkRelayed(group, *handle, rows);
    linkRoutes(operation, *handle, layout, {}, false);
    countLinks(operation, *handle);
    fetchReports(operation, *handle);
  } else {
    linkOnly(operation, *handle, layout);
  }
  operation.barrier("arrived");
  handle->ready = operation.finish(handle);
  return handle;
}

}  // namespace fa2a
