#include "calls.h"
#include "methods.h"

namespace binding {

namespace {

Napi::Value phaseValue(Napi::Env env, const fa2a_phase& phase) {
  auto result = Napi::Object::New(env);
  result["rank"] = static_cast<double>(phase.rank);
  result["waiting"] = phase.waiting != 0;
  result["startUs"] = phase.start_us;
  result["durationUs"] = phase.duration_us;
  result["srcRank"] = static_cast<double>(phase.src_rank);
  result["name"] = phase.name;
  return result;
}

}  // namespace

// fa2a_code fa2a_event_query(fa2a_event* event, int32_t* done, fa2a_error* error)
// eventQuery(event: NativeEvent): Promise<boolean>
Napi::Value eventQuery(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_event> event;
    int32_t done;
  };
  auto call = std::make_unique<Call>();
  call->event = unwrap<fa2a_event>(info.Env(), info[0], "event");
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) { return fa2a_event_query(call.event.get(), &call.done, error); },
      [](Napi::Env env, Call& call) -> Napi::Value { return Napi::Boolean::New(env, call.done != 0); });
}

// fa2a_code fa2a_event_wait(fa2a_event* event, fa2a_error* error)
// eventWait(event: NativeEvent): Promise<void>
Napi::Value eventWait(const Napi::CallbackInfo& info) { return callOn(info, fa2a_event_wait); }

// fa2a_code fa2a_event_stream_wait(fa2a_event* event, fa2a_error* error)
// eventStreamWait(event: NativeEvent): Promise<void>
Napi::Value eventStreamWait(const Napi::CallbackInfo& info) { return callOn(info, fa2a_event_stream_wait); }

// fa2a_code fa2a_event_record(fa2a_group* group, fa2a_event** event, fa2a_error* error)
// eventRecord(group: NativeGroup): Promise<NativeEvent>
Napi::Value eventRecord(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    fa2a_event* event;
  };
  return Worker<Call>::start(
      info.Env(), onGroup<Call>(info),
      [](Call& call, fa2a_error* error) { return fa2a_event_record(call.group.get(), &call.event, error); },
      [](Napi::Env env, Call& call) -> Napi::Value { return wrap(env, own(call.event), EVENT_BYTES); });
}

// fa2a_code fa2a_event_phases(fa2a_event* event, int32_t capacity, fa2a_phase* phases, int32_t* num_phases,
//                             fa2a_error* error)
// eventPhases(event: NativeEvent): Promise<NativePhase[]>
Napi::Value eventPhases(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_event> event;
    std::vector<fa2a_phase> phases;
  };
  auto call = std::make_unique<Call>();
  call->event = unwrap<fa2a_event>(info.Env(), info[0], "event");
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) {
        return fillList(call.phases, [&](int32_t capacity, fa2a_phase* phases, int32_t* count) {
          return fa2a_event_phases(call.event.get(), capacity, phases, count, error);
        });
      },
      [](Napi::Env env, Call& call) { return listValue(env, call.phases, phaseValue); });
}

// void fa2a_event_free(fa2a_event* event)
// eventFree(event: NativeEvent): void
Napi::Value eventFree(const Napi::CallbackInfo& info) { return freeObject<fa2a_event>(info); }

}  // namespace binding
