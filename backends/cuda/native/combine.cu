#include "../kernels/reduce.cuh"

#include <algorithm>

#include "launch.h"
#include "layout.h"
#include "network.h"
#include "operations.h"
#include "rows.h"

namespace fa2a {

namespace {

struct Request {
  std::vector<Input> x;
  std::vector<Input> weights;
  std::vector<Input> probs;
  std::vector<Input> bias0;
  std::vector<Input> bias1;
};

/** What one plane (rows or weights) of a combine is made of. */
struct Plane {
  const std::vector<Input>* input;
  std::vector<std::shared_ptr<Tensor>>* output;
  int which;
};

/** Calls f.operator()<D, V>() for the dtype and the widest access that divides the row. */
template <class D, class F>
void withWidth(size_t bytes, F& f) {
  if (bytes % 16 == 0) {
    f.template operator()<D, uint4>();
  } else {
    f.template operator()<D, typename D::Code>();
  }
}

template <class F>
void withTypes(fa2a_dtype dtype, size_t bytes, F f) {
  if (dtype == FA2A_BF16) {
    withWidth<kernels::Bf16>(bytes, f);
  } else if (dtype == FA2A_FP16) {
    withWidth<kernels::Fp16>(bytes, f);
  } else {
    withWidth<kernels::Fp32>(bytes, f);
  }
}

/** Pull: where the sums of several rows lie in the expert's own arena. */
char* ownSums(const Rank& rank, const ArenaLayout& layout, int which) {
  return rank.arena + (which == 0 ? layout.stagingOffset : layout.stagingWeightsOffset);
}

void returnPlane(Operation& operation, const HandleState& handle, const ArenaLayout& layout, const Plane& plane,
                 kernels::Sources sources = kernels::Sources::All) {
  const bool push = !operation.group().pull();
  // A pull reads rows that are alone in place: only hybrid-ep has others.
  if (!push && !handle.hybrid()) return;
  operation.phase(plane.which == 0 ? "return" : "return weights", [&](size_t local, Rank& rank) {
    const RankHandleState& own = handle.ranks[local];
    const Input& input = (*plane.input)[local];
    if (own.numRows == 0) return;
    const size_t bytes = rowBytes(input.columns, input.dtype);
    kernels::ReturnArgs args = {};
    args.arenas = operation.group().arenas(local, layout);
    args.rank = rank.rank;
    args.numRows = own.numRows;
    args.rows = own.rows;
    args.plane = input.data;
    args.which = plane.which;
    args.push = push;
    args.sums = ownSums(rank, layout, plane.which);
    args.bulk = bulkShape(bytes);
    args.sources = sources;
    args.ranksPerNode = handle.meta.ranks_per_node;
    // Bulk copies save SMs where rows cross a link. Within a device a launch of their own only delays the sums.
    const bool bulk = push && bulkFits(rank, bytes) && !(handle.hybrid() && operation.group().onOneDevice());
    args.skipSingle = bulk || !push;
    if (bulk) {
      const int64_t needed = (own.numRows + kernels::BULK_WARPS - 1) / kernels::BULK_WARPS;
      launch("returnRowsBulk", kernels::returnRowsBulk, operation.blocks(Work::Combine, rank, needed),
             32 * kernels::BULK_WARPS, bulkSharedBytes(args.bulk), rank.comm, args);
    }
    if (args.skipSingle && !handle.hybrid()) return;
    withTypes(input.dtype, bytes, [&]<class D, class V>() {
      args.count = static_cast<int>(bytes / sizeof(V));
      const unsigned blocks = operation.blocks(Work::Combine, rank, (own.numRows + ROW_WARPS - 1) / ROW_WARPS);
      launch("returnRows", kernels::returnRows<D, V>, blocks, 32 * ROW_WARPS, 0, rank.comm, args);
    });
  });
}

/** Sums what came back for items that are relayed here, in rank order: the rows that cross. */
void reduceRelay(Operation& operation, const HandleState& handle, const ArenaLayout& layout, const Plane& plane, size_t local,
                 Rank& rank, int64_t item, int64_t rows, char* out) {
  const Input& input = (*plane.input)[local];
  const size_t bytes = rowBytes(input.columns, input.dtype);
  kernels::ReduceArgs args = {};
  args.shape = handle.shape(local);
  args.shape.numTokens = static_cast<int>(rows);
  args.arenas = operation.group().arenas(local, layout);
  (plane.which == 0 ? args.arenas.stagingOffset : args.arenas.stagingWeightsOffset) += static_cast<size_t>(item * handle.groups()) * bytes;
  args.send = listsFrom(handle.ranks[local].network->merged, item, handle.width);
  args.groups = handle.groups();
  args.which = plane.which;
  args.push = true;
  args.out = out;
  withTypes(input.dtype, bytes, [&]<class D, class V>() {
    args.count = static_cast<int>(bytes / sizeof(V));
    const unsigned blocks = operation.blocks(Work::Combine, rank, (rows + ROW_WARPS - 1) / ROW_WARPS);
    launch("reduceTokens", kernels::reduceTokens<D, V, false>, blocks, 32 * ROW_WARPS, 0, rank.comm, args);
  });
}

/** What came back over a hop goes to the staging places of the items it belongs to. */
void returnPart(Operation& operation, const ArenaLayout& layout, const Plane& plane, const HandleHop& hop, size_t local, Rank& rank,
                const HopRows::Range& part, char* received) {
  const Input& input = (*plane.input)[local];
  const size_t bytes = rowBytes(input.columns, input.dtype);
  kernels::ReturnArgs args = {};
  args.arenas = operation.group().arenas(local, layout);
  args.rank = rank.rank;
  args.numRows = static_cast<int>(part.rows);
  const kernels::Rows& rows = hop.sentRows;
  args.rows = {rows.srcRank + part.first, rows.srcToken + part.first, rows.next + part.first, rows.back + part.first};
  args.plane = received + static_cast<size_t>(part.first) * bytes;
  args.which = plane.which;
  args.push = true;
  withTypes(input.dtype, bytes, [&]<class D, class V>() {
    args.count = static_cast<int>(bytes / sizeof(V));
    const unsigned blocks = operation.blocks(Work::Combine, rank, (part.rows + ROW_WARPS - 1) / ROW_WARPS);
    launch("returnRows", kernels::returnRows<D, V>, blocks, 32 * ROW_WARPS, 0, rank.comm, args);
  });
}

/** The sums of other processes go back to where their rows came from, into the staging place that each hop's place has there. */
class NetworkReturn {
 public:
  NetworkReturn(Operation& operation, const HandleState& handle, const ArenaLayout& layout, const Plane& plane)
      : operation_(operation), handle_(handle), layout_(layout), plane_(plane),
        bytes_(rowBytes((*plane.input)[0].columns, (*plane.input)[0].dtype)),
        // What a relay received in dispatch it sends now: the buffers change places.
        buffers_(makeBuffers(operation.group(), handle, bytes_)) {}

  size_t rowBytesEach() const { return bytes_; }

  /** Sums one part of what came by a hop and sends it back. */
  void send(HopKind kind, int part) {
    const auto k = static_cast<size_t>(kind);
    const char* phases[2][2] = {{"network sums", "network weights"}, {"node sums", "node weights"}};
    Group& group = operation_.group();
    operation_.phase(kind == HopKind::Rail ? "relay sums" : "node relay sums", [&](size_t local, Rank& rank) {
      const HandleHop& hop = handle_.ranks[local].network->hop(kind);
      const HopRows::Range rows = hop.received.part(part);
      if (rows.rows == 0) return;
      reduceRelay(operation_, handle_, layout_, plane_, local, rank, hop.firstItem + rows.first, rows.rows,
                  buffers_.receive[k][local].data() + static_cast<size_t>(rows.first) * bytes_);
    });
    for (size_t local = 0; local < group.numLocal(); local++) {
      const HandleHop& hop = handle_.ranks[local].network->hop(kind);
      group.network->exchange(operation_, kind, local, phases[k][plane_.which], part, {buffers_.receive[k][local].data(), &hop.received},
                              {buffers_.send[k][local].data(), &hop.sent}, bytes_, plane_.which);
      if (kind != HopKind::Rail || part != 0) continue;
      if (plane_.which == 0) group.network->sent[local].rows_combined += hop.received.total;
      group.network->sent[local].row_bytes += hop.received.total * static_cast<int64_t>(bytes_);
    }
  }

  /** What came back goes to its staging places. */
  void arrive(HopKind kind, int part) {
    const auto k = static_cast<size_t>(kind);
    operation_.phase(kind == HopKind::Rail ? "network return" : "node return", [&](size_t local, Rank& rank) {
      const HandleHop& hop = handle_.ranks[local].network->hop(kind);
      operation_.group().network->arrive(kind, local, part, plane_.which);
      const HopRows::Range rows = hop.sent.part(part);
      if (rows.rows > 0) returnPart(operation_, layout_, plane_, hop, local, rank, rows, buffers_.send[k][local].data());
    });
  }

 private:
  Operation& operation_;
  const HandleState& handle_;
  const ArenaLayout& layout_;
  const Plane& plane_;
  size_t bytes_;
  PlaneBuffers buffers_;
};

/** Returns over several processes: rows of other nodes' sources first, the rest while those sums are on their way. */
void returnAll(Operation& operation, const std::shared_ptr<HandleState>& handle, const ArenaLayout& layout,
               const std::vector<Plane>& planes) {
  Network& network = *operation.group().network;
  const bool rail = network.has(HopKind::Rail), node = network.has(HopKind::Node);
  std::vector<NetworkReturn> returns;
  for (const Plane& plane : planes) returns.emplace_back(operation, *handle, layout, plane);
  if (rail) {
    for (const Plane& plane : planes) returnPlane(operation, *handle, layout, plane, kernels::Sources::OtherNodes);
    operation.barrier("relayed");
    for (NetworkReturn& one : returns) {
      for (int part = 0; node && part < kernels::NUM_PARTS; part++) one.send(HopKind::Node, part + 1);
      for (int part = 0; part < kernels::NUM_PARTS; part++) {
        if (node) one.arrive(HopKind::Node, part + 1);
        one.send(HopKind::Rail, part);
      }
    }
  }
  for (const Plane& plane : planes) returnPlane(operation, *handle, layout, plane, kernels::Sources::OwnNode);
  operation.barrier("returned");
  for (NetworkReturn& one : returns) {
    if (node) one.send(HopKind::Node, 0);
    if (node) one.arrive(HopKind::Node, 0);
    for (int part = 0; rail && part < kernels::NUM_PARTS; part++) one.arrive(HopKind::Rail, part);
  }
  size_t linkBytes = 0;
  for (const NetworkReturn& one : returns) linkBytes += one.rowBytesEach();
  network.useLinks(handle, linkBytes, false);
}

void reducePlane(Operation& operation, const HandleState& handle, const ArenaLayout& layout, const Plane& plane,
                 const Request& inputs) {
  const bool nodes = handle.meta.ranks_per_node != handle.meta.num_ranks;
  operation.phase(plane.which == 0 ? "reduce" : "reduce weights", [&](size_t local, Rank& rank) {
    const RankHandleState& own = handle.ranks[local];
    const Input& input = (*plane.input)[local];
    if (own.numTokens == 0) return;
    const size_t bytes = rowBytes(input.columns, input.dtype);
    kernels::ReduceArgs args = {};
    args.shape = handle.shape(local);
    args.arenas = operation.group().arenas(local, layout);
    args.send = sumLists(own);
    args.groups = handle.groups();
    args.which = plane.which;
    args.push = !operation.group().pull();
    if (plane.which == 0 && !inputs.bias0.empty()) args.bias0 = inputs.bias0[local].data;
    if (plane.which == 0 && !inputs.bias1.empty()) args.bias1 = inputs.bias1[local].data;
    args.out = (*plane.output)[local]->memory.data();
    withTypes(input.dtype, bytes, [&]<class D, class V>() {
      args.count = static_cast<int>(bytes / sizeof(V));
      const unsigned blocks = operation.blocks(Work::Unpermute, rank, (own.numTokens + ROW_WARPS - 1) / ROW_WARPS);
      const auto kernel = nodes ? kernels::reduceTokens<D, V, true> : kernels::reduceTokens<D, V, false>;
      launch("reduceTokens", kernel, blocks, 32 * ROW_WARPS, 0, rank.comm, args);
    });
  });
}

Request describe(const Group& group, const fa2a_combine_request& request, const HandleState& handle) {
  std::vector<int64_t> rows, tokens;
  for (const RankHandleState& rank : handle.ranks) {
    rows.push_back(rank.numRows);
    tokens.push_back(rank.numTokens);
  }
  if (request.x == nullptr) failArgument("x", "one array per local rank", "null", "pass one row per row of the handle");
  const auto refuse = [](bool wrong, const char* name, const char* expected, const char* received) {
    if (wrong) failArgument(name, expected, received, "correct the argument");
  };
  refuse(handle.hybrid() && request.topk_weights != nullptr, "topkWeights", "a fused handle", "a hybrid-ep one; pass probs instead");
  refuse(!handle.hybrid() && request.probs != nullptr, "probs", "a hybrid-ep handle", "a fused one; pass topkWeights instead");
  refuse(request.bias0 == nullptr && request.bias1 != nullptr, "bias1", "bias0 as well", "bias1 alone");
  Request inputs;
  inputs.x = describeInputs(group, "x", request.x, {FA2A_BF16, FA2A_FP16, FA2A_FP32});
  inputs.weights = describeInputs(group, "topkWeights", request.topk_weights, {FA2A_FP32});
  inputs.probs = describeInputs(group, "probs", request.probs, {FA2A_FP32});
  inputs.bias0 = describeInputs(group, "bias0", request.bias0, {inputs.x[0].dtype});
  inputs.bias1 = describeInputs(group, "bias1", request.bias1, {inputs.x[0].dtype});
  expectRows(group, "x", inputs.x, rows);
  expectRows(group, "topkWeights", inputs.weights, rows);
  expectRows(group, "probs", inputs.probs, rows, 1);
  expectRows(group, "bias0", inputs.bias0, tokens, inputs.x[0].columns);
  expectRows(group, "bias1", inputs.bias1, tokens, inputs.x[0].columns);
  return inputs;
}

/** One output per rank: new, or that of an earlier combine. */
std::vector<std::shared_ptr<Tensor>> outputsOf(const Group& group, const HandleState& handle, fa2a_dtype dtype,
                                               int64_t columns, fa2a_tensor** reuse, bool into, bool ofComm) {
  std::vector<std::shared_ptr<Tensor>> outputs;
  for (size_t local = 0; local < group.numLocal(); local++) {
    const int64_t tokens = handle.ranks[local].numTokens;
    if (!into) {
      outputs.push_back(makeTensor(group.ranks[local], dtype, tokens, columns, ofComm));
      continue;
    }
    outputs.push_back(stateOf(reuse == nullptr ? nullptr : reuse[local]));
    const Tensor& tensor = *outputs.back();
    if (tensor.dtype == dtype && tensor.rows == tokens && tensor.columns == columns) continue;
    failArgument("into", shapeText(dtype, tokens, columns), shapeText(tensor.dtype, tensor.rows, tensor.columns),
                 "pass the result of a combine with the same shapes", {.rank = group.ranks[local]->rank});
  }
  return outputs;
}

}  // namespace

void combine(Group& group, const fa2a_combine_request& request, fa2a_combine_result& result) {
  group.requireOpen();
  const std::shared_ptr<HandleState> handle = stateOf(request.handle);
  checkHandle(group, *handle);
  Request inputs = describe(group, request, *handle);
  const bool capturing = group.capture != nullptr;
  const bool into = request.into != nullptr;
  if (result.x == nullptr) failArgument("result.x", "an array for the outputs", "null", "pass one pointer per local rank");
  if (capturing && (!into || request.stream.async_finish == 0)) {
    failArgument("into", "an earlier result and async_finish during a capture", "neither or one of them",
                 "combine once before the capture and pass its result");
  }
  fa2a_buffer_shape shape = bufferShape(group, *handle, static_cast<int64_t>(rowBytes(inputs.x[0].columns, inputs.x[0].dtype)), false);
  if (!inputs.weights.empty()) {
    // Weights may have another width than topk (a gradient of any columns): room for theirs.
    shape.weights = 1;
    shape.topk = handle->meta.topk;
  }
  // Relays have staging places behind their own tokens'.
  for (const RankHandleState& rank : handle->ranks) {
    shape.num_tokens = std::max(shape.num_tokens, rank.numTokens + relayedRows(rank));
  }
  ArenaLayout layout = arenaLayout(shape);
  if (!inputs.weights.empty()) {
    const int64_t extra = inputs.weights[0].columns - handle->meta.topk;
    const int64_t rows = group.pull() ? shape.num_rows : shape.num_tokens * handle->groups();
    if (extra > 0) layout.bytes.total += extra * rows * static_cast<int64_t>(sizeof(float));
  }
  group.reserve(static_cast<size_t>(layout.bytes.total));
  const bool ofComm = request.stream.allocate_on_comm_stream != 0;
  const fa2a_combine_result none = {};
  const fa2a_combine_result& old = into ? *request.into : none;
  std::vector<std::shared_ptr<Tensor>> x, weights, probs;
  x = outputsOf(group, *handle, inputs.x[0].dtype, inputs.x[0].columns, old.x, into, ofComm);
  if (!inputs.weights.empty()) {
    weights = outputsOf(group, *handle, FA2A_FP32, inputs.weights[0].columns, old.topk_weights, into, ofComm);
  }
  if (!inputs.probs.empty()) probs = outputsOf(group, *handle, FA2A_FP32, handle->meta.num_experts, old.probs, into, ofComm);

  Operation operation(group, "combine", request.stream);
  for (auto* list : {&inputs.x, &inputs.weights, &inputs.probs, &inputs.bias0, &inputs.bias1}) bring(operation, *list);
  std::vector<Plane> planes = {{&inputs.x, &x, 0}};
  if (!inputs.weights.empty()) planes.push_back({&inputs.weights, &weights, 1});
  const bool remoteReads = group.pull() || !inputs.probs.empty();
  operation.barrier("entry");
  if (remoteReads) {
    publishViews(operation, layout, [&](size_t local) {
      kernels::RankView view = {};
      for (const Plane& plane : planes) {
        view.planes[plane.which] = const_cast<void*>((*plane.input)[local].data);
        view.sums[plane.which] = ownSums(*group.ranks[local], layout, plane.which);
      }
      if (!inputs.probs.empty()) view.weights = static_cast<float*>(const_cast<void*>(inputs.probs[local].data));
      return view;
    });
  }
  if (group.network != nullptr) {
    returnAll(operation, handle, layout, planes);
  } else {
    for (const Plane& plane : planes) returnPlane(operation, *handle, layout, plane);
    operation.barrier("returned");
  }
  for (const Plane& plane : planes) reducePlane(operation, *handle, layout, plane, inputs);
  if (!probs.empty() && group.network != nullptr) {
    combineProbs(operation, *handle, layout, probs);
  } else if (!probs.empty()) {
    operation.phase("probs", [&](size_t local, Rank& rank) {
      const kernels::ProbsArgs args = {handle->shape(local), group.arenas(local, layout), handle->ranks[local].send,
                                       reinterpret_cast<uint32_t*>(probs[local]->memory.data())};
      if (handle->ranks[local].numTokens == 0) return;
      const int64_t needed = (handle->ranks[local].numTokens + ROW_WARPS - 1) / ROW_WARPS;
      launch("gatherProbs", kernels::gatherProbs, operation.blocks(Work::Unpermute, rank, needed), 32 * ROW_WARPS, 0,
             rank.comm, args);
    });
  }
  // Nobody's rows may be reused while another rank still reads them.
  if (remoteReads) operation.barrier("read");
  const auto event = operation.finish(nullptr);
  const auto give = [&](fa2a_tensor** to, const std::vector<std::shared_ptr<Tensor>>& tensors) {
    for (size_t local = 0; local < group.numLocal(); local++) {
      if (to != nullptr) to[local] = tensors.empty() ? nullptr : boxOf<fa2a_tensor>(tensors[local]);
      if (capturing && !tensors.empty()) group.capture->tensors.push_back(tensors[local]);
    }
  };
  give(result.x, x);
  give(result.topk_weights, weights);
  give(result.probs, probs);
  if (capturing) {
    for (const auto* list : {&inputs.x, &inputs.weights, &inputs.probs, &inputs.bias0, &inputs.bias1}) {
      for (const Input& input : *list) group.capture->tensors.push_back(input.tensor);
    }
    group.capture->handles.push_back(handle);
    group.capture->numOperations++;
  }
  result.event = boxOf<fa2a_event>(event);
}

}  // namespace fa2a
