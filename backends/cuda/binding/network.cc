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

// fa2a_code fa2a_network_id(int32_t num_rails, uint8_t* id, fa2a_error* error)
// networkId(numRails: number): Promise<Uint8Array>
Napi::Value networkId(const Napi::CallbackInfo& info) {
  struct Call {
    int32_t numRails;
    std::vector<uint8_t> id;
  };
  auto call = std::make_unique<Call>();
  const int64_t numRails = wholeNumber(info.Env(), info[0], "numRails");
  if (numRails < 1 || numRails > 1 << 20) {
    throwArgument(info.Env(), "numRails", "the number of ranks per node", std::to_string(numRails), "pass that number");
  }
  call->numRails = static_cast<int32_t>(numRails);
  call->id.resize(static_cast<size_t>(numRails) * FA2A_NETWORK_ID_BYTES);
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) { return fa2a_network_id(call.numRails, call.id.data(), error); },
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
        return result;
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
