// Groups over several processes: the order in which rows, and the probs of their sums, cross.
#include "../kernels/relay.cuh"

#include "launch.h"
#include "network.h"
#include "operations.h"
#include "rows.h"

namespace fa2a {

namespace {

constexpr unsigned THREADS = 256;

size_t indexOf(HopKind kind) { return static_cast<size_t>(kind); }

void sendPart(Operation& operation, const HandleState& handle, const PlaneBuffers& buffers, HopKind kind, int part, int plane,
              size_t bytes) {
  Group& group = operation.group();
  const char* phases[2][2] = {{"network rows", "network scales"}, {"node rows", "node scales"}};
  for (size_t local = 0; local < group.numLocal(); local++) {
    const HandleHop& hop = handle.ranks[local].network->hop(kind);
    group.network->exchange(operation, kind, local, phases[indexOf(kind)][plane], part,
                            {buffers.send[indexOf(kind)][local].data(), &hop.sent},
                            {buffers.receive[indexOf(kind)][local].data(), &hop.received}, bytes, plane);
  }
}

/** Copies the tokens' rows of one part into the send buffer. */
void fillPart(Operation& operation, const HandleState& handle, const PlaneBuffers& buffers, HopKind kind,
              const std::vector<Input>& input, int part, int plane, size_t bytes) {
  operation.phase(plane == 0 ? "pack" : "pack scales", [&](size_t local, Rank& rank) {
    const HandleHop& hop = handle.ranks[local].network->hop(kind);
    const HopRows::Range rows = hop.sent.part(part);
    if (rows.rows == 0) return;
    byWidth(bytes, [&](auto word) {
      using V = decltype(word);
      const kernels::GatherArgs args = {static_cast<int>(rows.rows), hop.sentRows.srcToken + rows.first, input[local].data,
                                        buffers.send[indexOf(kind)][local].data() + static_cast<size_t>(rows.first) * bytes,
                                        static_cast<int>(bytes / sizeof(V))};
      const unsigned blocks = operation.blocks(Work::Dispatch, rank, (rows.rows + ROW_WARPS - 1) / ROW_WARPS);
      launch("gatherRows", kernels::gatherRows<V>, blocks, 32 * ROW_WARPS, 0, rank.comm, args);
    });
  });
}

/** Pushes the rows of one part that came by a hop to where they go from here. */
void pushPart(Operation& operation, const HandleState& handle, const ArenaLayout& layout, const PlaneBuffers& buffers,
              HopKind kind, int part, int plane, size_t bytes) {
  const char* phases[2][2] = {{"relay", "relay scales"}, {"node relay", "node relay scales"}};
  operation.phase(phases[indexOf(kind)][plane], [&](size_t local, Rank& rank) {
    const RankNetwork& net = *handle.ranks[local].network;
    const HandleHop& hop = net.hop(kind);
    operation.group().network->arrive(kind, local, part, plane);
    const HopRows::Range rows = hop.received.part(part);
    if (rows.rows == 0) return;
    kernels::Shape shape = handle.shape(local);
    shape.numTokens = static_cast<int>(rows.rows);
    launchPush(operation, rank, shape, operation.group().arenas(local, layout),
               listsFrom(net.merged, hop.firstItem + rows.first, handle.width),
               buffers.receive[indexOf(kind)][local].data() + static_cast<size_t>(rows.first) * bytes, plane, bytes);
  });
}

}  // namespace

PlaneBuffers makeBuffers(Group& group, const HandleState& handle, size_t rowBytes) {
  PlaneBuffers buffers;
  for (const HopKind kind : HOPS) {
    if (!group.network->has(kind)) continue;
    for (size_t local = 0; local < group.numLocal(); local++) {
      const HandleHop& hop = handle.ranks[local].network->hop(kind);
      const auto take = [&](const HopRows& rows) { return group.ranks[local]->pool->take(static_cast<size_t>(rows.total) * rowBytes); };
      buffers.send[indexOf(kind)].push_back(take(hop.sent));
      buffers.receive[indexOf(kind)].push_back(take(hop.received));
    }
  }
  return buffers;
}

void publishHops(Operation& operation, const HandleState& handle, const ArenaLayout& layout, const PlaneBuffers& rows,
                 const PlaneBuffers& scales) {
  const Network& network = *operation.group().network;
  operation.phase("publish", [&](size_t local, Rank& rank) {
    for (const HopKind kind : HOPS) {
      if (!network.has(kind)) continue;
      const HandleHop& hop = handle.ranks[local].network->hop(kind);
      kernels::RankView view = {};
      if (!rows.send[indexOf(kind)].empty()) view.planes[0] = rows.send[indexOf(kind)][local].data();
      if (!scales.send[indexOf(kind)].empty()) view.planes[1] = scales.send[indexOf(kind)][local].data();
      view.rowSrcRank = hop.sentRows.srcRank;
      view.rowSrcToken = hop.sentRows.srcToken;
      view.rowNext = hop.sentRows.next;
      view.rowReturn = hop.sentRows.back;
      const kernels::HopViewArgs args = {handle.shape(local), operation.group().arenas(local, layout), network.hop(kind, rank), view};
      launch("publishHop", kernels::publishHop, 1, 32, 0, rank.comm, args);
    }
  });
}

void sendRows(Operation& operation, const HandleState& handle, const PlaneBuffers& buffers, const std::vector<Input>& input,
              int plane) {
  Network& network = *operation.group().network;
  const size_t bytes = rowBytes(input[0].columns, input[0].dtype);
  const auto send = [&](HopKind kind, int part) {
    fillPart(operation, handle, buffers, kind, input, part, plane, bytes);
    sendPart(operation, handle, buffers, kind, part, plane, bytes);
  };
  if (network.has(HopKind::Rail)) send(HopKind::Rail, 0);
  // What a rank relays in its node goes when it has come.
  if (network.has(HopKind::Node)) send(HopKind::Node, 0);
  for (int part = 1; network.has(HopKind::Rail) && part < kernels::NUM_PARTS; part++) send(HopKind::Rail, part);
}

void relayRows(Operation& operation, const HandleState& handle, const ArenaLayout& layout, const PlaneBuffers& buffers,
               const std::vector<Input>& input, int plane) {
  Network& network = *operation.group().network;
  const size_t bytes = rowBytes(input[0].columns, input[0].dtype);
  const bool node = network.has(HopKind::Node);
  const auto push = [&](HopKind kind, int part) { pushPart(operation, handle, layout, buffers, kind, part, plane, bytes); };
  for (int part = 0; network.has(HopKind::Rail) && part < kernels::NUM_PARTS; part++) {
    push(HopKind::Rail, part);
    if (node) sendPart(operation, handle, buffers, HopKind::Node, part + 1, plane, bytes);
    // One part behind: it has had the time in which a rail's part came.
    if (node) push(HopKind::Node, part);
  }
  if (node) push(HopKind::Node, network.has(HopKind::Rail) ? kernels::NUM_PARTS : 0);
  for (size_t local = 0; local < network.sent.size(); local++) {
    const int64_t rows = handle.ranks[local].network->hop(HopKind::Rail).sent.total;
    if (plane == 0) network.sent[local].rows_dispatched += rows;
    network.sent[local].row_bytes += rows * static_cast<int64_t>(bytes);
  }
}

void combineProbs(Operation& operation, const HandleState& handle, const ArenaLayout& layout,
                  const std::vector<std::shared_ptr<Tensor>>& out) {
  Group& group = operation.group();
  Network& network = *group.network;
  const size_t bytes = static_cast<size_t>(handle.width) * sizeof(uint32_t);
  // What a relay received in dispatch it sends now: the buffers change places.
  const PlaneBuffers buffers = makeBuffers(group, handle, bytes);
  const auto argsOf = [&](size_t local, Rank& rank, int64_t item, int64_t count, const kernels::SendLists& lists, uint32_t* to) {
    const RankNetwork& net = *handle.ranks[local].network;
    const auto rowsOf = [&](HopKind kind) -> const int32_t* {
      if (!network.has(kind) || item >= net.hop(kind).numItems) return nullptr;
      return net.hop(kind).row + item * network.hop(kind, rank).count;
    };
    const auto probsOf = [&](HopKind kind) -> const uint32_t* {
      return network.has(kind) ? reinterpret_cast<const uint32_t*>(buffers.send[indexOf(kind)][local].data()) : nullptr;
    };
    kernels::Shape shape = handle.shape(local);
    shape.numTokens = static_cast<int>(count);
    return kernels::NodeProbsArgs{shape, group.arenas(local, layout), lists,
                                  {rowsOf(HopKind::Rail), rowsOf(HopKind::Node), network.ranksPerProcess()},
                                  probsOf(HopKind::Rail), probsOf(HopKind::Node), to};
  };
  for (const HopKind kind : {HopKind::Node, HopKind::Rail}) {
    if (!network.has(kind)) continue;
    operation.phase("relay probs", [&](size_t local, Rank& rank) {
      const RankHandleState& own = handle.ranks[local];
      const HandleHop& hop = own.network->hop(kind);
      if (hop.received.total == 0) return;
      const auto lists = listsFrom(own.network->relayed, hop.firstItem - own.numTokens, handle.width);
      const kernels::NodeProbsArgs args = argsOf(local, rank, hop.firstItem, hop.received.total, lists,
                                                 reinterpret_cast<uint32_t*>(buffers.receive[indexOf(kind)][local].data()));
      const int64_t threads = hop.received.total * handle.width;
      launch("gatherRelayProbs", kernels::gatherRelayProbs,
             operation.blocks(Work::Preprocessing, rank, (threads + THREADS - 1) / THREADS), THREADS, 0, rank.comm, args);
    });
    for (size_t local = 0; local < group.numLocal(); local++) {
      const HandleHop& hop = handle.ranks[local].network->hop(kind);
      network.exchange(operation, kind, local, kind == HopKind::Rail ? "network probs" : "node probs", -1,
                       {buffers.receive[indexOf(kind)][local].data(), &hop.received},
                       {buffers.send[indexOf(kind)][local].data(), &hop.sent}, bytes);
      if (kind == HopKind::Rail) network.sent[local].row_bytes += hop.received.total * static_cast<int64_t>(bytes);
    }
    operation.phase("probs", [&](size_t local, Rank&) { network.arrive(kind, local, -1); });
  }
  operation.phase("probs", [&](size_t local, Rank& rank) {
    const RankHandleState& own = handle.ranks[local];
    if (own.numTokens == 0) return;
    const kernels::NodeProbsArgs args =
        argsOf(local, rank, 0, own.numTokens, own.send, reinterpret_cast<uint32_t*>(out[local]->memory.data()));
    const int64_t needed = (own.numTokens + ROW_WARPS - 1) / ROW_WARPS;
    launch("gatherNodeProbs", kernels::gatherNodeProbs, operation.blocks(Work::Unpermute, rank, needed), 32 * ROW_WARPS, 0,
           rank.comm, args);
  });
}

}  // namespace fa2a
