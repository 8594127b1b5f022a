// A group: its ranks, the memory they exchange through, and the barriers between them.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "objects.h"

namespace fa2a {

enum class Work { Preprocessing, Dispatch, Permute, Combine, Unpermute };

/** Bytes and places of one rank's communication memory. */
struct ArenaLayout {
  size_t tableOffset = 0;
  size_t tilesOffset = 0;
  size_t beginOffset = 0;
  size_t wantedOffset = 0;
  size_t stagingOffset = 0;
  size_t stagingWeightsOffset = 0;
  fa2a_buffer_bytes bytes = {};
};
ArenaLayout arenaLayout(const fa2a_buffer_shape& shape);

class Network;

struct GraphState {
  std::shared_ptr<Group> group;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  std::vector<std::shared_ptr<Tensor>> tensors;
  std::vector<std::shared_ptr<HandleState>> handles;
  int numOperations = 0;
  ~GraphState();
};

class Group : public std::enable_shared_from_this<Group> {
 public:
  explicit Group(const fa2a_group_options& options);
  ~Group();
  void configure(const fa2a_group_options& options, bool creating);
  void setNumSms(int32_t numSms);
  void close();

  int32_t numRanks() const { return numRanks_; }
  int32_t ranksPerNode() const { return ranksPerNode_; }
  size_t numLocal() const { return ranks.size(); }
  /** Whether every rank of this process is on one device: then no row crosses a link. */
  bool onOneDevice() const;
  /** Blocks that a kernel for `work` may use; `operationCap` is the operation's own limit, 0 = none. */
  unsigned blocks(Work work, const Rank& rank, int32_t operationCap, int64_t needed) const;
  /** Over several processes rows are always pushed. */
  bool pull() const { return options_.combine_path == FA2A_COMBINE_PULL && network == nullptr; }
  bool recordTimings() const { return options_.record_timings != 0; }
  Deadline deadline() const { return Deadline(options_.deadline_ms); }

  /** Grows every rank's arena to the layout's bytes; waits for the devices when it must. */
  void reserve(size_t bytes);
  void release();
  kernels::Arenas arenas(size_t local, const ArenaLayout& layout) const;
  void synchronize();
  /** Which rank waits at which barrier for whom: the text of a timeout. */
  std::string waitTable() const;
  void requireOpen() const;
  /** Throws Unavailable in a group over several processes. */
  void requireOneProcess(const char* what) const;
  /** Polls until the event is done; false after the deadline. Throws when a device or the network failed. */
  bool waitFor(cudaEvent_t event, const Deadline& deadline, int32_t rank);
  /** After a failure of the network: its memory goes back, the process stays alive. Under the lock. */
  void giveUp();

  std::vector<std::shared_ptr<Rank>> ranks;
  std::mutex mutex;
  bool usable = true;
  bool closed = false;
  /** Null when all ranks are here. */
  std::unique_ptr<Network> network;
  int64_t reallocations = 0;
  /** Set between fa2a_graph_begin and fa2a_graph_end. */
  std::shared_ptr<GraphState> capture;
  /** What is running now: name of the operation and names of its barriers so far. */
  std::string operation;
  std::vector<std::string> barrierNames;

 private:
  void enablePeers();

  int32_t numRanks_ = 0;
  int32_t ranksPerNode_ = 0;
  fa2a_group_options options_ = {};
};

/** One operation while it is being enqueued. */
class Operation {
 public:
  Operation(Group& group, const char* name, const fa2a_stream_options& options);

  /** Runs `body(local, rank)` for every local rank on its device, as one timed phase. */
  void phase(const char* name, const std::function<void(size_t, Rank&)>& body, bool waiting = false);
  /** Times what `body` enqueues on `stream`, as one phase of a rank; `srcRank`: whose rows it waits for, -1 = nobody's alone. */
  void timed(const Rank& rank, cudaStream_t stream, const char* name, bool waiting, int32_t srcRank,
             const std::function<void()>& body);
  /** Nothing after it starts on any rank before everything before it is done on all ranks. */
  void barrier(const char* name);
  unsigned blocks(Work work, const Rank& rank, int64_t needed) const {
    return group_.blocks(work, rank, options_.num_sms, needed);
  }
  /** Ends the operation and, unless it is asynchronous, waits for it. */
  std::shared_ptr<EventState> finish(const std::shared_ptr<HandleState>& handle);
  /** Waits on the host for everything enqueued so far. */
  void wait();
  bool capturing() const { return group_.capture != nullptr; }
  bool ofComm() const { return options_.allocate_on_comm_stream != 0; }
  Group& group() { return group_; }

 private:
  Group& group_;
  const fa2a_stream_options options_;
  std::shared_ptr<EventState> event_;
  int numBarriers_ = 0;
};

/** Waits on the host until the event is done; reports bad ids of device-resident routing. */
void waitEvent(EventState& event, const Deadline& deadline);
struct Input;
/** Throws InvalidArgument when a rank's report names a bad expert id; with its value where `topkIdx` still holds it. */
void checkReports(HandleState& handle, const std::vector<Input>* topkIdx = nullptr);

[[noreturn]] void failBadSlot(const fa2a_handle_meta& meta, int32_t rank, int32_t slot, const char* received);

/** An input: a tensor of the caller or host memory, which bring() uploads. */
struct Input {
  const void* data = nullptr;
  const void* host = nullptr;
  fa2a_dtype dtype = FA2A_U8;
  int64_t rows = 0;
  int64_t columns = 0;
  std::shared_ptr<Tensor> tensor;
  Memory uploaded;
};
/** Checks one array per local rank: dtype, one dtype and width on all ranks. Empty when `arrays` is null. */
std::vector<Input> describeInputs(const Group& group, const char* name, const fa2a_array* arrays,
                                  std::initializer_list<fa2a_dtype> dtypes);
/** Throws unless input i has rows[i] rows and, when columns >= 0, that many columns. */
void expectRows(const Group& group, const char* name, const std::vector<Input>& inputs, const std::vector<int64_t>& rows,
                int64_t columns = -1);
/** Uploads what is in host memory. */
void bring(Operation& operation, std::vector<Input>& inputs);
std::shared_ptr<Tensor> makeTensor(const std::shared_ptr<Rank>& rank, fa2a_dtype dtype, int64_t rows, int64_t columns,
                                   bool ofComm);

const char* dtypeName(fa2a_dtype dtype);
std::string shapeText(fa2a_dtype dtype, int64_t rows, int64_t columns);

}  // namespace fa2a
