#include <mutex>

#include "calls.h"
#include "methods.h"

namespace binding {

namespace {

struct GroupOptions {
  fa2a_group_options options = {};
  std::vector<int32_t> localRanks;
  std::vector<int32_t> devices;
  std::vector<uint8_t> networkId;
};

std::vector<int32_t> int32List(Napi::Object object, const char* name) {
  std::vector<int32_t> values;
  const Napi::Value value = object.Get(name);
  if (isAbsent(value)) return values;
  if (!value.IsArray()) throwArgument(object.Env(), name, "an array", "something else", "pass an array of numbers");
  const auto list = value.As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) {
    values.push_back(static_cast<int32_t>(wholeNumber(object.Env(), list.Get(i), name)));
  }
  return values;
}

GroupOptions groupOptions(Napi::Object given) {
  GroupOptions read;
  auto& options = read.options;
  options.num_ranks = property32(given, "numRanks");
  options.ranks_per_node = property32(given, "ranksPerNode");
  read.localRanks = int32List(given, "localRanks");
  read.devices = int32List(given, "devices");
  options.num_local_ranks = static_cast<int32_t>(read.localRanks.size());
  options.num_sms = property32(given, "numSms");
  options.num_sms_dispatch = property32(given, "numSmsDispatch");
  options.num_sms_combine = property32(given, "numSmsCombine");
  options.num_sms_preprocessing = property32(given, "numSmsPreprocessing");
  options.num_blocks_permute = property32(given, "numBlocksPermute");
  options.num_blocks_unpermute = property32(given, "numBlocksUnpermute");
  options.combine_path = static_cast<fa2a_combine_path>(property32(given, "combinePath"));
  options.record_timings = property32(given, "recordTimings");
  options.deadline_ms = property64(given, "deadlineMs");
  const Napi::Value id = given.Get("networkId");
  if (!isAbsent(id)) {
    if (!id.IsTypedArray() || id.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
      throwArgument(given.Env(), "networkId", "a Uint8Array", "something else", "pass what networkId() returned");
    }
    const auto bytes = id.As<Napi::Uint8Array>();
    read.networkId.assign(bytes.Data(), bytes.Data() + bytes.ByteLength());
  }
  return read;
}

fa2a_emulation emulationSettings(Napi::Object given) {
  fa2a_emulation settings = {};
  settings.num_devices = property32(given, "numDevices");
  settings.num_sms = property32(given, "numSms");
  settings.compute_major = property32(given, "computeMajor");
  settings.seed = static_cast<uint64_t>(property64(given, "seed"));
  settings.weak_stores = property32(given, "weakStores");
  settings.slow_device = property32(given, "slowDevice");
  settings.stalled_device = property32(given, "stalledDevice");
  settings.device_bytes = property64(given, "deviceBytes");
  settings.poison = property32(given, "poison");
  return settings;
}

/** Closes the group with its last reference. `outcome` is the error of that, for whoever waits for it. */
struct CloseGroup {
  std::shared_ptr<fa2a_error> outcome = std::make_shared<fa2a_error>();
  void operator()(fa2a_group* group) const { fa2a_group_close(group, outcome.get()); }
};

Napi::Value memoryValue(Napi::Env env, const fa2a_memory_info& memory) {
  auto result = Napi::Object::New(env);
  result["reserved"] = static_cast<double>(memory.reserved);
  result["pool"] = static_cast<double>(memory.pool);
  result["poolFree"] = static_cast<double>(memory.pool_free);
  result["reallocations"] = static_cast<double>(memory.reallocations);
  return result;
}

}  // namespace

// fa2a_code fa2a_emulation_configure(const fa2a_emulation* settings, fa2a_error* error)
// fa2a_code fa2a_group_create(const fa2a_group_options* options, fa2a_group** group, fa2a_error* error)
// groupCreate(options: NativeGroupOptions, emulation: NativeEmulation | null): Promise<NativeGroup>
// In one call: the emulation's settings are the process's, and another group's must not come between.
Napi::Value groupCreate(const Napi::CallbackInfo& info) {
  struct Call {
    GroupOptions given;
    bool emulated = false;
    fa2a_emulation emulation = {};
    fa2a_group* group = nullptr;
  };
  auto call = std::make_unique<Call>();
  call->given = groupOptions(objectArgument(info, 0, "options"));
  call->given.options.local_ranks = call->given.localRanks.empty() ? nullptr : call->given.localRanks.data();
  if (!call->given.devices.empty() && call->given.devices.size() != call->given.localRanks.size()) {
    throwArgument(info.Env(), "devices", "one per local rank (" + std::to_string(call->given.localRanks.size()) + ")",
                  std::to_string(call->given.devices.size()), "pass a device for every local rank");
  }
  call->given.options.devices = call->given.devices.empty() ? nullptr : call->given.devices.data();
  const auto& networkId = call->given.networkId;
  call->given.options.network_id = networkId.empty() ? nullptr : networkId.data();
  call->given.options.network_id_bytes = static_cast<int64_t>(networkId.size());
  call->emulated = !isAbsent(info[1]);
  if (call->emulated) call->emulation = emulationSettings(objectArgument(info, 1, "emulation"));
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) {
        static std::mutex creating;
        std::unique_lock<std::mutex> lock(creating, std::defer_lock);
        if (call.emulated) {
          lock.lock();
          const auto code = fa2a_emulation_configure(&call.emulation, error);
          if (code != FA2A_OK) return code;
          // This one waits for the other processes, and their groups may be made here too.
          if (call.given.options.network_id != nullptr) lock.unlock();
        }
        return fa2a_group_create(&call.given.options, &call.group, error);
      },
      [](Napi::Env env, Call& call) -> Napi::Value {
        // A group nobody closed is closed by the collector: nothing runs on it any more, so this does not wait.
        return wrap(env, std::shared_ptr<fa2a_group>(call.group, CloseGroup()), 0, call.given.localRanks.size());
      });
}

// fa2a_code fa2a_group_close(fa2a_group* group, fa2a_error* error)
// groupClose(group: NativeGroup): Promise<void>
// The caller has waited for all its calls on the group: the last reference is here.
Napi::Value groupClose(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
  };
  auto& object = objectOf<fa2a_group>(info.Env(), info[0], "group");
  auto call = onGroup<Call>(info);
  object.release(info.Env());
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) {
        const auto outcome = std::get_deleter<CloseGroup>(call.group)->outcome;
        call.group.reset();
        *error = *outcome;
        return error->code;
      },
      undefinedResult<Call>);
}

// fa2a_code fa2a_group_configure(fa2a_group* group, const fa2a_group_options* options, fa2a_error* error)
// groupConfigure(group: NativeGroup, options: NativeGroupOptions): Promise<void>
Napi::Value groupConfigure(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    GroupOptions given;
  };
  auto call = onGroup<Call>(info);
  call->given = groupOptions(objectArgument(info, 1, "options"));
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) {
        return fa2a_group_configure(call.group.get(), &call.given.options, error);
      },
      undefinedResult<Call>);
}

// fa2a_code fa2a_group_set_num_sms(fa2a_group* group, int32_t num_sms, fa2a_error* error)
// groupSetNumSms(group: NativeGroup, numSms: number): Promise<void>
Napi::Value groupSetNumSms(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    int32_t numSms;
  };
  auto call = onGroup<Call>(info);
  call->numSms = static_cast<int32_t>(wholeNumber(info.Env(), info[1], "numSms"));
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) { return fa2a_group_set_num_sms(call.group.get(), call.numSms, error); },
      undefinedResult<Call>);
}

// fa2a_code fa2a_group_synchronize(fa2a_group* group, fa2a_error* error)
// groupSynchronize(group: NativeGroup): Promise<void>
Napi::Value groupSynchronize(const Napi::CallbackInfo& info) { return callOn(info, fa2a_group_synchronize); }

// fa2a_code fa2a_group_stream(fa2a_group* group, int32_t local, fa2a_stream which, void** stream, fa2a_error* error)
// groupStream(group: NativeGroup, local: number, which: 0 | 1): Promise<bigint>
Napi::Value groupStream(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    int32_t local;
    fa2a_stream which;
    void* stream;
  };
  auto call = onGroup<Call>(info);
  call->local = static_cast<int32_t>(wholeNumber(info.Env(), info[1], "local"));
  call->which = static_cast<fa2a_stream>(wholeNumber(info.Env(), info[2], "which"));
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) {
        return fa2a_group_stream(call.group.get(), call.local, call.which, &call.stream, error);
      },
      [](Napi::Env env, Call& call) -> Napi::Value {
        return Napi::BigInt::New(env, static_cast<uint64_t>(reinterpret_cast<uintptr_t>(call.stream)));
      });
}

// fa2a_code fa2a_group_reserve(fa2a_group* group, int64_t bytes, fa2a_error* error)
// groupReserve(group: NativeGroup, bytes: number): Promise<void>
Napi::Value groupReserve(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    int64_t bytes;
  };
  auto call = onGroup<Call>(info);
  call->bytes = wholeNumber(info.Env(), info[1], "bytes");
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) { return fa2a_group_reserve(call.group.get(), call.bytes, error); },
      undefinedResult<Call>);
}

// fa2a_code fa2a_group_release(fa2a_group* group, fa2a_error* error)
// groupRelease(group: NativeGroup): Promise<void>
Napi::Value groupRelease(const Napi::CallbackInfo& info) { return callOn(info, fa2a_group_release); }

// fa2a_code fa2a_group_memory(fa2a_group* group, int32_t local, fa2a_memory_info* info, fa2a_error* error)
// groupMemory(group: NativeGroup, local: number): Promise<NativeMemory>
Napi::Value groupMemory(const Napi::CallbackInfo& info) { return toldOfRank(info, fa2a_group_memory, memoryValue); }

}  // namespace binding
