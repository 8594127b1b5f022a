// The kernels of a group over several processes, and the order in which rows, their routes and their sums cross hosts.
#include "../kernels/network.cuh"

#include "launch.h"
#include "layout.h"
#include "network.h"
#include "operations.h"
#include "rows.h"

namespace fa2a {

namespace {

constexpr unsigned THREADS = 256;

unsigned blocksFor(const Operation& operation, const Rank& rank, int64_t threads) {
  return operation.blocks(Work::Preprocessing, rank, (threads + THREADS - 1) / THREADS);
}

/** The relayed rows of a rank as tokens of a source. */
kernels::Shape relayShape(const HandleState& handle, size_t local) {
  kernels::Shape shape = handle.shape(local);
  shape.numTokens = static_cast<int>(handle.ranks[local].network->received.total);
  return shape;
}

size_t carve(RankNetwork& own, char* base, int64_t numTokens, int nodes, int topk, int width, bool hybrid) {
  size_t used = 0;
  const auto take = [&](int64_t count) {
    char* at = base + used;
    used += (static_cast<size_t>(count) * sizeof(int32_t) + 255) / 256 * 256;
    return reinterpret_cast<int32_t*>(at);
  };
  const int64_t sent = own.sent.total, received = own.received.total;
  own.nodeRow = take(numTokens * nodes);
  own.merged.rank = take(numTokens * width);
  own.merged.row = take(numTokens * width);
  own.merged.slot = hybrid ? take(numTokens * width) : nullptr;
  own.sentRows = {take(sent), take(sent), take(sent), take(sent)};
  own.srcRank = take(received);
  own.srcToken = take(received);
  own.slotExpert = take(received * topk);
  own.slotRow = take(received * topk);
  own.weights = take(received * topk);
  own.relay.rank = take(received * width);
  own.relay.row = take(received * width);
  own.relay.expert = hybrid ? take(received * width) : nullptr;
  own.relay.slot = hybrid ? take(received * width) : nullptr;
  return used;
}

kernels::SendLists from(const kernels::SendLists& lists, int64_t first) {
  const auto at = [first](int32_t* list) { return list == nullptr ? nullptr : list + first; };
  return {at(lists.rank), at(lists.row), at(lists.expert), at(lists.slot)};
}

}  // namespace

const kernels::SendLists& pushLists(const RankHandleState& own) {
  return own.network == nullptr ? own.send : own.network->merged;
}

int64_t relayedRows(const RankHandleState& own) { return own.network == nullptr ? 0 : own.network->received.total; }

void gatherCounts(Operation& operation, const HandleState& handle, const ArenaLayout& layout) {
  Group& group = operation.group();
  const size_t buckets = static_cast<size_t>(kernels::numBuckets(handle.shape(0)));
  const size_t block = static_cast<size_t>(group.ranksPerNode()) * buckets * sizeof(int32_t);
  operation.phase("clear counts", [&](size_t local, Rank& rank) {
    // An aborted gather leaves zeros: what is enqueued behind it still runs.
    for (int node = 0; node < group.network->numNodes(); node++) {
      if (node == group.network->node()) continue;
      char* at = rank.arena + layout.tableOffset + static_cast<size_t>(node) * block;
      check(cudaMemsetAsync(at, 0, block, rank.comm), "cudaMemset", group.ranks[local]->rank);
    }
  });
  for (size_t local = 0; local < group.numLocal(); local++) {
    group.network->gather(operation, local, group.ranks[local]->arena + layout.tableOffset, block);
  }
}

void sizeNetwork(Operation& operation, HandleState& handle, const ArenaLayout& layout) {
  Group& group = operation.group();
  const int buckets = kernels::numBuckets(handle.shape(0)), nodes = group.network->numNodes(), own = group.network->node();
  std::vector<int32_t> table(static_cast<size_t>(group.numRanks()) * static_cast<size_t>(buckets));
  group.ranks[0]->download(table.data(), group.ranks[0]->arena + layout.tableOffset, table.size() * sizeof(int32_t));
  const auto rows = [&](int src, int node) {
    return table[static_cast<size_t>(src) * static_cast<size_t>(buckets) +
                 static_cast<size_t>(group.numRanks() + handle.meta.num_experts + node)];
  };
  for (size_t local = 0; local < group.numLocal(); local++) {
    RankHandleState& rank = handle.ranks[local];
    rank.network = std::make_shared<RankNetwork>();
    std::vector<int64_t> sent, received;
    for (int node = 0; node < nodes; node++) {
      const int rail = node * group.ranksPerNode() + static_cast<int>(local);
      sent.push_back(node == own ? 0 : rows(rank.rank->rank, node));
      received.push_back(node == own ? 0 : rows(rail, own));
    }
    rank.network->sent = NodeRows(sent);
    rank.network->received = NodeRows(received);
    const auto place = [&](char* base) {
      return carve(*rank.network, base, rank.numTokens, nodes, handle.meta.topk, handle.width, handle.hybrid());
    };
    rank.network->memory = rank.rank->pool->take(place(nullptr));
    place(rank.network->memory.data());
  }
}

PlaneBuffers makeBuffers(Group& group, const HandleState& handle, size_t sendBytes, size_t receiveBytes) {
  PlaneBuffers buffers;
  for (size_t local = 0; local < group.numLocal(); local++) {
    const RankNetwork& own = *handle.ranks[local].network;
    buffers.send.push_back(group.ranks[local]->pool->take(static_cast<size_t>(own.sent.total) * sendBytes));
    buffers.receive.push_back(group.ranks[local]->pool->take(static_cast<size_t>(own.received.total) * receiveBytes));
  }
  return buffers;
}

void publishRails(Operation& operation, const HandleState& handle, const ArenaLayout& layout, const PlaneBuffers& rows,
                  const PlaneBuffers& scales) {
  operation.phase("publish", [&](size_t local, Rank& rank) {
    const RankNetwork& own = *handle.ranks[local].network;
    kernels::RankView view = {};
    view.planes[0] = rows.send[local].data();
    if (!scales.send.empty()) view.planes[1] = scales.send[local].data();
    view.rowSrcRank = own.sentRows.srcRank;
    view.rowSrcToken = own.sentRows.srcToken;
    view.rowNext = own.sentRows.next;
    view.rowReturn = own.sentRows.back;
    const kernels::RailArgs args = {handle.shape(local), operation.group().arenas(local, layout), view};
    launch("publishRails", kernels::publishRails, 1, 32, 0, rank.comm, args);
  });
}

void mergeNodes(Operation& operation, HandleState& handle, const ArenaLayout& layout, size_t local, Rank& rank) {
  RankHandleState& own = handle.ranks[local];
  const kernels::Shape shape = handle.shape(local);
  if (own.numTokens == 0) return;
  const kernels::NodeRowArgs place = {shape, operation.group().arenas(local, layout), own.slotExpert,
                                      reinterpret_cast<const int32_t*>(rank.arena + layout.tilesOffset),
                                      own.network->nodeRow};
  const int64_t tiles = (own.numTokens + kernels::TILE_TOKENS - 1) / kernels::TILE_TOKENS;
  launch("placeNodeRows", kernels::placeNodeRows, blocksFor(operation, rank, tiles * kernels::numNodes(shape)), THREADS, 0,
         rank.comm, place);
  const kernels::MergeArgs merge = {shape, own.send, own.network->nodeRow, own.network->merged};
  launch("mergeLists", kernels::mergeLists, blocksFor(operation, rank, own.numTokens), THREADS, 0, rank.comm, merge);
}

void exchangeRoutes(Operation& operation, HandleState& handle, const ArenaLayout& layout,
                    const std::vector<Input>& topkWeights) {
  Group& group = operation.group();
  Network& network = *group.network;
  const bool weights = !topkWeights.empty();
  const size_t bytes = static_cast<size_t>(kernels::metadataWords(handle.meta.topk, weights)) * sizeof(int32_t);
  const PlaneBuffers buffers = makeBuffers(group, handle, bytes, bytes);
  operation.phase("pack routes", [&](size_t local, Rank& rank) {
    const RankHandleState& own = handle.ranks[local];
    // An aborted transfer leaves slots that are negative, which no kernel behind it follows.
    check(cudaMemsetAsync(buffers.receive[local].data(), 0xff, static_cast<size_t>(own.network->received.total) * bytes, rank.comm),
          "cudaMemset", rank.rank);
    if (own.numTokens == 0) return;
    const kernels::Shape shape = handle.shape(local);
    const kernels::MetadataArgs args = {shape,
                                        own.slotExpert,
                                        own.slotRow,
                                        weights ? static_cast<const int32_t*>(topkWeights[local].data) : nullptr,
                                        own.network->nodeRow,
                                        reinterpret_cast<int32_t*>(buffers.send[local].data())};
    const int64_t pairs = int64_t{own.numTokens} * kernels::numNodes(shape);
    launch("packMetadata", kernels::packMetadata, blocksFor(operation, rank, pairs), THREADS, 0, rank.comm, args);
  });
  for (int chunk = 0; chunk < Network::CHUNKS; chunk++) {
    for (size_t local = 0; local < group.numLocal(); local++) {
      const RankNetwork& own = *handle.ranks[local].network;
      network.exchange(operation, local, "network routes", chunk, {buffers.send[local].data(), &own.sent},
                       {buffers.receive[local].data(), &own.received}, bytes);
    }
  }
  operation.phase("relay routes", [&](size_t local, Rank& rank) {
    RankHandleState& own = handle.ranks[local];
    RankNetwork& net = *own.network;
    for (int chunk = 0; chunk < Network::CHUNKS; chunk++) network.arrive(local, chunk);
    network.sent[local].metadata_bytes += net.sent.total * static_cast<int64_t>(bytes);
    const kernels::Shape shape = relayShape(handle, local);
    if (shape.numTokens == 0) return;
    const kernels::Arenas arenas = group.arenas(local, layout);
    const kernels::UnpackArgs unpack = {shape, arenas, shape.numTokens,
                                        reinterpret_cast<const int32_t*>(buffers.receive[local].data()), weights, net.srcRank,
                                        net.srcToken, net.slotExpert, net.slotRow, net.weights};
    launch("unpackMetadata", kernels::unpackMetadata, blocksFor(operation, rank, shape.numTokens), THREADS, 0, rank.comm, unpack);
    linkRelay(operation, handle, layout, local, rank, weights);
  });
}

void forwardPlane(Operation& operation, const HandleState& handle, const ArenaLayout& layout, const PlaneBuffers& buffers,
                  const std::vector<Input>& input, int plane) {
  if (input.empty()) return;
  Group& group = operation.group();
  Network& network = *group.network;
  const size_t bytes = rowBytes(input[0].columns, input[0].dtype);
  for (int chunk = 0; chunk < Network::CHUNKS; chunk++) {
    for (size_t local = 0; local < group.numLocal(); local++) {
      const RankNetwork& own = *handle.ranks[local].network;
      network.exchange(operation, local, plane == 0 ? "network rows" : "network scales", chunk,
                       {buffers.send[local].data(), &own.sent}, {buffers.receive[local].data(), &own.received}, bytes);
    }
  }
  operation.phase(plane == 0 ? "relay" : "relay scales", [&](size_t local, Rank& rank) {
    const RankNetwork& own = *handle.ranks[local].network;
    if (plane == 0) network.sent[local].rows_dispatched += own.sent.total;
    network.sent[local].row_bytes += own.sent.total * static_cast<int64_t>(bytes);
    for (int chunk = 0; chunk < Network::CHUNKS; chunk++) {
      network.arrive(local, chunk);
      for (size_t node = 0; node < own.received.count.size(); node++) {
        const auto [first, rows] = Network::chunkOf(own.received.count[node], chunk);
        if (rows == 0) continue;
        const int64_t at = own.received.first[node] + first;
        kernels::Shape shape = handle.shape(local);
        shape.numTokens = static_cast<int>(rows);
        launchPush(operation, rank, shape, group.arenas(local, layout), from(own.relay, at * handle.width),
                   buffers.receive[local].data() + static_cast<size_t>(at) * bytes, plane, bytes);
      }
    }
  });
}

void combineProbs(Operation& operation, const HandleState& handle, const ArenaLayout& layout,
                  const std::vector<std::shared_ptr<Tensor>>& out) {
  Group& group = operation.group();
  Network& network = *group.network;
  const size_t bytes = static_cast<size_t>(handle.width) * sizeof(uint32_t);
  // What a relay received in dispatch it sends now: the buffers change places.
  const PlaneBuffers buffers = makeBuffers(group, handle, bytes, bytes);
  operation.phase("relay probs", [&](size_t local, Rank& rank) {
    const kernels::Shape shape = relayShape(handle, local);
    if (shape.numTokens == 0) return;
    const kernels::RelayProbsArgs args = {shape, group.arenas(local, layout), handle.ranks[local].network->relay,
                                          reinterpret_cast<uint32_t*>(buffers.receive[local].data())};
    launch("gatherRelayProbs", kernels::gatherRelayProbs, blocksFor(operation, rank, int64_t{shape.numTokens} * shape.width),
           THREADS, 0, rank.comm, args);
  });
  for (int chunk = 0; chunk < Network::CHUNKS; chunk++) {
    for (size_t local = 0; local < group.numLocal(); local++) {
      const RankNetwork& own = *handle.ranks[local].network;
      network.exchange(operation, local, "network probs", chunk, {buffers.receive[local].data(), &own.received},
                       {buffers.send[local].data(), &own.sent}, bytes);
    }
  }
  operation.phase("probs", [&](size_t local, Rank& rank) {
    const RankHandleState& own = handle.ranks[local];
    for (int chunk = 0; chunk < Network::CHUNKS; chunk++) network.arrive(local, chunk);
    network.sent[local].row_bytes += own.network->received.total * static_cast<int64_t>(bytes);
    if (own.numTokens == 0) return;
    const kernels::NodeProbsArgs args = {handle.shape(local), group.arenas(local, layout), own.send, own.network->merged,
                                         reinterpret_cast<const uint32_t*>(buffers.send[local].data()),
                                         reinterpret_cast<uint32_t*>(out[local]->memory.data())};
    const int64_t needed = (own.numTokens + ROW_WARPS - 1) / ROW_WARPS;
    launch("gatherNodeProbs", kernels::gatherNodeProbs, operation.blocks(Work::Unpermute, rank, needed), 32 * ROW_WARPS, 0,
           rank.comm, args);
  });
}

}  // namespace fa2a
