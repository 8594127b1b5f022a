// Handles between device and host: the arrays of core/handle/handle.ts.
#include "handle.h"

#include <algorithm>

#include "layout.h"
#include "network.h"

namespace fa2a {

void waitReady(HandleState& handle) {
  std::shared_ptr<EventState> ready;
  {
    std::lock_guard lock(handle.mutex);
    ready = handle.ready;
  }
  if (ready != nullptr) waitEvent(*ready, Deadline(handle.ranks[0].rank->deadlineMs));
}

namespace {

bool hasBudget(const HandleState& handle) { return handle.budget() != kernels::NO_BUDGET; }

bool overflowed(const HandleState& handle, size_t local) {
  const RankHandleState& rank = handle.ranks[local];
  if (handle.uploaded) return !rank.cut.empty();
  // Padding counts: a block that only pads past the budget cuts no slot, so the slots decide.
  return hasBudget(handle) && rank.pinned.report->wantedRows > handle.budget();
}

/** The slots of one source's tokens: all of them, or of another node's source those that came here. */
struct Source {
  int32_t rank;
  std::vector<int32_t> tokens;
  /** [tokens, topk]. */
  std::vector<int32_t> experts;
  std::vector<int32_t> rows;
};

/** Every source that this node knows, ascending. */
std::vector<Source> sources(HandleState& handle) {
  std::vector<Source> all;
  const auto topk = static_cast<size_t>(handle.meta.topk);
  for (RankHandleState& own : handle.ranks) {
    const auto fetch = [&](const int32_t* from, size_t count) {
      std::vector<int32_t> to(count);
      if (count > 0) own.rank->download(to.data(), from, count * sizeof(int32_t));
      return to;
    };
    const auto slots = static_cast<size_t>(own.numTokens) * topk;
    Source mine = {own.rank->rank, {}, fetch(own.slotExpert, slots), fetch(own.slotRow, slots)};
    for (int32_t token = 0; token < own.numTokens; token++) mine.tokens.push_back(token);
    all.push_back(std::move(mine));
    if (own.network == nullptr) continue;
    const NodeRows& received = own.network->received;
    for (size_t node = 0; node < received.count.size(); node++) {
      const auto rows = static_cast<size_t>(received.count[node]);
      const int64_t first = received.first[node];
      if (rows == 0) continue;
      const int32_t rail = static_cast<int32_t>(node) * handle.meta.ranks_per_node + own.rank->rank % handle.meta.ranks_per_node;
      const int64_t slot = first * handle.meta.topk;
      all.push_back({rail, fetch(own.network->srcToken + first, rows), fetch(own.network->slotExpert + slot, rows * topk),
                     fetch(own.network->slotRow + slot, rows * topk)});
    }
  }
  std::sort(all.begin(), all.end(), [](const Source& a, const Source& b) { return a.rank < b.rank; });
  return all;
}

/** Slots of every source that did not fit on the destination, by (source, token, slot or expert): design 2.7. */
std::vector<int32_t> cutSlots(HandleState& handle, size_t local) {
  if (handle.uploaded) return handle.ranks[local].cut;
  std::vector<int32_t> cut;
  if (!overflowed(handle, local)) return cut;
  const int32_t dst = handle.ranks[local].rank->rank, topk = handle.meta.topk, perRank = handle.expertsPerRank();
  for (const Source& source : sources(handle)) {
    const std::vector<int32_t>& experts = source.experts;
    const std::vector<int32_t>& rows = source.rows;
    for (size_t at = 0; at < source.tokens.size(); at++) {
      const size_t first = at * static_cast<size_t>(topk);
      std::vector<int32_t> slots;
      int32_t rankRow = -1;
      for (int32_t slot = 0; slot < topk; slot++) {
        const size_t place = first + static_cast<size_t>(slot);
        if (experts[place] < 0 || experts[place] / perRank != dst) continue;
        if (rows[place] >= 0) rankRow = rows[place];
        slots.push_back(slot);
      }
      const auto expertOf = [&](int32_t slot) { return experts[first + static_cast<size_t>(slot)]; };
      if (handle.hybrid()) {
        std::sort(slots.begin(), slots.end(), [&](int32_t a, int32_t b) { return expertOf(a) < expertOf(b); });
      }
      for (const int32_t slot : slots) {
        const int32_t row = handle.hybrid() ? rows[first + static_cast<size_t>(slot)] : rankRow;
        if (row < handle.budget()) continue;
        cut.insert(cut.end(), {source.rank, source.tokens[at], slot, expertOf(slot)});
      }
    }
  }
  return cut;
}

}  // namespace

fa2a_handle_sizes handleSizes(HandleState& handle, size_t local) {
  waitReady(handle);
  const RankHandleState& rank = handle.ranks[local];
  fa2a_handle_sizes sizes = {};
  sizes.rank = rank.rank->rank;
  sizes.num_tokens = rank.numTokens;
  sizes.num_entries = handle.width;
  sizes.num_rows = rank.numRows;
  sizes.num_local_experts = handle.expertsPerRank();
  sizes.tokens_per_expert_length = !handle.hybrid() && hasBudget(handle) ? 0 : handle.expertsPerRank();
  sizes.num_cut = static_cast<int64_t>(cutSlots(handle, local).size() / 4);
  sizes.overflow = sizes.num_cut > 0;
  return sizes;
}

void downloadHandle(HandleState& handle, size_t local, const fa2a_handle_arrays& arrays) {
  waitReady(handle);
  const RankHandleState& own = handle.ranks[local];
  const auto fetch = [&](int32_t* to, const int32_t* from, int64_t count) {
    if (to != nullptr && from != nullptr && count > 0) own.rank->download(to, from, static_cast<size_t>(count) * sizeof(int32_t));
  };
  const int64_t entries = int64_t{own.numTokens} * handle.width;
  fetch(arrays.send_rank, own.send.rank, entries);
  fetch(arrays.send_row, own.send.row, entries);
  fetch(arrays.send_expert, own.send.expert, entries);
  fetch(arrays.send_slot, own.send.slot, entries);
  fetch(arrays.row_src_rank, own.rows.srcRank, own.numRows);
  fetch(arrays.row_src_token, own.rows.srcToken, own.numRows);
  if (handle.hybrid() || !hasBudget(handle)) fetch(arrays.tokens_per_expert, own.tokensPerExpert, handle.expertsPerRank());
  fetch(arrays.num_tokens_per_expert, own.numTokensPerExpert, handle.expertsPerRank());
  if (arrays.cut != nullptr) {
    const std::vector<int32_t> cut = cutSlots(handle, local);
    std::copy(cut.begin(), cut.end(), arrays.cut);
  }
}

namespace {

void checkUpload(const Group& group, const fa2a_handle_meta& meta, const HandleState& handle,
                 const fa2a_handle_sizes* sizes, const fa2a_handle_arrays* arrays) {
  std::vector<std::vector<bool>> taken;
  for (size_t local = 0; local < group.numLocal(); local++) taken.emplace_back(static_cast<size_t>(sizes[local].num_rows));
  for (size_t local = 0; local < group.numLocal(); local++) {
    const fa2a_handle_sizes& size = sizes[local];
    const int32_t rank = group.ranks[local]->rank;
    if (size.rank != rank || size.num_entries != handle.width || size.num_local_experts != handle.expertsPerRank()) {
      failArgument("handle", format("sizes of rank %d with %d entries per token and %d local experts", rank, handle.width,
                                    handle.expertsPerRank()),
                   format("rank %d, %lld, %lld", size.rank, static_cast<long long>(size.num_entries),
                          static_cast<long long>(size.num_local_experts)),
                   "pass the handle of a group of this shape", {.rank = rank});
    }
    const fa2a_handle_arrays& array = arrays[local];
    const bool complete = (array.send_rank && array.send_row) || size.num_tokens == 0;
    const bool hybrid = (array.send_expert && array.send_slot) || !handle.hybrid() || size.num_tokens == 0;
    if (!complete || !hybrid) failArgument("handle", "its send lists", "null", "pass all arrays", {.rank = rank});
    for (int64_t at = 0; at < size.num_tokens * size.num_entries; at++) {
      const int32_t dst = array.send_rank[at], row = array.send_row[at];
      const int64_t token = at / size.num_entries;
      if (dst == -1) continue;
      const bool inside = dst >= 0 && dst < meta.num_ranks && row >= 0 && row < sizes[dst].num_rows;
      const bool ordered = at % size.num_entries == 0 || (array.send_rank[at - 1] >= 0 && array.send_rank[at - 1] <= dst);
      const bool expert = !handle.hybrid() || (array.send_expert[at] >= 0 && array.send_expert[at] < meta.num_experts);
      if (!inside || !ordered || !expert) {
        failArgument("handle", "entries in ascending order of ranks, with rows and experts that exist",
                     format("destination %d, row %d", dst, row), "pass an undamaged handle", {.rank = rank, .token = token});
      }
      if (taken[static_cast<size_t>(dst)][static_cast<size_t>(row)]) {
        failArgument("handle", "every row once", format("row %d of rank %d twice", row, dst), "pass an undamaged handle",
                     {.rank = rank, .token = token});
      }
      taken[static_cast<size_t>(dst)][static_cast<size_t>(row)] = true;
    }
  }
}

}  // namespace

std::shared_ptr<HandleState> uploadHandle(Group& group, const fa2a_handle_meta& meta, const fa2a_handle_sizes* sizes,
                                          const fa2a_handle_arrays* arrays) {
  group.requireOpen();
  group.requireOneProcess("handle upload");
  if (meta.num_ranks != group.numRanks() || meta.ranks_per_node != group.ranksPerNode()) {
    failArgument("handle", format("%d ranks, %d per node", group.numRanks(), group.ranksPerNode()),
                 format("%d, %d", meta.num_ranks, meta.ranks_per_node), "use a group of the same shape");
  }
  if (meta.num_experts < 1 || meta.num_experts % meta.num_ranks != 0 || meta.topk < 1 || meta.topk > meta.num_experts) {
    failArgument("handle", "numExperts divisible by numRanks and topk of 1..numExperts",
                 format("%d and %d", meta.num_experts, meta.topk), "pass an undamaged handle");
  }
  std::vector<int64_t> tokens;
  for (size_t local = 0; local < group.numLocal(); local++) {
    if (sizes[local].num_tokens < 0 || sizes[local].num_rows < 0 || sizes[local].num_rows > INT32_MAX ||
        sizes[local].num_tokens > INT32_MAX) {
      failArgument("handle", "sizes that are not negative", "others", "pass an undamaged handle", {.rank = sizes[local].rank});
    }
    tokens.push_back(sizes[local].num_tokens);
  }
  HandleState probe;
  probe.meta = meta;
  probe.width = meta.kind == FA2A_HYBRID_EP ? meta.topk : std::min(meta.topk, meta.num_ranks);
  checkUpload(group, meta, probe, sizes, arrays);
  const auto handle = makeHandle(group, meta, tokens);
  handle->uploaded = true;
  const ArenaLayout layout = arenaLayout(bufferShape(group, *handle, 0, false));
  group.reserve(static_cast<size_t>(layout.bytes.total));
  Operation operation(group, "handle upload", {});
  for (size_t local = 0; local < group.numLocal(); local++) {
    allocateRows(group, *handle, local, sizes[local].num_rows, false);
    RankHandleState& own = handle->ranks[local];
    const fa2a_handle_arrays& from = arrays[local];
    const auto put = [&](int32_t* to, const int32_t* values, int64_t count) {
      if (to != nullptr && values != nullptr && count > 0) own.rank->upload(to, values, static_cast<size_t>(count) * sizeof(int32_t));
    };
    OnDevice on(own.rank->device);
    check(cudaMemsetAsync(own.source.data(), 0, own.source.bytes(), own.rank->comm), "cudaMemset", own.rank->rank);
    check(cudaMemsetAsync(own.destination.data(), 0xff, own.destination.bytes(), own.rank->comm), "cudaMemset", own.rank->rank);
    const int64_t entries = sizes[local].num_tokens * handle->width;
    put(own.send.rank, from.send_rank, entries);
    put(own.send.row, from.send_row, entries);
    put(own.send.expert, from.send_expert, entries);
    put(own.send.slot, from.send_slot, entries);
    put(own.tokensPerExpert, from.tokens_per_expert, sizes[local].tokens_per_expert_length);
    put(own.numTokensPerExpert, from.num_tokens_per_expert, handle->expertsPerRank());
    if (from.cut != nullptr) own.cut.assign(from.cut, from.cut + 4 * sizes[local].num_cut);
  }
  operation.barrier("entry");
  publishViews(operation, layout, [&](size_t local) {
    kernels::RankView view = {};
    const kernels::Rows& rows = handle->ranks[local].rows;
    view.rowSrcRank = rows.srcRank;
    view.rowSrcToken = rows.srcToken;
    view.rowNext = rows.next;
    view.rowReturn = rows.back;
    return view;
  });
  operation.barrier("addresses");
  linkOnly(operation, *handle, layout);
  operation.barrier("arrived");
  handle->ready = operation.finish(handle);
  return handle;
}

}  // namespace fa2a
