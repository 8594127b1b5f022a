// What this machine can do. The first call into a driver takes long, so all of it is asynchronous.
#include "methods.h"
#include "values.h"

namespace binding {

// int32_t fa2a_abi_version(void)
// abiVersion(): number
Napi::Value abiVersion(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), fa2a_abi_version()); }

// int32_t fa2a_is_emulated(void)
// isEmulated(): boolean
Napi::Value isEmulated(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), fa2a_is_emulated() != 0);
}

// fa2a_code fa2a_driver(fa2a_driver_info* info, fa2a_error* error)
// driver(): Promise<NativeDriver>
Napi::Value driver(const Napi::CallbackInfo& info) {
  using Call = fa2a_driver_info;
  return Worker<Call>::start(
      info.Env(), std::make_unique<Call>(), [](Call& call, fa2a_error* error) { return fa2a_driver(&call, error); },
      [](Napi::Env env, Call& call) -> Napi::Value {
        auto result = Napi::Object::New(env);
        result["state"] = static_cast<double>(call.state);
        result["driverVersion"] = static_cast<double>(call.driver_version);
        result["runtimeVersion"] = static_cast<double>(call.runtime_version);
        result["numDevices"] = static_cast<double>(call.num_devices);
        result["architectures"] = call.architectures;
        result["compiler"] = call.compiler;
        result["message"] = call.message;
        return result;
      });
}

// fa2a_code fa2a_device(int32_t device, fa2a_device_info* info, fa2a_error* error)
// device(device: number): Promise<NativeDevice>
Napi::Value device(const Napi::CallbackInfo& info) {
  struct Call {
    int32_t device;
    fa2a_device_info result;
  };
  auto call = std::make_unique<Call>();
  call->device = static_cast<int32_t>(wholeNumber(info.Env(), info[0], "device"));
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) { return fa2a_device(call.device, &call.result, error); },
      [](Napi::Env env, Call& call) -> Napi::Value {
        auto result = Napi::Object::New(env);
        result["device"] = static_cast<double>(call.result.device);
        result["name"] = call.result.name;
        result["pciBusId"] = call.result.pci_bus_id;
        result["computeMajor"] = static_cast<double>(call.result.compute_major);
        result["computeMinor"] = static_cast<double>(call.result.compute_minor);
        result["numSms"] = static_cast<double>(call.result.num_sms);
        result["totalBytes"] = static_cast<double>(call.result.total_bytes);
        result["freeBytes"] = static_cast<double>(call.result.free_bytes);
        result["l2Bytes"] = static_cast<double>(call.result.l2_bytes);
        result["sharedBytesPerBlock"] = static_cast<double>(call.result.shared_bytes_per_block);
        result["supported"] = call.result.supported != 0;
        return result;
      });
}

// fa2a_code fa2a_peer_matrix(int32_t num_devices, uint8_t* can_access, fa2a_error* error)
// peerMatrix(numDevices: number): Promise<Uint8Array>
Napi::Value peerMatrix(const Napi::CallbackInfo& info) {
  struct Call {
    int32_t numDevices;
    std::vector<uint8_t> canAccess;
  };
  auto call = std::make_unique<Call>();
  call->numDevices = static_cast<int32_t>(wholeNumber(info.Env(), info[0], "numDevices"));
  if (call->numDevices < 0 || call->numDevices > 1024) {
    throwArgument(info.Env(), "numDevices", "0..1024", std::to_string(call->numDevices), "pass the number of GPUs");
  }
  call->canAccess.resize(static_cast<size_t>(call->numDevices) * call->numDevices);
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) { return fa2a_peer_matrix(call.numDevices, call.canAccess.data(), error); },
      [](Napi::Env env, Call& call) { return bytesValue(env, call.canAccess); });
}

// fa2a_code fa2a_buffer_size(const fa2a_buffer_shape* shape, fa2a_buffer_bytes* bytes, fa2a_error* error)
// bufferSize(shape: NativeBufferShape): NativeBufferBytes
Napi::Value bufferSize(const Napi::CallbackInfo& info) {
  const auto given = objectArgument(info, 0, "shape");
  fa2a_buffer_shape shape = {};
  shape.num_tokens = property64(given, "numTokens");
  shape.row_bytes = property64(given, "rowBytes");
  shape.topk = property32(given, "topk");
  shape.num_experts = property32(given, "numExperts");
  shape.num_ranks = property32(given, "numRanks");
  shape.ranks_per_node = property32(given, "ranksPerNode");
  shape.num_rows = property64(given, "numRows");
  shape.combine_path = property32(given, "combinePath");
  shape.weights = property32(given, "weights");
  fa2a_buffer_bytes bytes = {};
  fa2a_error error = {};
  check(info.Env(), fa2a_buffer_size(&shape, &bytes, &error), error);
  auto result = Napi::Object::New(info.Env());
  result["counts"] = static_cast<double>(bytes.counts);
  result["staging"] = static_cast<double>(bytes.staging);
  result["stagingWeights"] = static_cast<double>(bytes.staging_weights);
  result["total"] = static_cast<double>(bytes.total);
  return result;
}

}  // namespace binding
