#include "calls.h"
#include "methods.h"
#include "stream.h"

namespace binding {

namespace {

struct DispatchCall {
  std::shared_ptr<fa2a_group> group;
  std::shared_ptr<fa2a_handle> handle;
  Arrays x;
  Arrays scales;
  Arrays topkIdx;
  Arrays topkWeights;
  Stream stream;
  Keep keep;
  Outputs outX;
  Outputs outScales;
  Outputs outTopkIdx;
  Outputs outTopkWeights;
  Outputs outProbs;
  fa2a_dispatch_request request = {};
  fa2a_dispatch_result result = {};
  Into into;
  std::shared_ptr<fa2a_handle> intoHandle;
  fa2a_dispatch_result intoResult = {};
};

/** The earlier result whose tensors and handle are written again. */
void readInto(DispatchCall& call, Napi::Object given, size_t numLocal) {
  auto& result = call.intoResult;
  result.x = call.into.list(given, "x", numLocal);
  result.scales = call.into.list(given, "scales", numLocal);
  result.topk_idx = call.into.list(given, "topkIdx", numLocal);
  result.topk_weights = call.into.list(given, "topkWeights", numLocal);
  result.probs = call.into.list(given, "probs", numLocal);
  call.intoHandle = unwrap<fa2a_handle>(given.Env(), given.Get("handle"), "into.handle");
  result.handle = call.intoHandle.get();
  call.request.into = &result;
}

/** Device bytes of the handle, for the collector: entries of every token and rows of every rank. */
int64_t handleBytes(const DispatchCall& call, Napi::Value x) {
  int64_t bytes = 0;
  const auto outputs = x.As<Napi::Array>();
  for (uint32_t i = 0; i < outputs.Length(); i++) {
    bytes += 8 * property64(static_cast<Napi::Value>(outputs.Get(i)).As<Napi::Object>(), "rows");
  }
  for (const auto& ids : call.topkIdx.values) {
    fa2a_tensor_info info = {};
    info.rows = ids.rows;
    info.columns = ids.columns;
    if (ids.tensor != nullptr) fa2a_tensor_info_of(ids.tensor, &info, nullptr);
    bytes += 8 * info.rows * info.columns;
  }
  return bytes;
}

Napi::Value dispatchResult(Napi::Env env, DispatchCall& call) {
  auto handle = own(call.result.handle);
  auto event = own(call.result.event);
  auto result = Napi::Object::New(env);
  const Napi::Value x = call.outX.take(env);
  result["x"] = x;
  result["scales"] = call.outScales.take(env);
  result["topkIdx"] = call.outTopkIdx.take(env);
  result["topkWeights"] = call.outTopkWeights.take(env);
  result["probs"] = call.outProbs.take(env);
  result["handle"] = wrap(env, std::move(handle), call.handle != nullptr ? 0 : handleBytes(call, x));
  result["event"] = wrap(env, std::move(event), EVENT_BYTES);
  return result;
}

}  // namespace

// fa2a_code fa2a_dispatch(fa2a_group* group, const fa2a_dispatch_request* request, fa2a_dispatch_result* result,
//                         fa2a_error* error)
// dispatch(group: NativeGroup, request: NativeDispatchRequest): Promise<NativeDispatchResult>
Napi::Value dispatch(const Napi::CallbackInfo& info) {
  const auto env = info.Env();
  auto call = onGroup<DispatchCall>(info);
  const size_t numLocal = objectOf<fa2a_group>(env, info[0], "group").numLocal;
  const auto given = objectArgument(info, 1, "request");
  call->x = arraysOf(env, given.Get("x"), numLocal, "x", call->keep);
  call->scales = arraysOf(env, given.Get("scales"), numLocal, "scales", call->keep);
  call->topkIdx = arraysOf(env, given.Get("topkIdx"), numLocal, "topkIdx", call->keep);
  call->topkWeights = arraysOf(env, given.Get("topkWeights"), numLocal, "topkWeights", call->keep);
  call->stream = streamOf(given);
  auto& request = call->request;
  request.kind = static_cast<fa2a_kind>(property32(given, "kind"));
  request.x = call->x.data();
  request.scales = call->scales.data();
  request.topk_idx = call->topkIdx.data();
  request.topk_weights = call->topkWeights.data();
  if (!isAbsent(given.Get("handle"))) call->handle = unwrap<fa2a_handle>(env, given.Get("handle"), "handle");
  request.handle = call->handle.get();
  request.num_experts = property32(given, "numExperts");
  request.expert_alignment = property32(given, "expertAlignment");
  request.num_worst_tokens = property64(given, "numWorstTokens");
  request.pad_multiple = property64(given, "padMultiple");
  request.num_permuted_tokens = property64(given, "numPermutedTokens");
  request.stream = call->stream.options;
  if (!isAbsent(given.Get("into"))) readInto(*call, given.Get("into").As<Napi::Object>(), numLocal);
  const bool routed = request.topk_idx != nullptr;
  const bool weighted = routed && request.topk_weights != nullptr;
  call->outX.want(numLocal);
  if (request.scales != nullptr) call->outScales.want(numLocal);
  if (routed && request.kind == FA2A_FUSED) call->outTopkIdx.want(numLocal);
  if (weighted) (request.kind == FA2A_FUSED ? call->outTopkWeights : call->outProbs).want(numLocal);
  auto& result = call->result;
  result.x = call->outX.data();
  result.scales = call->outScales.data();
  result.topk_idx = call->outTopkIdx.data();
  result.topk_weights = call->outTopkWeights.data();
  result.probs = call->outProbs.data();
  return Worker<DispatchCall>::start(
      env, std::move(call),
      [](DispatchCall& call, fa2a_error* error) {
        return fa2a_dispatch(call.group.get(), &call.request, &call.result, error);
      },
      dispatchResult);
}

}  // namespace binding
