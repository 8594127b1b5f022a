#include "calls.h"
#include "methods.h"
#include "stream.h"

namespace binding {

namespace {

struct CombineCall {
  std::shared_ptr<fa2a_group> group;
  std::shared_ptr<fa2a_handle> handle;
  Arrays x;
  Arrays topkWeights;
  Arrays probs;
  Arrays bias0;
  Arrays bias1;
  Stream stream;
  Keep keep;
  Outputs outX;
  Outputs outTopkWeights;
  Outputs outProbs;
  fa2a_combine_request request = {};
  fa2a_combine_result result = {};
  Into into;
  fa2a_combine_result intoResult = {};
};

/** The earlier result whose tensors are written again. */
void readInto(CombineCall& call, Napi::Object given, size_t numLocal) {
  auto& result = call.intoResult;
  result.x = call.into.list(given, "x", numLocal);
  result.topk_weights = call.into.list(given, "topkWeights", numLocal);
  result.probs = call.into.list(given, "probs", numLocal);
  call.request.into = &result;
}

Napi::Value combineResult(Napi::Env env, CombineCall& call) {
  auto event = own(call.result.event);
  auto result = Napi::Object::New(env);
  result["x"] = call.outX.take(env);
  result["topkWeights"] = call.outTopkWeights.take(env);
  result["probs"] = call.outProbs.take(env);
  result["event"] = wrap(env, std::move(event), EVENT_BYTES);
  return result;
}

}  // namespace

// fa2a_code fa2a_combine(fa2a_group* group, const fa2a_combine_request* request, fa2a_combine_result* result,
//                        fa2a_error* error)
// combine(group: NativeGroup, request: NativeCombineRequest): Promise<NativeCombineResult>
Napi::Value combine(const Napi::CallbackInfo& info) {
  const auto env = info.Env();
  auto call = onGroup<CombineCall>(info);
  const size_t numLocal = objectOf<fa2a_group>(env, info[0], "group").numLocal;
  const auto given = objectArgument(info, 1, "request");
  call->handle = unwrap<fa2a_handle>(env, given.Get("handle"), "handle");
  call->x = arraysOf(env, given.Get("x"), numLocal, "x", call->keep);
  call->topkWeights = arraysOf(env, given.Get("topkWeights"), numLocal, "topkWeights", call->keep);
  call->probs = arraysOf(env, given.Get("probs"), numLocal, "probs", call->keep);
  call->bias0 = arraysOf(env, given.Get("bias0"), numLocal, "bias0", call->keep);
  call->bias1 = arraysOf(env, given.Get("bias1"), numLocal, "bias1", call->keep);
  call->stream = streamOf(given);
  auto& request = call->request;
  request.handle = call->handle.get();
  request.x = call->x.data();
  request.topk_weights = call->topkWeights.data();
  request.probs = call->probs.data();
  request.bias0 = call->bias0.data();
  request.bias1 = call->bias1.data();
  request.stream = call->stream.options;
  if (!isAbsent(given.Get("into"))) readInto(*call, given.Get("into").As<Napi::Object>(), numLocal);
  call->outX.want(numLocal);
  if (request.topk_weights != nullptr) call->outTopkWeights.want(numLocal);
  if (request.probs != nullptr) call->outProbs.want(numLocal);
  call->result.x = call->outX.data();
  call->result.topk_weights = call->outTopkWeights.data();
  call->result.probs = call->outProbs.data();
  return Worker<CombineCall>::start(
      env, std::move(call),
      [](CombineCall& call, fa2a_error* error) {
        return fa2a_combine(call.group.get(), &call.request, &call.result, error);
      },
      combineResult);
}

}  // namespace binding
