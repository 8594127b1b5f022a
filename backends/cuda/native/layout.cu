#include "layout.h"

#include <algorithm>

#include "../kernels/layout.cuh"
#include "launch.h"
#include "network.h"

namespace fa2a {

namespace {

constexpr unsigned THREADS = 256;

/** Cuts a block into arrays. */
class Carver {
 public:
  explicit Carver(char* base) : base_(base) {}
  template <class T>
  T* take(size_t count) {
    char* at = base_ + used_;
    used_ += (count * sizeof(T) + 255) / 256 * 256;
    return reinterpret_cast<T*>(at);
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

/** Places the source part of a handle in `base` (null: only counts bytes). The part before slotExpert starts as zeros. */
size_t carveSource(RankHandleState& rank, char* base, size_t topk, size_t width, size_t localExperts, bool hybrid) {
  const auto tokens = static_cast<size_t>(rank.numTokens);
  Carver carver(base);
  rank.report = carver.take<kernels::Report>(1);
  rank.numTokensPerExpert = carver.take<int32_t>(localExperts);
  rank.tokensPerExpert = carver.take<int32_t>(localExperts);
  rank.expertRow = carver.take<int32_t>(localExperts + 1);
  rank.slotExpert = carver.take<int32_t>(tokens * topk);
  rank.slotRow = carver.take<int32_t>(tokens * topk);
  rank.send.rank = carver.take<int32_t>(tokens * width);
  rank.send.row = carver.take<int32_t>(tokens * width);
  rank.send.expert = hybrid ? carver.take<int32_t>(tokens * width) : nullptr;
  rank.send.slot = hybrid ? carver.take<int32_t>(tokens * width) : nullptr;
  return carver.used();
}

size_t carveRows(RankHandleState& rank, char* base) {
  const auto rows = static_cast<size_t>(rank.numRows);
  Carver carver(base);
  rank.rows.srcRank = carver.take<int32_t>(rows);
  rank.rows.srcToken = carver.take<int32_t>(rows);
  rank.rows.next = carver.take<int32_t>(rows);
  rank.rows.back = carver.take<int32_t>(rows);
  return carver.used();
}

unsigned blocksFor(const Operation& operation, const Rank& rank, int64_t threads) {
  return operation.blocks(Work::Preprocessing, rank, (threads + THREADS - 1) / THREADS);
}

}  // namespace

int32_t HandleState::budget() const {
  if (hybrid()) return meta.num_permuted_tokens < 0 ? kernels::NO_BUDGET : static_cast<int32_t>(meta.num_permuted_tokens);
  return meta.num_worst_tokens == 0 ? kernels::NO_BUDGET : static_cast<int32_t>(meta.num_worst_tokens);
}

kernels::Shape HandleState::shape(size_t local) const {
  return {ranks[local].rank->rank, meta.num_ranks, meta.ranks_per_node, meta.num_experts, expertsPerRank(),
          meta.topk, width, ranks[local].numTokens, hybrid()};
}

fa2a_buffer_shape bufferShape(const Group& group, const HandleState& handle, int64_t rowBytes, bool weights) {
  fa2a_buffer_shape shape = {};
  for (const RankHandleState& rank : handle.ranks) {
    shape.num_tokens = std::max<int64_t>(shape.num_tokens, rank.numTokens);
    // Pull: only rows that are summed on the expert's rank need room there.
    if (group.pull() && handle.hybrid()) shape.num_rows = std::max<int64_t>(shape.num_rows, rank.numRows);
  }
  shape.row_bytes = rowBytes;
  shape.topk = handle.meta.topk;
  shape.num_experts = handle.meta.num_experts;
  shape.num_ranks = handle.meta.num_ranks;
  shape.ranks_per_node = handle.meta.ranks_per_node;
  shape.combine_path = group.pull() ? FA2A_COMBINE_PULL : FA2A_COMBINE_PUSH;
  shape.weights = weights;
  return shape;
}

std::shared_ptr<HandleState> makeHandle(Group& group, const fa2a_handle_meta& meta, const std::vector<int64_t>& numTokens) {
  auto handle = std::make_shared<HandleState>();
  handle->meta = meta;
  handle->width = handle->hybrid() ? meta.topk : std::min(meta.topk, meta.num_ranks);
  handle->ranks.resize(group.numLocal());
  const auto localExperts = static_cast<size_t>(handle->expertsPerRank());
  for (size_t local = 0; local < group.numLocal(); local++) {
    RankHandleState& rank = handle->ranks[local];
    rank.rank = group.ranks[local];
    rank.numTokens = static_cast<int32_t>(numTokens[local]);
    const auto topk = static_cast<size_t>(meta.topk), width = static_cast<size_t>(handle->width);
    rank.source = rank.rank->pool->take(carveSource(rank, nullptr, topk, width, localExperts, handle->hybrid()));
    carveSource(rank, rank.source.data(), topk, width, localExperts, handle->hybrid());
    rank.pinned = PinnedReport(rank.rank);
  }
  return handle;
}

void allocateRows(Group& group, HandleState& handle, size_t local, int64_t numRows, bool ownIds) {
  RankHandleState& rank = handle.ranks[local];
  rank.numRows = static_cast<int32_t>(numRows);
  rank.destination = group.ranks[local]->pool->take(carveRows(rank, nullptr));
  carveRows(rank, rank.destination.data());
  const size_t idBytes = handle.wideIds ? 8 : 4;
  if (ownIds) {
    rank.ownIds = group.ranks[local]->pool->take(static_cast<size_t>(numRows) * static_cast<size_t>(handle.meta.topk) * idBytes);
  }
}

void publishViews(Operation& operation, const ArenaLayout& layout,
                  const std::function<kernels::RankView(size_t local)>& viewOf) {
  Group& group = operation.group();
  operation.phase("publish", [&](size_t local, Rank& rank) {
    const kernels::PublishArgs args = {group.arenas(local, layout), rank.rank, rank.numRanks, viewOf(local)};
    launch("publish", kernels::publish, 1, 32, 0, rank.comm, args);
  });
}

void countTiles(Operation& operation, HandleState& handle, const ArenaLayout& layout, const std::vector<Input>& topkIdx) {
  operation.phase("layout", [&](size_t local, Rank& rank) {
    RankHandleState& own = handle.ranks[local];
    const kernels::Shape shape = handle.shape(local);
    const auto tiles = static_cast<size_t>((own.numTokens + kernels::TILE_TOKENS - 1) / kernels::TILE_TOKENS);
    const auto zeros = static_cast<size_t>(reinterpret_cast<char*>(own.slotExpert) - own.source.data());
    auto* tileCounts = reinterpret_cast<int32_t*>(rank.arena + layout.tilesOffset);
    check(cudaMemsetAsync(own.source.data(), 0, zeros, rank.comm), "cudaMemset", rank.rank);
    if (own.numTokens == 0) return;
    const size_t tileBytes = tiles * static_cast<size_t>(kernels::numBuckets(shape)) * sizeof(int32_t);
    check(cudaMemsetAsync(tileCounts, 0, tileBytes, rank.comm), "cudaMemset", rank.rank);
    const kernels::CountArgs args = {shape, topkIdx[local].data, topkIdx[local].dtype == FA2A_I64, own.slotExpert,
                                     tileCounts, own.report};
    const int64_t slots = int64_t{own.numTokens} * shape.topk;
    launch("countSlots", kernels::countSlots, blocksFor(operation, rank, slots), THREADS, 0, rank.comm, args);
  });
}

void scanTiles(Operation& operation, HandleState& handle, const ArenaLayout& layout, const std::vector<Memory>& totals) {
  operation.phase("scan", [&](size_t local, Rank& rank) {
    const kernels::Shape shape = handle.shape(local);
    const int tiles = (shape.numTokens + kernels::TILE_TOKENS - 1) / kernels::TILE_TOKENS;
    auto* tileCounts = reinterpret_cast<int32_t*>(rank.arena + layout.tilesOffset);
    auto* alone = totals.empty() ? nullptr : reinterpret_cast<int32_t*>(totals[local].data());
    const kernels::ScanArgs args = {shape, operation.group().arenas(local, layout), tileCounts, tiles, alone};
    const int64_t buckets = kernels::numBuckets(shape);
    launch("scanTiles", kernels::scanTiles, blocksFor(operation, rank, buckets), THREADS, 0, rank.comm, args);
  });
}

void countAndExchange(Operation& operation, HandleState& handle, const ArenaLayout& layout,
                      const std::vector<Input>& topkIdx, const std::function<void()>& publish) {
  Group& group = operation.group();
  countTiles(operation, handle, layout, topkIdx);
  operation.barrier("entry");
  scanTiles(operation, handle, layout, {});
  if (publish) publish();
  if (group.network != nullptr) markBadSlots(operation, handle, layout);
  operation.barrier("counts");
  if (group.network != nullptr) gatherCounts(operation, handle, layout);
  operation.phase("offsets", [&](size_t local, Rank& rank) {
    RankHandleState& own = handle.ranks[local];
    const int alignment = static_cast<int>(handle.hybrid() ? handle.meta.pad_multiple : handle.meta.expert_alignment);
    const kernels::OffsetArgs args = {handle.shape(local),
                                      group.arenas(local, layout),
                                      alignment,
                                      handle.budget(),
                                      reinterpret_cast<int32_t*>(rank.arena + layout.beginOffset),
                                      reinterpret_cast<int32_t*>(rank.arena + layout.wantedOffset),
                                      own.expertRow,
                                      own.tokensPerExpert,
                                      own.numTokensPerExpert,
                                      own.report};
    launch("findOffsets", kernels::findOffsets, 1, 512, 0, rank.comm, args);
  });
}

namespace {

/** Tells the destinations what the rows of `lists` are. Relayed rows return to staging memory behind the rank's own tokens. */
void link(Operation& operation, const HandleState& handle, const ArenaLayout& layout, size_t local, Rank& rank,
          const kernels::SendLists& lists, int64_t numTokens, const int32_t* slotExpert, const float* weights,
          const int32_t* srcRank = nullptr, const int32_t* srcToken = nullptr, int64_t firstToken = 0) {
  if (numTokens == 0) return;
  kernels::Shape shape = handle.shape(local);
  shape.numTokens = static_cast<int>(numTokens);
  const kernels::LinkArgs args = {shape,   operation.group().arenas(local, layout), lists,    handle.groups(), slotExpert,
                                  weights, handle.wideIds,                          srcRank, srcToken,        static_cast<int>(firstToken)};
  launch("linkRows", kernels::linkRows, blocksFor(operation, rank, numTokens * shape.width), THREADS, 0, rank.comm, args);
}

const float* weightsOf(const std::vector<Input>& topkWeights, size_t local) {
  return topkWeights.empty() ? nullptr : static_cast<const float*>(topkWeights[local].data);
}

}  // namespace

void placeAndLink(Operation& operation, HandleState& handle, const ArenaLayout& layout,
                  const std::vector<Input>& topkWeights, const std::vector<DispatchOutputs>& outputs) {
  operation.phase("positions", [&](size_t local, Rank& rank) {
    RankHandleState& own = handle.ranks[local];
    const kernels::Shape shape = handle.shape(local);
    if (own.numTokens > 0) {
      const int64_t tiles = (own.numTokens + kernels::TILE_TOKENS - 1) / kernels::TILE_TOKENS;
      const kernels::PlaceArgs place = {shape, own.slotExpert,
                                        reinterpret_cast<int32_t*>(rank.arena + layout.tilesOffset),
                                        reinterpret_cast<const int32_t*>(rank.arena + layout.beginOffset), own.slotRow};
      launch("placeSlots", kernels::placeSlots, blocksFor(operation, rank, tiles * 32), THREADS, 0, rank.comm, place);
      const kernels::ListArgs lists = {shape, handle.budget(), own.slotExpert, own.slotRow, own.send};
      const int64_t slots = int64_t{own.numTokens} * shape.topk;
      launch("makeLists", kernels::makeLists, blocksFor(operation, rank, slots), THREADS, 0, rank.comm, lists);
    }
    // Over several processes the links wait for the routes (linkItems).
    if (own.network == nullptr) {
      link(operation, handle, layout, local, rank, own.send, own.numTokens, own.slotExpert, weightsOf(topkWeights, local));
    }
    if (own.numRows == 0) return;
    const DispatchOutputs& out = outputs[local];
    void* ids = out.topkIdx != nullptr ? static_cast<void*>(out.topkIdx->memory.data()) : own.ownIds.data();
    const auto& values = handle.hybrid() ? out.probs : out.topkWeights;
    const kernels::PadArgs pad = {shape,    own.numRows, own.report,
                                  own.expertRow, own.numTokensPerExpert, own.rows, ids,
                                  values != nullptr ? reinterpret_cast<float*>(values->memory.data()) : nullptr,
                                  handle.wideIds};
    launch("padRows", kernels::padRows, blocksFor(operation, rank, own.numRows), THREADS, 0, rank.comm, pad);
  });
}

void makeRelayLists(Operation& operation, const HandleState& handle, size_t local, Rank& rank, int64_t first, int64_t rows) {
  const RankNetwork& net = *handle.ranks[local].network;
  kernels::Shape shape = handle.shape(local);
  shape.numTokens = static_cast<int>(rows);
  const int64_t slots = rows * shape.topk;
  const kernels::ListArgs lists = {shape, handle.budget(), net.slotExpert + first * shape.topk, net.slotRow + first * shape.topk,
                                   listsFrom(net.relayed, first, handle.width)};
  launch("makeLists", kernels::makeLists, blocksFor(operation, rank, slots), THREADS, 0, rank.comm, lists);
}

void linkItems(Operation& operation, const HandleState& handle, const ArenaLayout& layout, size_t local, Rank& rank,
               const std::vector<Input>& topkWeights, bool newRouting) {
  const RankHandleState& own = handle.ranks[local];
  const RankNetwork& net = *own.network;
  const float* weights = weightsOf(topkWeights, local);
  link(operation, handle, layout, local, rank, net.merged, own.numTokens, newRouting ? own.slotExpert : nullptr, weights);
  link(operation, handle, layout, local, rank, listsFrom(net.merged, own.numTokens, handle.width), net.numRelayed,
       newRouting ? net.slotExpert : nullptr, weights == nullptr ? nullptr : reinterpret_cast<const float*>(net.weights),
       net.srcRank, net.srcToken, own.numTokens);
}

void linkOnly(Operation& operation, HandleState& handle, const ArenaLayout& layout) {
  operation.phase("positions", [&](size_t local, Rank& rank) {
    const RankHandleState& own = handle.ranks[local];
    link(operation, handle, layout, local, rank, own.send, own.numTokens, nullptr, nullptr);
  });
}

void fetchReports(Operation& operation, HandleState& handle) {
  operation.phase("report", [&](size_t local, Rank& rank) {
    const RankHandleState& own = handle.ranks[local];
    check(cudaMemcpyAsync(own.pinned.report, own.report, sizeof(kernels::Report), cudaMemcpyDeviceToHost, rank.comm),
          "report", rank.rank);
  });
}

void countKept(Operation& operation, HandleState& handle, const std::vector<DispatchOutputs>& outputs) {
  operation.phase("counts", [&](size_t local, Rank& rank) {
    RankHandleState& own = handle.ranks[local];
    const void* ids = outputs[local].topkIdx != nullptr ? outputs[local].topkIdx->memory.data() : own.ownIds.data();
    if (own.numRows == 0) return;
    const kernels::ReceivedArgs args = {handle.shape(local), own.numRows, ids, handle.wideIds, own.numTokensPerExpert};
    const int64_t slots = int64_t{own.numRows} * handle.meta.topk;
    launch("countReceived", kernels::countReceived, operation.blocks(Work::Preprocessing, rank, (slots + 255) / 256), 256, 0,
           rank.comm, args);
  });
}

}  // namespace fa2a
