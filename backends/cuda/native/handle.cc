// Handles between device and host: the arrays of core/handle/handle.ts.
#include "handle.h"

#include <algorithm>
#include <map>
#include <numeric>

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

/** The slots of one source's tokens: all of them, or of a source elsewhere those that came here. */
struct Source {
  std::vector<int32_t> tokens;
  /** [tokens, topk]. */
  std::vector<int32_t> experts;
  std::vector<int32_t> rows;
};

/** Every source that this process knows, by its rank. Rows that came in parts stand between those of other sources. */
std::map<int32_t, Source> sources(HandleState& handle) {
  std::map<int32_t, Source> all;
  const auto topk = static_cast<size_t>(handle.meta.topk);
  for (RankHandleState& own : handle.ranks) {
    const auto fetch = [&](const int32_t* from, size_t count) {
      std::vector<int32_t> to(count);
      if (count > 0) own.rank->download(to.data(), from, count * sizeof(int32_t));
      return to;
    };
    const auto slots = static_cast<size_t>(own.numTokens) * topk;
    Source& mine = all[own.rank->rank];
    mine = {std::vector<int32_t>(static_cast<size_t>(own.numTokens)), fetch(own.slotExpert, slots), fetch(own.slotRow, slots)};
    std::iota(mine.tokens.begin(), mine.tokens.end(), 0);
    if (own.network == nullptr) continue;
    const auto relayed = static_cast<size_t>(own.network->numRelayed);
    const std::vector<int32_t> ranks = fetch(own.network->srcRank, relayed), tokens = fetch(own.network->srcToken, relayed);
    const std::vector<int32_t> experts = fetch(own.network->slotExpert, relayed * topk), rows = fetch(own.network->slotRow, relayed * topk);
    for (size_t item = 0; item < relayed; item++) {
      // A source's rows come one way alone, in the order of its tokens.
      Source& source = all[ranks[item]];
      source.tokens.push_back(tokens[item]);
      const auto from = static_cast<std::ptrdiff_t>(item * topk), to = from + static_cast<std::ptrdiff_t>(topk);
      source.experts.insert(source.experts.end(), experts.begin() + from, experts.begin() + to);
      source.rows.insert(source.rows.end(), rows.begin() + from, rows.begin() + to);
    }
  }
  return all;
}

/** Slots of every source that did not fit on the destination, by (source, token, slot or expert): design 2.7. */
std::vector<int32_t> cutSlots(HandleState& handle, size_t local) {
  if (handle.uploaded) return handle.ranks[local].cut;
  std::vector<int32_t> cut;
  if (!overflowed(handle, local)) return cut;
  const int32_t dst = handle.ranks[local].rank->rank, topk = handle.meta.topk, perRank = handle.expertsPerRank();
  for (const auto& [rank, source] : sources(handle)) {
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
        cut.insert(cut.end(), {rank, source.tokens[at], slot, expertOf(slot)});
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

}  // namespace fa2a
