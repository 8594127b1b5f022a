// Layout of a new dispatch: counts, positions and the handle that holds them.
#pragma once

#include "group.h"

namespace fa2a {

/** Outputs of a dispatch on one rank; null = not made. */
struct DispatchOutputs {
  std::shared_ptr<Tensor> x;
  std::shared_ptr<Tensor> scales;
  std::shared_ptr<Tensor> topkIdx;
  std::shared_ptr<Tensor> topkWeights;
  std::shared_ptr<Tensor> probs;
};

kernels::Shape shapeOf(const Group& group, const fa2a_handle_meta& meta, size_t local, int64_t numTokens);

/** Communication memory of an operation: what the layout needs, and staging memory for rows of `rowBytes` if any. */
fa2a_buffer_shape bufferShape(const Group& group, const HandleState& handle, int64_t rowBytes, bool weights);

/** A handle without contents: source parts allocated for these numbers of tokens. */
std::shared_ptr<HandleState> makeHandle(Group& group, const fa2a_handle_meta& meta, const std::vector<int64_t>& numTokens);
/** Allocates the arrays of a destination with that many rows. */
void allocateRows(Group& group, HandleState& handle, size_t local, int64_t numRows, bool ownIds);

/** Narrows and checks the ids and counts the buckets of every tile. */
void countTiles(Operation& operation, HandleState& handle, const ArenaLayout& layout, const std::vector<Input>& topkIdx);
/** Prefixes over the tiles. Totals go to every rank's table, or to `totals` (one block per rank) alone. */
void scanTiles(Operation& operation, HandleState& handle, const ArenaLayout& layout, const std::vector<Memory>& totals);
/** Counts of every rank; their exchange; offsets. `publishViews` runs before the exchange's barrier. */
void countAndExchange(Operation& operation, HandleState& handle, const ArenaLayout& layout,
                      const std::vector<Input>& topkIdx, const std::function<void()>& publishViews);
/** Rows of every slot, send lists, and the destinations' view of them. */
void placeAndLink(Operation& operation, HandleState& handle, const ArenaLayout& layout,
                  const std::vector<Input>& topkWeights, const std::vector<DispatchOutputs>& outputs);
/** Groups over several processes: the lists of rows that came to be relayed. */
void makeRelayLists(Operation& operation, const HandleState& handle, size_t local, Rank& rank, int64_t first, int64_t rows);
/** Groups over several processes: the destinations' view of a rank's tokens and of what it relays. */
void linkItems(Operation& operation, const HandleState& handle, const ArenaLayout& layout, size_t local, Rank& rank,
               const std::vector<Input>& topkWeights, bool newRouting);
/** The destinations' view alone, from send lists that are there. */
void linkOnly(Operation& operation, HandleState& handle, const ArenaLayout& layout);
/** Writes every rank's view into all arenas. */
void publishViews(Operation& operation, const ArenaLayout& layout,
                  const std::function<kernels::RankView(size_t local)>& viewOf);
/** Fused with a budget: the slots that were not cut, per local expert. */
void countKept(Operation& operation, HandleState& handle, const std::vector<DispatchOutputs>& outputs);
/** Brings the reports to pinned memory. */
void fetchReports(Operation& operation, HandleState& handle);

}  // namespace fa2a
