#include "calls.h"
#include "methods.h"

namespace binding {

// fa2a_code fa2a_layout(fa2a_group* group, const fa2a_array* topk_idx, int32_t num_experts,
//                       const fa2a_layout_result* result, fa2a_error* error)
// layout(group: NativeGroup, request: NativeLayoutRequest): Promise<void>
// Fills the request's arrays, one per local rank: perRank [R], perNode [nodes], perExpert [E] Int32Array and, unless null,
// tokenInRank [tokens, R] Uint8Array.
Napi::Value layout(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    Arrays topkIdx;
    int32_t numExperts;
    std::vector<int32_t*> perRank;
    std::vector<int32_t*> perNode;
    std::vector<int32_t*> perExpert;
    std::vector<uint8_t*> tokenInRank;
    Keep keep;
  };
  const auto env = info.Env();
  auto call = onGroup<Call>(info);
  const size_t numLocal = objectOf<fa2a_group>(env, info[0], "group").numLocal;
  const auto given = objectArgument(info, 1, "request");
  call->topkIdx = arraysOf(env, given.Get("topkIdx"), numLocal, "topkIdx", call->keep);
  call->numExperts = property32(given, "numExperts");
  const int64_t numRanks = property64(given, "numRanks");
  const int64_t numNodes = property64(given, "numNodes");
  const auto memory = [&](const char* name, size_t i, int64_t bytes) -> char* {
    const Napi::Value lists = given.Get(name);
    if (!lists.IsArray()) return nullptr;
    const Napi::Value value = lists.As<Napi::Array>().Get(static_cast<uint32_t>(i));
    return bytesOf(env, value, bytes, name, call->keep);
  };
  for (size_t i = 0; i < numLocal; i++) {
    fa2a_tensor_info ids = {};
    ids.rows = call->topkIdx.values[i].rows;
    if (call->topkIdx.values[i].tensor != nullptr) {
      fa2a_error error = {};
      check(env, fa2a_tensor_info_of(call->topkIdx.values[i].tensor, &ids, &error), error);
    }
    call->perRank.push_back(reinterpret_cast<int32_t*>(memory("perRank", i, numRanks * 4)));
    call->perNode.push_back(reinterpret_cast<int32_t*>(memory("perNode", i, numNodes * 4)));
    call->perExpert.push_back(reinterpret_cast<int32_t*>(memory("perExpert", i, call->numExperts * int64_t{4})));
    call->tokenInRank.push_back(reinterpret_cast<uint8_t*>(memory("tokenInRank", i, ids.rows * numRanks)));
  }
  return Worker<Call>::start(
      env, std::move(call),
      [](Call& call, fa2a_error* error) {
        fa2a_layout_result result = {};
        result.num_tokens_per_rank = call.perRank.data();
        result.num_tokens_per_node = call.perNode.data();
        result.num_tokens_per_expert = call.perExpert.data();
        result.is_token_in_rank = call.tokenInRank.data();
        return fa2a_layout(call.group.get(), call.topkIdx.data(), call.numExperts, &result, error);
      },
      undefinedResult<Call>);
}

// fa2a_code fa2a_from_multihot(fa2a_group* group, const fa2a_array* routing_map, const fa2a_array* probs, int32_t topk,
//                              fa2a_tensor** topk_idx, fa2a_tensor** topk_weights, fa2a_error* error)
// fromMultihot(group: NativeGroup, routingMap: NativeArrays, probs: NativeArrays | null, topk: number):
//   Promise<{ topkIdx: NativeTensor[]; topkWeights: NativeTensor[] | null }>
Napi::Value fromMultihot(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    Arrays routingMap;
    Arrays probs;
    int32_t topk;
    Outputs topkIdx;
    Outputs topkWeights;
    Keep keep;
  };
  const auto env = info.Env();
  auto call = onGroup<Call>(info);
  const size_t numLocal = objectOf<fa2a_group>(env, info[0], "group").numLocal;
  call->routingMap = arraysOf(env, info[1], numLocal, "routingMap", call->keep);
  call->probs = arraysOf(env, info[2], numLocal, "probs", call->keep);
  call->topk = static_cast<int32_t>(wholeNumber(env, info[3], "topk"));
  call->topkIdx.want(numLocal);
  if (call->probs.data() != nullptr) call->topkWeights.want(numLocal);
  return Worker<Call>::start(
      env, std::move(call),
      [](Call& call, fa2a_error* error) {
        return fa2a_from_multihot(call.group.get(), call.routingMap.data(), call.probs.data(), call.topk,
                                  call.topkIdx.data(), call.topkWeights.data(), error);
      },
      [](Napi::Env env, Call& call) -> Napi::Value {
        auto result = Napi::Object::New(env);
        result["topkIdx"] = call.topkIdx.take(env);
        result["topkWeights"] = call.topkWeights.take(env);
        return result;
      });
}

}  // namespace binding
