// Groups over several processes: NCCL, the id they meet by, what crossed the network, and giving up.
#include "methods.h"
#include "values.h"

namespace binding {

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
      [](Napi::Env env, Call& call) -> Napi::Value {
        auto result = Napi::Uint8Array::New(env, call.id.size());
        std::copy(call.id.begin(), call.id.end(), result.Data());
        return result;
      });
}

// fa2a_code fa2a_group_network(fa2a_group* group, int32_t local, fa2a_network_info* info, fa2a_error* error)
// groupNetwork(group: NativeGroup, local: number): Promise<NativeNetwork>
Napi::Value groupNetwork(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    int32_t local;
    fa2a_network_info network;
  };
  auto call = std::make_unique<Call>();
  call->group = unwrap<fa2a_group>(info.Env(), info[0], "group");
  call->local = static_cast<int32_t>(wholeNumber(info.Env(), info[1], "local"));
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) {
        return fa2a_group_network(call.group.get(), call.local, &call.network, error);
      },
      [](Napi::Env env, Call& call) -> Napi::Value {
        auto result = Napi::Object::New(env);
        result["rowsDispatched"] = static_cast<double>(call.network.rows_dispatched);
        result["rowsCombined"] = static_cast<double>(call.network.rows_combined);
        result["rowBytes"] = static_cast<double>(call.network.row_bytes);
        result["metadataBytes"] = static_cast<double>(call.network.metadata_bytes);
        result["countBytes"] = static_cast<double>(call.network.count_bytes);
        result["linkRowsDispatched"] = static_cast<double>(call.network.link_rows_dispatched);
        result["linkRowsCombined"] = static_cast<double>(call.network.link_rows_combined);
        result["linkBytes"] = static_cast<double>(call.network.link_bytes);
        return result;
      });
}

// fa2a_code fa2a_group_waits(fa2a_group* group, int32_t capacity, fa2a_wait* waits, int32_t* num_waits, fa2a_error* error)
// groupWaits(group: NativeGroup): Promise<NativeWait[]>
Napi::Value groupWaits(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    std::vector<fa2a_wait> waits;
  };
  auto call = std::make_unique<Call>();
  call->group = unwrap<fa2a_group>(info.Env(), info[0], "group");
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) {
        int32_t count = 0;
        const auto code = fa2a_group_waits(call.group.get(), 0, nullptr, &count, error);
        if (code != FA2A_OK) return code;
        // More may be outstanding by now, or fewer.
        call.waits.resize(static_cast<size_t>(count));
        const auto again = fa2a_group_waits(call.group.get(), count, call.waits.data(), &count, error);
        if (static_cast<size_t>(count) < call.waits.size()) call.waits.resize(static_cast<size_t>(count));
        return again;
      },
      [](Napi::Env env, Call& call) -> Napi::Value {
        auto list = Napi::Array::New(env, call.waits.size());
        for (uint32_t i = 0; i < call.waits.size(); i++) {
          auto wait = Napi::Object::New(env);
          wait["rank"] = static_cast<double>(call.waits[i].rank);
          wait["srcRank"] = static_cast<double>(call.waits[i].src_rank);
          wait["phase"] = call.waits[i].phase;
          wait["expectedBytes"] = static_cast<double>(call.waits[i].expected_bytes);
          wait["receivedBytes"] = static_cast<double>(call.waits[i].received_bytes);
          list.Set(i, wait);
        }
        return list;
      });
}

// fa2a_code fa2a_group_abort(fa2a_group* group, fa2a_error* error)
// groupAbort(group: NativeGroup): Promise<void>
Napi::Value groupAbort(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
  };
  auto call = std::make_unique<Call>();
  call->group = unwrap<fa2a_group>(info.Env(), info[0], "group");
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) { return fa2a_group_abort(call.group.get(), error); }, undefinedResult<Call>);
}

}  // namespace binding
