#include "methods.h"
#include "values.h"

namespace binding {

namespace {

struct EventCall {
  std::shared_ptr<fa2a_event> event;
  int32_t done = 0;
};

std::unique_ptr<EventCall> eventCall(const Napi::CallbackInfo& info) {
  auto call = std::make_unique<EventCall>();
  call->event = unwrap<fa2a_event>(info.Env(), info[0], "event");
  return call;
}

}  // namespace

// fa2a_code fa2a_event_query(fa2a_event* event, int32_t* done, fa2a_error* error)
// eventQuery(event: NativeEvent): Promise<boolean>
Napi::Value eventQuery(const Napi::CallbackInfo& info) {
  return Worker<EventCall>::start(
      info.Env(), eventCall(info),
      [](EventCall& call, fa2a_error* error) { return fa2a_event_query(call.event.get(), &call.done, error); },
      [](Napi::Env env, EventCall& call) -> Napi::Value { return Napi::Boolean::New(env, call.done != 0); });
}

// fa2a_code fa2a_event_wait(fa2a_event* event, fa2a_error* error)
// eventWait(event: NativeEvent): Promise<void>
Napi::Value eventWait(const Napi::CallbackInfo& info) {
  return Worker<EventCall>::start(
      info.Env(), eventCall(info),
      [](EventCall& call, fa2a_error* error) { return fa2a_event_wait(call.event.get(), error); },
      undefinedResult<EventCall>);
}

// fa2a_code fa2a_event_stream_wait(fa2a_event* event, fa2a_error* error)
// eventStreamWait(event: NativeEvent): Promise<void>
Napi::Value eventStreamWait(const Napi::CallbackInfo& info) {
  return Worker<EventCall>::start(
      info.Env(), eventCall(info),
      [](EventCall& call, fa2a_error* error) { return fa2a_event_stream_wait(call.event.get(), error); },
      undefinedResult<EventCall>);
}

// fa2a_code fa2a_event_record(fa2a_group* group, fa2a_event** event, fa2a_error* error)
// eventRecord(group: NativeGroup): Promise<NativeEvent>
Napi::Value eventRecord(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    fa2a_event* event;
  };
  auto call = std::make_unique<Call>();
  call->group = unwrap<fa2a_group>(info.Env(), info[0], "group");
  return Worker<Call>::start(
      info.Env(), std::move(call),
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
        int32_t count = 0;
        const auto code = fa2a_event_phases(call.event.get(), 0, nullptr, &count, error);
        if (code != FA2A_OK) return code;
        call.phases.resize(count);
        return fa2a_event_phases(call.event.get(), count, call.phases.data(), &count, error);
      },
      [](Napi::Env env, Call& call) -> Napi::Value {
        auto list = Napi::Array::New(env, call.phases.size());
        for (uint32_t i = 0; i < call.phases.size(); i++) {
          auto phase = Napi::Object::New(env);
          phase["rank"] = static_cast<double>(call.phases[i].rank);
          phase["waiting"] = call.phases[i].waiting != 0;
          phase["startUs"] = call.phases[i].start_us;
          phase["durationUs"] = call.phases[i].duration_us;
          phase["srcRank"] = static_cast<double>(call.phases[i].src_rank);
          phase["name"] = call.phases[i].name;
          list.Set(i, phase);
        }
        return list;
      });
}

// void fa2a_event_free(fa2a_event* event)
// eventFree(event: NativeEvent): void
Napi::Value eventFree(const Napi::CallbackInfo& info) {
  objectOf<fa2a_event>(info.Env(), info[0], "event").release(info.Env());
  return info.Env().Undefined();
}

}  // namespace binding
