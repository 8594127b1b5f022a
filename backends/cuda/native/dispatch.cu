#include "../kernels/dispatch.cuh"

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
  std::vector<Input> scales;
  std::vector<Input> topkIdx;
  std::vector<Input> topkWeights;
};

fa2a_handle_meta metaOf(const Group& group, const fa2a_dispatch_request& request, int32_t topk) {
  const bool hybrid = request.kind == FA2A_HYBRID_EP;
  fa2a_handle_meta meta = {};
  meta.kind = request.kind;
  meta.num_ranks = group.numRanks();
  meta.ranks_per_node = group.ranksPerNode();
  meta.num_experts = request.num_experts;
  meta.topk = topk;
  meta.expert_alignment = hybrid ? 1 : std::max(1, request.expert_alignment);
  meta.num_worst_tokens = hybrid ? 0 : request.num_worst_tokens;
  meta.pad_multiple = hybrid ? std::max<int64_t>(1, request.pad_multiple) : 1;
  meta.num_permuted_tokens = hybrid ? request.num_permuted_tokens : -1;
  return meta;
}

void checkSettings(const Group& group, const fa2a_dispatch_request& request, int64_t topk) {
  const auto atLeast = [](const char* name, int64_t value, int64_t least) {
    if (value < least || value > INT32_MAX) {
      failArgument(name, format("%lld..%d", static_cast<long long>(least), INT32_MAX), std::to_string(value),
                   "correct the argument");
    }
  };
  atLeast("numExperts", request.num_experts, 1);
  if (request.num_experts % group.numRanks() != 0) {
    failArgument("numExperts", format("a multiple of numRanks %d", group.numRanks()),
                 std::to_string(request.num_experts), "use redundant or empty experts, or another number of ranks");
  }
  if (topk > request.num_experts) {
    failArgument("topk", format("1..%d (numExperts)", request.num_experts), std::to_string(topk),
                 "give topkIdx that many columns");
  }
  atLeast("expertAlignment", request.expert_alignment, 0);
  atLeast("numWorstTokens", request.num_worst_tokens, 0);
  atLeast("padMultiple", request.pad_multiple, 0);
  atLeast("numPermutedTokens", request.num_permuted_tokens, -1);
  const int64_t multiple = std::max<int64_t>(1, request.pad_multiple);
  if (request.kind == FA2A_HYBRID_EP && request.num_permuted_tokens >= 0 && request.num_permuted_tokens % multiple != 0) {
    failArgument("numPermutedTokens", format("a multiple of padMultiple %lld", static_cast<long long>(multiple)),
                 std::to_string(request.num_permuted_tokens), "round it up");
  }
}

/** The tensors that a dispatch of this request makes on one rank. */
DispatchOutputs makeOutputs(const Group& group, const HandleState& handle, const Request& request, size_t local,
                            const fa2a_dispatch_result& wanted, bool ofComm) {
  const auto& rank = group.ranks[local];
  const int64_t rows = handle.ranks[local].numRows;
  const bool newRouting = !request.topkIdx.empty();
  DispatchOutputs out;
  const auto make = [&](fa2a_dtype dtype, int64_t columns) { return makeTensor(rank, dtype, rows, columns, ofComm); };
  out.x = make(request.x[local].dtype, request.x[local].columns);
  if (!request.scales.empty() && wanted.scales != nullptr) out.scales = make(FA2A_FP32, request.scales[local].columns);
  if (!newRouting) return out;
  const bool weights = !request.topkWeights.empty();
  if (!handle.hybrid() && wanted.topk_idx != nullptr) out.topkIdx = make(handle.wideIds ? FA2A_I64 : FA2A_I32, handle.meta.topk);
  if (!handle.hybrid() && weights && wanted.topk_weights != nullptr) out.topkWeights = make(FA2A_FP32, handle.meta.topk);
  if (handle.hybrid() && weights && wanted.probs != nullptr) out.probs = make(FA2A_FP32, 1);
  return out;
}

/** The outputs of an earlier dispatch, checked against what this one would make. */
DispatchOutputs reuseOutputs(const HandleState& handle, const Request& request, size_t local,
                             const fa2a_dispatch_result& into) {
  const int64_t rows = handle.ranks[local].numRows;
  const auto take = [&](const char* name, fa2a_tensor** tensors, fa2a_dtype dtype, int64_t columns) {
    std::shared_ptr<Tensor> tensor = stateOf(tensors[local]);
    if (tensor->dtype != dtype || tensor->rows != rows || tensor->columns != columns) {
      failArgument(name, shapeText(dtype, rows, columns), shapeText(tensor->dtype, tensor->rows, tensor->columns),
                   "pass the result of a dispatch with the same shapes and settings",
                   {.rank = handle.ranks[local].rank->rank});
    }
    return tensor;
  };
  DispatchOutputs out;
  if (into.x == nullptr) failArgument("into", "a result with x", "one without", "pass an earlier result");
  out.x = take("into.x", into.x, request.x[local].dtype, request.x[local].columns);
  if (!request.scales.empty() && into.scales != nullptr) {
    out.scales = take("into.scales", into.scales, FA2A_FP32, request.scales[local].columns);
  }
  if (request.topkIdx.empty()) return out;
  const bool weights = !request.topkWeights.empty();
  if (!handle.hybrid() && into.topk_idx != nullptr) {
    out.topkIdx = take("into.topkIdx", into.topk_idx, handle.wideIds ? FA2A_I64 : FA2A_I32, handle.meta.topk);
  }
  if (!handle.hybrid() && weights && into.topk_weights != nullptr) {
    out.topkWeights = take("into.topkWeights", into.topk_weights, FA2A_FP32, handle.meta.topk);
  }
  if (handle.hybrid() && weights && into.probs != nullptr) out.probs = take("into.probs", into.probs, FA2A_FP32, 1);
  return out;
}

kernels::RankView viewOf(const RankHandleState& own, const DispatchOutputs& out, bool newRouting, bool hybrid) {
  kernels::RankView view = {};
  view.planes[0] = out.x->memory.data();
  if (out.scales != nullptr) view.planes[1] = out.scales->memory.data();
  if (!newRouting) return view;
  view.rowSrcRank = own.rows.srcRank;
  view.rowSrcToken = own.rows.srcToken;
  view.rowNext = own.rows.next;
  view.rowReturn = own.rows.back;
  view.topkIdx = out.topkIdx != nullptr ? out.topkIdx->memory.data() : own.ownIds.data();
  const auto& weights = hybrid ? out.probs : out.topkWeights;
  if (weights != nullptr) view.weights = reinterpret_cast<float*>(weights->memory.data());
  return view;
}

void pushPlane(Operation& operation, const HandleState& handle, const ArenaLayout& layout, const std::vector<Input>& input,
               int plane) {
  if (input.empty()) return;
  operation.phase(plane == 0 ? "push" : "push scales", [&](size_t local, Rank& rank) {
    const RankHandleState& own = handle.ranks[local];
    if (own.numTokens == 0) return;
    const size_t bytes = rowBytes(input[local].columns, input[local].dtype);
    launchPush(operation, rank, handle.shape(local), operation.group().arenas(local, layout), pushLists(own),
               input[local].data, plane, bytes);
  });
}

void fillPlane(Operation& operation, const HandleState& handle, const std::vector<DispatchOutputs>& outputs, int plane) {
  operation.phase(plane == 0 ? "fill" : "fill scales", [&](size_t local, Rank& rank) {
    const auto& tensor = plane == 0 ? outputs[local].x : outputs[local].scales;
    const RankHandleState& own = handle.ranks[local];
    if (tensor == nullptr || own.numRows == 0) return;
    const size_t bytes = rowBytes(tensor->columns, tensor->dtype);
    byWidth(bytes, [&](auto word) {
      using V = decltype(word);
      const kernels::FillArgs args = {own.numRows, own.rows, tensor->memory.data(), static_cast<int>(bytes / sizeof(V))};
      const unsigned blocks = operation.blocks(Work::Permute, rank, (own.numRows + ROW_WARPS - 1) / ROW_WARPS);
      launch("fillRows", kernels::fillRows<V>, blocks, 32 * ROW_WARPS, 0, rank.comm, args);
    });
  });
}

std::vector<int64_t> rowsOf(const std::vector<Input>& inputs) {
  std::vector<int64_t> rows;
  for (const Input& input : inputs) rows.push_back(input.rows);
  return rows;
}

Request describe(const Group& group, const fa2a_dispatch_request& request) {
  const auto rowTypes = {FA2A_BF16, FA2A_FP16, FA2A_FP32, FA2A_FP8E4M3, FA2A_U8};
  if (request.x == nullptr) failArgument("x", "one array per local rank", "null", "pass the rows to send");
  Request described;
  described.x = describeInputs(group, "x", request.x, rowTypes);
  described.scales = describeInputs(group, "scales", request.scales, {FA2A_FP32});
  described.topkIdx = describeInputs(group, "topkIdx", request.topk_idx, {FA2A_I32, FA2A_I64});
  described.topkWeights = describeInputs(group, "topkWeights", request.topk_weights, {FA2A_FP32});
  if (described.topkIdx.empty() == (request.handle == nullptr)) {
    failArgument("routing", "either routing or a cached handle", described.topkIdx.empty() ? "neither" : "both",
                 "pass topkIdx for a new dispatch, a handle to repeat one");
  }
  expectRows(group, "scales", described.scales, rowsOf(described.x));
  expectRows(group, "topkIdx", described.topkIdx, rowsOf(described.x));
  if (!described.topkIdx.empty()) {
    expectRows(group, "topkWeights", described.topkWeights, rowsOf(described.x), described.topkIdx[0].columns);
  } else if (!described.topkWeights.empty()) {
    failArgument("topkWeights", "none with a cached handle", "weights", "pass topkIdx too");
  }
  return described;
}

std::shared_ptr<HandleState> cachedHandle(const Group& group, const fa2a_dispatch_request& request, const Request& described) {
  std::shared_ptr<HandleState> handle = stateOf(request.handle);
  checkHandle(group, *handle);
  if (handle->meta.kind != request.kind) {
    failArgument("handle", request.kind == FA2A_FUSED ? "a fused handle" : "a hybrid-ep handle", "one of the other kind",
                 "use the handle of the same style");
  }
  std::vector<int64_t> rows;
  for (const RankHandleState& rank : handle->ranks) rows.push_back(rank.numTokens);
  expectRows(group, "x", described.x, rows);
  return handle;
}

/** The handle of an earlier dispatch with the same settings, to be overwritten. */
std::shared_ptr<HandleState> reusedHandle(const fa2a_dispatch_result& into, const fa2a_handle_meta& meta,
                                          const Request& described, bool wideIds) {
  std::shared_ptr<HandleState> handle = stateOf(into.handle);
  bool same = std::memcmp(&handle->meta, &meta, sizeof meta) == 0 && handle->wideIds == wideIds && !handle->uploaded;
  for (size_t i = 0; same && i < handle->ranks.size(); i++) same = handle->ranks[i].numTokens == described.x[i].rows;
  if (!same || handle->budget() == kernels::NO_BUDGET) {
    failArgument("into", "the result of a dispatch with the same sizes and settings and a row budget", "another one",
                 "run such a dispatch without into first");
  }
  return handle;
}

}  // namespace

void launchPush(Operation& operation, Rank& rank, const kernels::Shape& shape, const kernels::Arenas& arenas,
                const kernels::SendLists& send, const void* rows, int plane, size_t bytes) {
  const int64_t tokens = shape.numTokens;
  kernels::PushArgs args = {shape, arenas, send, rows, plane, 0, bulkShape(bytes)};
  if (bulkFits(rank, bytes)) {
    const unsigned blocks = operation.blocks(Work::Dispatch, rank, (tokens + kernels::BULK_WARPS - 1) / kernels::BULK_WARPS);
    launch("pushRowsBulk", kernels::pushRowsBulk, blocks, 32 * kernels::BULK_WARPS, bulkSharedBytes(args.bulk), rank.comm, args);
    return;
  }
  byWidth(bytes, [&](auto word) {
    using V = decltype(word);
    args.count = static_cast<int>(bytes / sizeof(V));
    const unsigned blocks = operation.blocks(Work::Dispatch, rank, (tokens + ROW_WARPS - 1) / ROW_WARPS);
    launch("pushRows", kernels::pushRows<V>, blocks, 32 * ROW_WARPS, 0, rank.comm, args);
  });
}

void checkHandle(const Group& group, const HandleState& handle) {
  if (handle.ranks.size() == group.numLocal() && handle.ranks[0].rank == group.ranks[0]) return;
  failArgument("handle", "one of this group", "one of another group", "upload it to this group");
}

void dispatch(Group& group, const fa2a_dispatch_request& request, fa2a_dispatch_result& result) {
  group.requireOpen();
  Request inputs = describe(group, request);
  const bool newRouting = !inputs.topkIdx.empty();
  const bool capturing = group.capture != nullptr;
  if (result.x == nullptr) failArgument("result.x", "an array for the outputs", "null", "pass one pointer per local rank");
  if (capturing && (request.into == nullptr || request.stream.async_finish == 0)) {
    failArgument("into", "an earlier result and async_finish during a capture", "neither or one of them",
                 "dispatch once before the capture and pass its result");
  }
  std::shared_ptr<HandleState> handle;
  std::vector<int64_t> tokens = rowsOf(inputs.x);
  if (newRouting) {
    checkSettings(group, request, inputs.topkIdx[0].columns);
    bool wideIds = false;
    for (const Input& ids : inputs.topkIdx) wideIds = wideIds || ids.dtype == FA2A_I64;
    const fa2a_handle_meta meta = metaOf(group, request, static_cast<int32_t>(inputs.topkIdx[0].columns));
    handle = request.into != nullptr ? reusedHandle(*request.into, meta, inputs, wideIds) : makeHandle(group, meta, tokens);
    handle->wideIds = wideIds;
  } else {
    handle = cachedHandle(group, request, inputs);
  }
  const bool fixedRows = handle->budget() != kernels::NO_BUDGET;
  std::vector<DispatchOutputs> outputs(group.numLocal());
  const bool ofComm = request.stream.allocate_on_comm_stream != 0;
  const auto allocate = [&] {
    for (size_t local = 0; local < group.numLocal(); local++) {
      if (request.into != nullptr) {
        outputs[local] = reuseOutputs(*handle, inputs, local, *request.into);
        continue;
      }
      const bool ownIds = newRouting && !handle->hybrid() && fixedRows && result.topk_idx == nullptr;
      const int64_t rows = fixedRows ? handle->budget() : handle->ranks[local].pinned.report->wantedRows;
      if (newRouting) allocateRows(group, *handle, local, rows, ownIds);
      outputs[local] = makeOutputs(group, *handle, inputs, local, result, ofComm);
    }
  };
  const fa2a_buffer_shape shape = bufferShape(group, *handle, 0, false);
  const ArenaLayout layout = arenaLayout(shape);
  group.reserve(static_cast<size_t>(layout.bytes.total));
  if (fixedRows || !newRouting) allocate();

  Operation operation(group, "dispatch", request.stream);
  const auto publish = [&] {
    publishViews(operation, layout, [&](size_t local) {
      return viewOf(handle->ranks[local], outputs[local], newRouting, handle->hybrid());
    });
  };
  const bool network = group.network != nullptr;
  PlaneBuffers rowBuffers, scaleBuffers;
  const auto openHops = [&] {
    if (!network) return;
    rowBuffers = makeBuffers(group, *handle, rowBytes(inputs.x[0].columns, inputs.x[0].dtype));
    if (outputs[0].scales != nullptr) scaleBuffers = makeBuffers(group, *handle, rowBytes(inputs.scales[0].columns, FA2A_FP32));
    publishHops(operation, *handle, layout, rowBuffers, scaleBuffers);
  };
  bring(operation, inputs.topkIdx);
  bring(operation, inputs.topkWeights);
  if (newRouting) {
    countAndExchange(operation, *handle, layout, inputs.topkIdx, fixedRows ? publish : std::function<void()>());
    if (!fixedRows || network) {
      fetchReports(operation, *handle);
      operation.wait();
      checkReports(*handle, &inputs.topkIdx);
    }
    if (network) sizeNetwork(operation, *handle, layout);
    if (!fixedRows) {
      allocate();
      publish();
      operation.barrier("addresses");
    }
    openHops();
    // Uploads wait for the stream: they come before it waits for other hosts.
    if (network) bring(operation, inputs.x);
    if (network) bring(operation, inputs.scales);
    placeAndLink(operation, *handle, layout, inputs.topkWeights, outputs);
    if (network) exchangeRoutes(operation, *handle, inputs.topkWeights);
    if (network) linkRoutes(operation, *handle, layout, inputs.topkWeights, true);
  } else {
    operation.barrier("entry");
    publish();
    operation.barrier("addresses");
    openHops();
  }
  if (!network || !newRouting) {
    bring(operation, inputs.x);
    bring(operation, inputs.scales);
  }
  const bool scales = outputs[0].scales != nullptr;
  if (network) {
    sendRows(operation, *handle, rowBuffers, inputs.x, 0);
    if (scales) sendRows(operation, *handle, scaleBuffers, inputs.scales, 1);
  }
  pushPlane(operation, *handle, layout, inputs.x, 0);
  if (scales) pushPlane(operation, *handle, layout, inputs.scales, 1);
  if (network) {
    relayRows(operation, *handle, layout, rowBuffers, inputs.x, 0);
    if (scales) relayRows(operation, *handle, layout, scaleBuffers, inputs.scales, 1);
  }
  operation.barrier("arrived");
  // Exact fused outputs have no row that is not pushed.
  if (handle->hybrid() || fixedRows) {
    fillPlane(operation, *handle, outputs, 0);
    if (scales) fillPlane(operation, *handle, outputs, 1);
  }
  if (newRouting && !handle->hybrid() && fixedRows) countKept(operation, *handle, outputs);
  if (network && newRouting) countLinks(operation, *handle);
  if (newRouting && (fixedRows || network)) fetchReports(operation, *handle);
  if (network) {
    const size_t scaleBytes = !scales ? 0 : rowBytes(inputs.scales[0].columns, FA2A_FP32);
    group.network->useLinks(handle, rowBytes(inputs.x[0].columns, inputs.x[0].dtype) + scaleBytes, true);
  }
  const auto event = operation.finish(newRouting ? handle : nullptr);
  {
    std::lock_guard lock(handle->mutex);
    if (newRouting) handle->ready = event;
  }
  const auto give = [&](fa2a_tensor** to, size_t local, const std::shared_ptr<Tensor>& tensor) {
    if (to != nullptr) to[local] = tensor == nullptr ? nullptr : boxOf<fa2a_tensor>(tensor);
    if (capturing && tensor != nullptr) group.capture->tensors.push_back(tensor);
  };
  for (size_t local = 0; local < group.numLocal(); local++) {
    give(result.x, local, outputs[local].x);
    give(result.scales, local, outputs[local].scales);
    give(result.topk_idx, local, outputs[local].topkIdx);
    give(result.topk_weights, local, outputs[local].topkWeights);
    give(result.probs, local, outputs[local].probs);
    for (const auto* list : {&inputs.x, &inputs.scales, &inputs.topkIdx, &inputs.topkWeights}) {
      if (capturing && !list->empty()) group.capture->tensors.push_back((*list)[local].tensor);
    }
  }
  if (capturing) {
    group.capture->handles.push_back(handle);
    group.capture->numOperations++;
  }
  result.handle = boxOf<fa2a_handle>(handle);
  result.event = boxOf<fa2a_event>(event);
}

}  // namespace fa2a
