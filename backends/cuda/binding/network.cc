// Groups over several processes: NCCL, the id they meet by, what crossed the network, and giving up.
#include "calls.h"
#include "methods.h"

namespace binding {

namespace {

Napi::Value networkValue(Napi::Env env, const fa2a_network_info& network) {
  auto result = Napi::Object::New(env);
  result["rowsDispatched"] = static_cast<double>(network.rows_dispatched);
  result["rowsCombined"] = static_cast<double>(network.rows_combined);
  result["rowBytes"] = static_cast<double>(network.row_bytes);
  result["metadataBytes"] = static_cast<double>(network.metadata_bytes);
  result["countBytes"] = static_cast<double>(network.count_bytes);
  result["linkRowsDispatched"] = static_cast<double>(network.link_rows_dispatched);
  result["linkRowsCombined"] = static_cast<double>(network.link_rows_combined);
  result["linkBytes"] = static_cast<double>(network.link_bytes);
  return result;
}

Napi::Value waitValue(Napi::Env env, const fa2a_wait& wait) {
  auto result = Napi::Object::New(env);
  result["rank"] = static_cast<double>(wait.rank);
  result["srcRank"] = static_cast<double>(wait.src_rank);
  result["phase"] = wait.phase;
  result["expectedBytes"] = static_cast<double>(wait.expected_bytes);
  result["receivedBytes"] = static_cast<double>(wait.received_bytes);
  return result;
}

}  // namespace

// fa2a_code fa2a_nccl(fa2a_nccl_info* info, fa2a_error* error)
// nccl(): Promise<NativeNccl>
Napi::Value nccl(const Napi::CallbackInfo& info) {
  using Call = fa2a_nccl_info;
  return Worker<Call>::start(
      info.Env(), std::make_unique<Call>(), [](Call& call, fa2a_error* error) { return fa2a_nccl(&call, error); },
      [](Napi::Env env, Call& call) -> Napi::Value {
        auto result = Napi::Object::New(env);
        result["found"] = call.found != 0;
        result["version"] = static_cast<double>(call.version);
        result["path"] = call.path;
        result["tried"] = call.tried;
        return result;
      });
}

// int64_t fa2a_network_id_bytes(int32_t num_ranks, int32_t ranks_per_node, int32_t num_local_ranks)
// fa2a_code fa2a_network_id(int32_t num_ranks, int32_t ranks_per_node, int32_t num_local_ranks, uint8_t* id, fa2a_error* error)
// networkId(numRanks: number, ranksPerNode: number, numLocalRanks: number): Promise<Uint8Array>
Napi::Value networkId(const Napi::CallbackInfo& info) {
  struct Call {
    int32_t sizes[3];
    std::vector<uint8_t> id;
  };
  auto call = std::make_unique<Call>();
  const char* names[] = {"numRanks", "ranksPerNode", "numLocalRanks"};
  for (size_t i = 0; i < 3; i++) call->sizes[i] = static_cast<int32_t>(wholeNumber(info.Env(), info[i], names[i]));
  call->id.resize(static_cast<size_t>(fa2a_network_id_bytes(call->sizes[0], call->sizes[1], call->sizes[2])));
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) {
        return fa2a_network_id(call.sizes[0], call.sizes[1], call.sizes[2], call.id.data(), error);
      },
      [](Napi::Env env, Call& call) { return bytesValue(env, call.id); });
}

// fa2a_code fa2a_group_network(fa2a_group* group, int32_t local, fa2a_network_info* info, fa2a_error* error)
// groupNetwork(group: NativeGroup, local: number): Promise<NativeNetwork>
Napi::Value groupNetwork(const Napi::CallbackInfo& info) {
  return toldOfRank(info, fa2a_group_network, networkValue);
}

// fa2a_code fa2a_group_waits(fa2a_group* group, int32_t capacity, fa2a_wait* waits, int32_t* num_waits, fa2a_error* error)
// groupWaits(group: NativeGroup): Promise<NativeWait[]>
Napi::Value groupWaits(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    std::vector<fa2a_wait> waits;
  };
  return Worker<Call>::start(
      info.Env(), onGroup<Call>(info),
      [](Call& call, fa2a_error* error) {
        return fillList(call.waits, [&](int32_t capacity, fa2a_wait* waits, int32_t* count) {
          return fa2a_group_waits(call.group.get(), capacity, waits, count, error);
        });
      },
      [](Napi::Env env, Call& call) { return listValue(env, call.waits, waitValue); });
}

// fa2a_code fa2a_group_connect(fa2a_group* group, fa2a_error* error)
// groupConnect(group: NativeGroup): Promise<void>
Napi::Value groupConnect(const Napi::CallbackInfo& info) { return callOn(info, fa2a_group_connect); }

// fa2a_code fa2a_group_abort(fa2a_group* group, const char* why, fa2a_error* error)
// groupAbort(group: NativeGroup, why: string): Promise<void>
Napi::Value groupAbort(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    std::string why;
  };
  auto call = onGroup<Call>(info);
  call->why = info[1].ToString().Utf8Value();
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) { return fa2a_group_abort(call.group.get(), call.why.c_str(), error); },
      undefinedResult<Call>);
}

}  // namespace binding
