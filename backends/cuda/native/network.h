// What crosses processes: one communicator per local rank and hop (kernels/hops.cuh), each with a stream of its own, so
// that rows travel while others are copied. docs/clusters.md has the data path.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../kernels/counts.h"
#include "group.h"
#include "nccl.h"

namespace fa2a {

enum class HopKind : size_t { Rail, Node };
constexpr HopKind HOPS[] = {HopKind::Rail, HopKind::Node};

/**
 * Rows of one rank to or from every place of a hop; its own has none. All rows of a part are together, places one after the
 * other: a rail's parts are those of the sources' tokens (kernels/counts.h); in a node the rank's own tokens come before
 * what it relays of each of them.
 */
class HopRows {
 public:
  static constexpr int MAX_PARTS = kernels::NUM_PARTS + 1;
  struct Range {
    int64_t first;
    int64_t rows;
  };

  HopRows() = default;
  /** `counts`: [parts][places]. */
  explicit HopRows(const std::vector<std::vector<int64_t>>& counts);

  int numParts() const { return static_cast<int>(places_.size()); }
  /** Rows of a part, of all places. */
  Range part(int part) const;
  /** Those of one place. */
  Range at(int part, int place) const { return places_[static_cast<size_t>(part)][static_cast<size_t>(place)]; }

  int64_t total = 0;

 private:
  /** [parts][places]. */
  std::vector<std::vector<Range>> places_;
};

/** One hop of one rank's handle. */
struct HandleHop {
  HopRows sent;
  HopRows received;
  /** [places, parts] where each part begins in the send buffer. */
  kernels::PartStart* parts = nullptr;
  /** [items, places] row of the send buffer, -1 = none. */
  int32_t* row = nullptr;
  int64_t numItems = 0;
  /** The first of the items that came by this hop; the rank's own tokens are items too. */
  int64_t firstItem = 0;
  /** What the send buffer's rows are, as a destination knows its rows: combine returns through it. */
  kernels::Rows sentRows = {};
};

/** The network part of one rank's handle. */
struct RankNetwork {
  Memory memory;
  HandleHop hops[2];
  /** Rows that came by any hop. */
  int64_t numRelayed = 0;
  /** [relayed]: whose rows they are; [relayed, topk]: their slots behind this rank; [relayed, width]: as send lists. */
  int32_t* srcRank = nullptr;
  int32_t* srcToken = nullptr;
  int32_t* slotExpert = nullptr;
  int32_t* slotRow = nullptr;
  int32_t* weights = nullptr;
  kernels::SendLists relayed = {};
  /** [tokens + relayed, width]: lists with one entry per place of a hop. */
  kernels::SendLists merged = {};
  /** [tokens, width]: the ranks in this process alone. */
  kernels::SendLists local = {};

  HandleHop& hop(HopKind kind) { return hops[static_cast<size_t>(kind)]; }
  const HandleHop& hop(HopKind kind) const { return hops[static_cast<size_t>(kind)]; }
};

/** One side of a transfer: rows of `rowBytes` by place. */
struct RowBuffer {
  char* data;
  const HopRows* rows;
};

class Network {
 public:
  Network(Group& group, const fa2a_group_options& options);
  ~Network();

  bool has(HopKind kind) const { return !hops_[static_cast<size_t>(kind)].empty(); }
  /** The hop as kernels know it. */
  kernels::Hop hop(HopKind kind, const Rank& rank) const;
  int ranksPerProcess() const { return ranksPerProcess_; }

  /** Every place's block of `bytes` to `table`, where this rank's already is. On the rank's comm stream. */
  void gather(Operation& operation, HopKind kind, size_t local, char* table, size_t bytes);
  /** Sends and receives one part (-1: all) on the hop's stream, after what the comm stream holds now. */
  void exchange(Operation& operation, HopKind kind, size_t local, const char* phase, int part, const RowBuffer& from,
                const RowBuffer& to, size_t rowBytes, int plane = 0);
  /** The comm stream waits for what was sent and received with that part. */
  void arrive(HopKind kind, size_t local, int part, int plane = 0);

  /** What went wrong with the communicators; empty: nothing. */
  std::string failure();
  /** Ends everything that is pending; of any thread. `why` is what later calls say. */
  void abort(const std::string& why);
  /** Begins the table of an operation; the first one meets the other processes. */
  void begin();
  /** The first of waits() in words, and how many more there are: part of one line. */
  std::string table();
  /** What has not arrived, or had not when the network was given up. */
  std::vector<fa2a_wait> waits();

  /** Counts the rows that a handle's dispatches and combines write to other ranks of this process. */
  void useLinks(const std::shared_ptr<HandleState>& handle, size_t rowBytes, bool dispatched);
  /** Adds up what useLinks noted; the devices must be done with it. */
  void settleLinks();

  std::vector<fa2a_network_info> sent;

 private:
  struct Rail {
    nccl::Comm comm = nullptr;
    Stream stream;
    Event ready;
    /** Per plane and part. */
    Event arrived[2][HopRows::MAX_PARTS];
  };
  struct Step {
    std::string phase;
    int32_t rank;
    int32_t srcRank;
    int64_t bytes;
    std::shared_ptr<Event> done;
  };
  struct LinkUse {
    std::shared_ptr<HandleState> handle;
    size_t rowBytes;
    bool dispatched;
  };
  /** Waits, before the first operation, until the other processes have opened their communicators too. */
  void meet();
  void open(HopKind kind, const uint8_t* ids, bool oneForAll);
  Rail& rail(HopKind kind, size_t local) { return hops_[static_cast<size_t>(kind)][local]; }
  int placeOf(HopKind kind, const Rank& rank) const;
  void call(nccl::Result result, const char* what, Rail& rail, int32_t rank);
  void settle(const char* what, Rail& rail, int32_t rank);
  /** One look: false while the communicator is busy; fails when it is broken, or the deadline has passed. */
  bool isSettled(const char* what, Rail& rail, int32_t rank, const Deadline& deadline);
  void abortAll(const std::string& why);
  void endAll(nccl::Result (*end)(nccl::Comm));
  std::vector<fa2a_wait> outstanding();

  Group& group_;
  const nccl::Api& api_;
  int ranksPerProcess_;
  /** Per hop, per local rank; empty = no such hop. */
  std::deque<Rail> hops_[2];
  std::vector<Step> steps_;
  /** The table of the failure. */
  std::vector<fa2a_wait> left_;
  std::vector<LinkUse> links_;
  std::mutex mutex_;
  std::string aborted_;
  bool met_ = false;
};

/**
 * One word from every rank to every place it talks with: NCCL connects with the first bytes of a communicator (50 to 60 ms
 * each on one H100), so no operation pays for that, and a closed path is named before there are rows to lose.
 */
void connect(Group& group);

/** Bytes of fa2a_network_id for a group whose processes hold that many ranks. */
int64_t networkIdBytes(int32_t numRanks, int32_t ranksPerNode, int32_t numLocal);
/** Whether this process holds one node's ranks, or one; throws Unavailable otherwise. */
void checkProcess(const fa2a_group_options& options, int32_t ranksPerNode);

// ---- routes.cu: which rows cross, and where they go ----

/** Bad expert ids are told to all ranks, with the counts. */
void markBadSlots(Operation& operation, const HandleState& handle, const ArenaLayout& layout);
/** Brings all counts to all ranks. */
void gatherCounts(Operation& operation, const HandleState& handle, const ArenaLayout& layout);
/** After the counts: how many rows cross, and room for what the handle keeps of them. Waits for the devices. */
void sizeNetwork(Operation& operation, HandleState& handle, const ArenaLayout& layout);
/** Notes how many rows a rank writes to others of its process, in its report. */
void countLinks(Operation& operation, HandleState& handle);
/** Tells relays and destinations what their rows are. */
void exchangeRoutes(Operation& operation, HandleState& handle, const std::vector<Input>& topkWeights);
/** Then: one list per item, and the destinations' view of them. */
void linkRoutes(Operation& operation, HandleState& handle, const ArenaLayout& layout, const std::vector<Input>& topkWeights,
                bool newRouting);

// ---- relay.cu: the rows themselves ----

/** Send and receive buffers of one plane: per hop, per local rank. */
struct PlaneBuffers {
  std::vector<Memory> send[2];
  std::vector<Memory> receive[2];
};
PlaneBuffers makeBuffers(Group& group, const HandleState& handle, size_t rowBytes);
/** Makes the send buffers the memory of the ranks behind each hop. */
void publishHops(Operation& operation, const HandleState& handle, const ArenaLayout& layout, const PlaneBuffers& rows,
                 const PlaneBuffers& scales);
/** Sends the rows of a plane that hops bring from here, part by part: the first part's copy is all that comes before. */
void sendRows(Operation& operation, const HandleState& handle, const PlaneBuffers& buffers, const std::vector<Input>& input,
              int plane);
/** Copies on what comes. */
void relayRows(Operation& operation, const HandleState& handle, const ArenaLayout& layout, const PlaneBuffers& buffers,
               const std::vector<Input>& input, int plane);
/** Hybrid-ep: combined probs, of ranks in this process and in others. */
void combineProbs(Operation& operation, const HandleState& handle, const ArenaLayout& layout,
                  const std::vector<std::shared_ptr<Tensor>>& out);
/** Lists that a rank sums by: one entry per place of a hop, where there are. */
const kernels::SendLists& sumLists(const RankHandleState& own);
/** Lists that a rank pushes its tokens along: ranks in this process. */
const kernels::SendLists& pushLists(const RankHandleState& own);
/** The lists from an item on. */
kernels::SendLists listsFrom(const kernels::SendLists& lists, int64_t item, int32_t width);
int64_t relayedRows(const RankHandleState& own);

}  // namespace fa2a
