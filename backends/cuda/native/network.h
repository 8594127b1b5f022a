// What crosses hosts: one communicator per local rank, to the ranks with its index on the other nodes (its rail), and a
// stream of its own, so that rows travel while others are copied. docs/clusters.md has the data path.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "group.h"
#include "nccl.h"

namespace fa2a {

/** Rows of one rank to or from every node, nodes one after the other; its own has none. */
struct NodeRows {
  std::vector<int64_t> count;
  std::vector<int64_t> first;
  int64_t total = 0;

  explicit NodeRows(std::vector<int64_t> counts = {});
};

/** The network part of one rank's handle. */
struct RankNetwork {
  Memory memory;
  NodeRows sent;
  NodeRows received;
  /** [tokens, nodes] row of the send buffer, -1 = none. */
  int32_t* nodeRow = nullptr;
  /** The send lists with one entry per other node. */
  kernels::SendLists merged = {};
  /** What the send buffer's rows are, as a destination knows its rows: combine returns through it. */
  kernels::Rows sentRows = {};
  /** Rows of other nodes' sources with this rank's index, relayed here: as a source knows its tokens. */
  int32_t* srcRank = nullptr;
  int32_t* srcToken = nullptr;
  int32_t* slotExpert = nullptr;
  int32_t* slotRow = nullptr;
  int32_t* weights = nullptr;
  kernels::SendLists relay = {};
};

/** One side of a transfer: rows of `rowBytes` by node. */
struct RowBuffer {
  char* data;
  const NodeRows* rows;
};

class Network {
 public:
  /** Parts that rows are sent in: while one travels the one before is copied on. */
  static constexpr int CHUNKS = 4;
  static constexpr int64_t LEAST_CHUNK_ROWS = 64;

  Network(Group& group, const fa2a_group_options& options);
  ~Network();

  int numNodes() const { return numNodes_; }
  int node() const { return node_; }
  /** Rows of a pair's part: the same on both sides. */
  static std::pair<int64_t, int64_t> chunkOf(int64_t rows, int chunk);

  /** Every node's block of `bytes` to `table`, where this node's already is. On the rank's comm stream. */
  void gather(Operation& operation, size_t local, char* table, size_t bytes);
  /** Sends and receives one part on the network stream, after what the comm stream holds now. */
  void exchange(Operation& operation, size_t local, const char* phase, int chunk, const RowBuffer& from, const RowBuffer& to,
                size_t rowBytes);
  /** The comm stream waits for part `chunk`. */
  void arrive(size_t local, int chunk);

  /** What went wrong with the communicators; empty: nothing. */
  std::string failure();
  /** Ends everything that is pending; of any thread. `why` is what later calls say. */
  void abort(const std::string& why);
  bool aborted();
  /** Begins the table of an operation. */
  void begin();
  /** "rank 0 expects 12 rows of rank 4": one line of everything that has not arrived. */
  std::string table();

  std::vector<fa2a_network_info> sent;

 private:
  struct Rail {
    nccl::Comm comm = nullptr;
    cudaStream_t stream = nullptr;
    Event ready;
    Event arrived[CHUNKS];
  };
  struct Step {
    std::string phase;
    size_t local;
    Event done;
    std::string expected;
  };
  void call(nccl::Result result, const char* what, size_t local);
  void settle(size_t local, const char* what);

  Group& group_;
  const nccl::Api& api_;
  int numNodes_ = 0;
  int node_ = 0;
  std::vector<Rail> rails_;
  std::vector<Step> steps_;
  std::mutex mutex_;
  std::string aborted_;
};

/** Whether all of one node's ranks, and only those, are in this process; throws Unavailable otherwise. */
void checkNode(const fa2a_group_options& options, int32_t ranksPerNode);

// ---- relay.cu: the kernels of a group over several processes ----

/** Staging and send buffers of one plane, per local rank. */
struct PlaneBuffers {
  std::vector<Memory> send;
  std::vector<Memory> receive;
};

/** Brings all counts to all ranks. */
void gatherCounts(Operation& operation, const HandleState& handle, const ArenaLayout& layout);
/** After the counts: how many rows cross, and room for what the handle keeps of them. Waits for the devices. */
void sizeNetwork(Operation& operation, HandleState& handle, const ArenaLayout& layout);
/** Send buffers of a plane; rowBytes of the metadata, x or scales. */
PlaneBuffers makeBuffers(Group& group, const HandleState& handle, size_t sendBytes, size_t receiveBytes);
/** Makes the send buffers the memory of the other nodes' ranks. */
void publishRails(Operation& operation, const HandleState& handle, const ArenaLayout& layout, const PlaneBuffers& rows,
                  const PlaneBuffers& scales);
/** The merged list of one rank, in the phase that made its send lists. */
void mergeNodes(Operation& operation, HandleState& handle, const ArenaLayout& layout, size_t local, Rank& rank);
/** Tells the relays where rows go, and the destinations what their rows are. */
void exchangeRoutes(Operation& operation, HandleState& handle, const ArenaLayout& layout,
                    const std::vector<Input>& topkWeights);
/** Sends the rows of a plane and relays what comes. */
void forwardPlane(Operation& operation, const HandleState& handle, const ArenaLayout& layout, const PlaneBuffers& buffers,
                  const std::vector<Input>& input, int plane);
/** Hybrid-ep: combined probs, own node's and others'. */
void combineProbs(Operation& operation, const HandleState& handle, const ArenaLayout& layout,
                  const std::vector<std::shared_ptr<Tensor>>& out);
/** Lists that a rank pushes along and sums by: those with one entry per other node, where there are. */
const kernels::SendLists& pushLists(const RankHandleState& own);
int64_t relayedRows(const RankHandleState& own);

}  // namespace fa2a
