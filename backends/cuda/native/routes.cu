// Groups over several processes: which rows cross, and how relays and destinations learn what they are.
#include "../kernels/routes.cuh"

#include <algorithm>

#include "launch.h"
#include "layout.h"
#include "network.h"

namespace fa2a {

namespace {

constexpr unsigned THREADS = 256;

unsigned blocksFor(const Operation& operation, const Rank& rank, int64_t threads) {
  return operation.blocks(Work::Preprocessing, rank, (threads + THREADS - 1) / THREADS);
}

/** Places what a handle keeps of the network in `base`; returns the bytes. */
size_t carve(RankNetwork& own, const Network& network, const Rank& rank, char* base, int64_t numTokens, int topk, int width,
             bool hybrid) {
  size_t used = 0;
  const auto take = [&](int64_t count) {
    char* at = base + used;
    used += (static_cast<size_t>(count) * sizeof(int32_t) + 255) / 256 * 256;
    return reinterpret_cast<int32_t*>(at);
  };
  own.numRelayed = 0;
  for (const HopKind kind : HOPS) {
    if (!network.has(kind)) continue;
    HandleHop& hop = own.hop(kind);
    const int places = network.hop(kind, rank).count;
    hop.numItems = hop.firstItem = numTokens + own.numRelayed;
    hop.parts = reinterpret_cast<kernels::PartStart*>(take(int64_t{2} * places * hop.sent.numParts()));
    hop.row = take(hop.numItems * places);
    hop.sentRows = {take(hop.sent.total), take(hop.sent.total), take(hop.sent.total), take(hop.sent.total)};
    own.numRelayed += hop.received.total;
  }
  const int64_t relayed = own.numRelayed, items = numTokens + relayed;
  own.srcRank = take(relayed);
  own.srcToken = take(relayed);
  own.slotExpert = take(relayed * topk);
  own.slotRow = take(relayed * topk);
  own.weights = take(relayed * topk);
  own.relayed = {take(relayed * width), take(relayed * width), hybrid ? take(relayed * width) : nullptr,
                 hybrid ? take(relayed * width) : nullptr};
  own.merged = {take(items * width), take(items * width), nullptr, hybrid ? take(items * width) : nullptr};
  own.local = {take(numTokens * width), take(numTokens * width), nullptr, hybrid ? take(numTokens * width) : nullptr};
  return used;
}

/** How many rows the rank at one end of a hop sends to the other end, by the counts of all ranks. */
class Counts {
 public:
  Counts(const Group& group, const HandleState& handle, const ArenaLayout& layout)
      : ranks_(group.numRanks()), perNode_(group.ranksPerNode()), experts_(handle.meta.num_experts),
        shape_(handle.shape(0)), meta_(handle.meta) {
    table_.resize(static_cast<size_t>(ranks_) * static_cast<size_t>(kernels::countWords(shape_)));
    group.ranks[0]->download(table_.data(), group.ranks[0]->arena + layout.tableOffset, table_.size() * sizeof(int32_t));
  }

  void refuseBadSlots() const {
    for (int32_t src = 0; src < ranks_; src++) {
      const int32_t mark = at(src, 0);
      if (mark < 0) failBadSlot(meta_, src, kernels::LAST_SLOT + mark, "another expert id");
    }
  }

  HopRows rail(int32_t from, int32_t toNode, bool sends) const {
    std::vector<std::vector<int64_t>> counts(kernels::NUM_PARTS);
    for (int32_t node = 0; node < ranks_ / perNode_; node++) {
      const int32_t other = node * perNode_ + from % perNode_;
      for (int part = 0; part < kernels::NUM_PARTS; part++) {
        const int64_t rows = node == from / perNode_ ? 0 : inPart(part, sends ? from : other, ranks_ + (sends ? node : toNode));
        counts[static_cast<size_t>(part)].push_back(rows);
      }
    }
    return HopRows(counts);
  }

  /** Within a node: a rank's own tokens, and those it relays of its index on other nodes. */
  HopRows node(int32_t rank, bool sends) const {
    std::vector<std::vector<int64_t>> counts(ranks_ > perNode_ ? 1 + kernels::NUM_PARTS : 1);
    const int32_t first = rank / perNode_ * perNode_;
    for (int32_t other = first; other < first + perNode_; other++) {
      const int32_t src = sends ? rank : other, dst = sends ? other : rank;
      counts[0].push_back(src == dst ? 0 : at(src, dst));
      for (size_t part = 1; part < counts.size(); part++) {
        int64_t rows = 0;
        for (int32_t index = src % perNode_; index < ranks_ && src != dst; index += perNode_) {
          if (index != src) rows += inPart(static_cast<int>(part) - 1, index, dst);
        }
        counts[part].push_back(rows);
      }
    }
    return HopRows(counts);
  }

 private:
  int32_t at(int32_t src, int32_t word) const {
    return table_[static_cast<size_t>(src) * static_cast<size_t>(kernels::countWords(shape_)) + static_cast<size_t>(word)];
  }
  /** Rows of a part of a rank's tokens `to` a rank, or a node (numRanks + it). */
  int32_t inPart(int part, int32_t src, int32_t to) const {
    const auto before = [&](int which) {
      if (which == 0) return 0;
      if (which < kernels::NUM_PARTS) return at(src, kernels::partWord(shape_, which, to));
      return at(src, to < ranks_ ? to : to + experts_);
    };
    return before(part + 1) - before(part);
  }
  int32_t ranks_, perNode_, experts_;
  kernels::Shape shape_;
  fa2a_handle_meta meta_;
  std::vector<int32_t> table_;
};

/** [places, parts]. */
std::vector<kernels::PartStart> partStarts(const HopRows& rows, int numPlaces) {
  std::vector<kernels::PartStart> starts;
  for (int place = 0; place < numPlaces; place++) {
    int32_t number = 0;
    for (int part = 0; part < rows.numParts(); part++) {
      const HopRows::Range range = rows.at(part, place);
      starts.push_back({number, static_cast<int32_t>(range.first)});
      number += static_cast<int32_t>(range.rows);
    }
  }
  return starts;
}

kernels::Shape itemShape(const HandleState& handle, size_t local, int64_t numItems) {
  kernels::Shape shape = handle.shape(local);
  shape.numTokens = static_cast<int>(numItems);
  return shape;
}

/** Bits of the weights of items: the caller's for tokens, received ones for relayed rows. */
const int32_t* weightsOf(const std::vector<Input>& topkWeights, size_t local) {
  return topkWeights.empty() ? nullptr : static_cast<const int32_t*>(topkWeights[local].data);
}

void packHop(Operation& operation, const HandleState& handle, size_t local, Rank& rank, HopKind kind,
             const std::vector<Input>& topkWeights, int32_t* routes) {
  const RankHandleState& own = handle.ranks[local];
  const RankNetwork& net = *own.network;
  const HandleHop& hop = net.hop(kind);
  const kernels::Hop places = operation.group().network->hop(kind, rank);
  if (hop.numItems == 0) return;
  const kernels::Items items = {own.numTokens, static_cast<int>(hop.numItems), own.slotExpert, net.slotExpert};
  const kernels::HopRowArgs place = {handle.shape(local), places, items, hop.parts, hop.sent.numParts(), hop.row};
  launch("placeHopRows", kernels::placeHopRows, static_cast<unsigned>(places.count), kernels::PLACE_THREADS,
         kernels::PLACE_THREADS * sizeof(int32_t), rank.comm, place);
  const auto pack = [&](int64_t first, int64_t count, const int32_t* slotExpert, const int32_t* slotRow, const int32_t* weights,
                        const int32_t* srcRank, const int32_t* srcToken) {
    if (count == 0) return;
    const kernels::RouteArgs args = {handle.shape(local), places, static_cast<int>(count), slotExpert, slotRow, weights,
                                     hop.row + first * places.count, srcRank, srcToken, routes};
    launch("packRoutes", kernels::packRoutes, blocksFor(operation, rank, count * places.count), THREADS, 0, rank.comm, args);
  };
  const int32_t* weights = weightsOf(topkWeights, local);
  pack(0, own.numTokens, own.slotExpert, own.slotRow, weights, nullptr, nullptr);
  pack(own.numTokens, hop.numItems - own.numTokens, net.slotExpert, net.slotRow, weights == nullptr ? nullptr : net.weights,
       net.srcRank, net.srcToken);
}

void unpackHop(Operation& operation, const HandleState& handle, size_t local, Rank& rank, HopKind kind, const int32_t* routes,
               bool weights) {
  const RankHandleState& own = handle.ranks[local];
  const RankNetwork& net = *own.network;
  const HandleHop& hop = net.hop(kind);
  const int64_t rows = hop.received.total, topk = handle.meta.topk, at = hop.firstItem - own.numTokens;
  if (rows == 0) return;
  const kernels::UnpackArgs unpack = {static_cast<int>(rows), handle.meta.topk, weights, routes, net.srcRank + at,
                                      net.srcToken + at, net.slotExpert + at * topk, net.slotRow + at * topk,
                                      net.weights + at * topk};
  launch("unpackRoutes", kernels::unpackRoutes, blocksFor(operation, rank, rows), THREADS, 0, rank.comm, unpack);
  makeRelayLists(operation, handle, local, rank, at, rows);
}

void mergeItems(Operation& operation, const HandleState& handle, size_t local, Rank& rank) {
  const RankHandleState& own = handle.ranks[local];
  const RankNetwork& net = *own.network;
  const int width = handle.width, perProcess = operation.group().network->ranksPerProcess();
  const auto rowsAt = [&](HopKind kind, int64_t item) -> const int32_t* {
    const HandleHop& hop = net.hop(kind);
    if (!operation.group().network->has(kind) || item >= hop.numItems) return nullptr;
    return hop.row + item * operation.group().network->hop(kind, rank).count;
  };
  const auto merge = [&](int64_t item, int64_t count, const kernels::SendLists& lists) {
    if (count == 0) return;
    const kernels::HopRowsOf rows = {rowsAt(HopKind::Rail, item), rowsAt(HopKind::Node, item), perProcess};
    const kernels::MergeArgs args = {itemShape(handle, local, count), lists, rows, listsFrom(net.merged, item, width),
                                     item < own.numTokens ? net.local : kernels::SendLists{}};
    launch("mergeLists", kernels::mergeLists, blocksFor(operation, rank, count), THREADS, 0, rank.comm, args);
  };
  merge(0, own.numTokens, own.send);
  for (const HopKind kind : HOPS) {
    const HandleHop& hop = net.hop(kind);
    merge(hop.firstItem, hop.received.total, listsFrom(net.relayed, hop.firstItem - own.numTokens, width));
  }
}

}  // namespace

kernels::SendLists listsFrom(const kernels::SendLists& lists, int64_t item, int32_t width) {
  const auto at = [&](int32_t* list) { return list == nullptr ? nullptr : list + item * width; };
  return {at(lists.rank), at(lists.row), at(lists.expert), at(lists.slot)};
}

const kernels::SendLists& sumLists(const RankHandleState& own) {
  return own.network == nullptr ? own.send : own.network->merged;
}

const kernels::SendLists& pushLists(const RankHandleState& own) {
  return own.network == nullptr ? own.send : own.network->local;
}

int64_t relayedRows(const RankHandleState& own) { return own.network == nullptr ? 0 : own.network->numRelayed; }

void markBadSlots(Operation& operation, const HandleState& handle, const ArenaLayout& layout) {
  operation.phase("marks", [&](size_t local, Rank& rank) {
    const kernels::MarkArgs args = {handle.shape(local), operation.group().arenas(local, layout), handle.ranks[local].report};
    launch("markBadSlot", kernels::markBadSlot, 1, 32, 0, rank.comm, args);
  });
}

void countLinks(Operation& operation, HandleState& handle) {
  operation.phase("report", [&](size_t local, Rank& rank) {
    const RankHandleState& own = handle.ranks[local];
    const auto items = static_cast<int>(own.numTokens + own.network->numRelayed);
    const kernels::LinkCountArgs args = {handle.shape(local), items, own.network->merged, operation.group().network->ranksPerProcess(),
                                         own.numRows, own.rows, own.report};
    launch("countLinks", kernels::countLinks, blocksFor(operation, rank, std::max(items, own.numRows)), THREADS, 0, rank.comm, args);
  });
}

void gatherCounts(Operation& operation, const HandleState& handle, const ArenaLayout& layout) {
  Group& group = operation.group();
  Network& network = *group.network;
  const size_t row = static_cast<size_t>(kernels::countWords(handle.shape(0))) * sizeof(int32_t);
  const size_t perNode = static_cast<size_t>(group.ranksPerNode());
  operation.phase("clear counts", [&](size_t, Rank& rank) {
    // An aborted gather leaves zeros: what is enqueued behind it still runs.
    char* table = rank.arena + layout.tableOffset;
    const size_t first = static_cast<size_t>(group.ranks[0]->rank) * row, end = first + group.numLocal() * row;
    check(cudaMemsetAsync(table, 0, first, rank.comm), "cudaMemset", rank.rank);
    check(cudaMemsetAsync(table + end, 0, static_cast<size_t>(group.numRanks()) * row - end, rank.comm), "cudaMemset", rank.rank);
  });
  for (size_t local = 0; local < group.numLocal(); local++) {
    Rank& rank = *group.ranks[local];
    char* table = rank.arena + layout.tableOffset;
    // A rank's counts to its node, then the node's to the others.
    const size_t node = static_cast<size_t>(rank.rank) / perNode * perNode;
    if (network.has(HopKind::Node)) network.gather(operation, HopKind::Node, local, table + node * row, row);
    if (network.has(HopKind::Rail)) network.gather(operation, HopKind::Rail, local, table, perNode * row);
  }
}

void sizeNetwork(Operation& operation, HandleState& handle, const ArenaLayout& layout) {
  Group& group = operation.group();
  Network& network = *group.network;
  network.settleLinks();
  const Counts counts(group, handle, layout);
  counts.refuseBadSlots();
  for (size_t local = 0; local < group.numLocal(); local++) {
    RankHandleState& own = handle.ranks[local];
    Rank& rank = *own.rank;
    own.network = std::make_shared<RankNetwork>();
    RankNetwork& net = *own.network;
    if (network.has(HopKind::Rail)) {
      HandleHop& hop = net.hop(HopKind::Rail);
      hop.sent = counts.rail(rank.rank, 0, true);
      hop.received = counts.rail(rank.rank, rank.rank / group.ranksPerNode(), false);
    }
    if (network.has(HopKind::Node)) {
      HandleHop& hop = net.hop(HopKind::Node);
      hop.sent = counts.node(rank.rank, true);
      hop.received = counts.node(rank.rank, false);
    }
    const auto place = [&](char* base) {
      return carve(net, network, rank, base, own.numTokens, handle.meta.topk, handle.width, handle.hybrid());
    };
    net.memory = rank.pool->take(place(nullptr));
    place(net.memory.data());
    for (const HopKind kind : HOPS) {
      if (!network.has(kind)) continue;
      const std::vector<kernels::PartStart> starts = partStarts(net.hop(kind).sent, network.hop(kind, rank).count);
      rank.upload(net.hop(kind).parts, starts.data(), starts.size() * sizeof(kernels::PartStart));
    }
  }
}

void exchangeRoutes(Operation& operation, HandleState& handle, const std::vector<Input>& topkWeights) {
  Group& group = operation.group();
  Network& network = *group.network;
  const bool weights = !topkWeights.empty();
  const size_t bytes = static_cast<size_t>(kernels::routeWords(handle.meta.topk, weights)) * sizeof(int32_t);
  const PlaneBuffers buffers = makeBuffers(group, handle, bytes);
  for (const HopKind kind : HOPS) {
    if (!network.has(kind)) continue;
    const auto k = static_cast<size_t>(kind);
    operation.phase("pack routes", [&](size_t local, Rank& rank) {
      const HandleHop& hop = handle.ranks[local].network->hop(kind);
      // An aborted transfer leaves slots that are negative, which no kernel behind it follows.
      check(cudaMemsetAsync(buffers.receive[k][local].data(), 0xff, static_cast<size_t>(hop.received.total) * bytes, rank.comm),
            "cudaMemset", rank.rank);
      packHop(operation, handle, local, rank, kind, topkWeights, reinterpret_cast<int32_t*>(buffers.send[k][local].data()));
    });
    for (size_t local = 0; local < group.numLocal(); local++) {
      const HandleHop& hop = handle.ranks[local].network->hop(kind);
      network.exchange(operation, kind, local, kind == HopKind::Rail ? "network routes" : "node routes", -1,
                       {buffers.send[k][local].data(), &hop.sent}, {buffers.receive[k][local].data(), &hop.received}, bytes);
      if (kind == HopKind::Rail) network.sent[local].metadata_bytes += hop.sent.total * static_cast<int64_t>(bytes);
    }
    operation.phase("relay routes", [&](size_t local, Rank& rank) {
      network.arrive(kind, local, -1);
      unpackHop(operation, handle, local, rank, kind, reinterpret_cast<const int32_t*>(buffers.receive[k][local].data()), weights);
    });
  }
}

void linkRoutes(Operation& operation, HandleState& handle, const ArenaLayout& layout, const std::vector<Input>& topkWeights,
                bool newRouting) {
  operation.phase("links", [&](size_t local, Rank& rank) {
    mergeItems(operation, handle, local, rank);
    linkItems(operation, handle, layout, local, rank, topkWeights, newRouting);
  });
}

}  // namespace fa2a
