// Methods that differ only in the C function they call: what they do with their first argument is written once.
#pragma once

#include "values.h"

namespace binding {

/** A new Call, with its `group` from the method's first argument. */
template <class Call>
std::unique_ptr<Call> onGroup(const Napi::CallbackInfo& info) {
  auto call = std::make_unique<Call>();
  call->group = unwrap<fa2a_group>(info.Env(), info[0], "group");
  return call;
}

/** A method whose only argument is an object of the library, and which resolves to nothing. */
template <class T>
Napi::Value callOn(const Napi::CallbackInfo& info, fa2a_code (*function)(T*, fa2a_error*)) {
  struct Call {
    std::shared_ptr<T> object;
    fa2a_code (*function)(T*, fa2a_error*);
  };
  auto call = std::make_unique<Call>();
  call->object = unwrap<T>(info.Env(), info[0], KindOf<T>::NAME);
  call->function = function;
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) { return call.function(call.object.get(), error); }, undefinedResult<Call>);
}

/** A method (group, local) that resolves to what the library tells of that rank, made a JavaScript value by `value`. */
template <class Told>
Napi::Value toldOfRank(const Napi::CallbackInfo& info, fa2a_code (*function)(fa2a_group*, int32_t, Told*, fa2a_error*),
                       Napi::Value (*value)(Napi::Env, const Told&)) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    int32_t local;
    fa2a_code (*function)(fa2a_group*, int32_t, Told*, fa2a_error*);
    Napi::Value (*value)(Napi::Env, const Told&);
    Told told;
  };
  auto call = onGroup<Call>(info);
  call->local = static_cast<int32_t>(wholeNumber(info.Env(), info[1], "local"));
  call->function = function;
  call->value = value;
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) {
        return call.function(call.group.get(), call.local, &call.told, error);
      },
      [](Napi::Env env, Call& call) -> Napi::Value { return call.value(env, call.told); });
}

/** A method that frees its only argument; a second time it does nothing. Running operations keep what they hold. */
template <class T>
Napi::Value freeObject(const Napi::CallbackInfo& info) {
  objectOf<T>(info.Env(), info[0], KindOf<T>::NAME).release(info.Env());
  return info.Env().Undefined();
}

/**
 * The C functions that fill a list tell first how long it is: `ask` is called with no room, then with room for all.
 * There may be fewer by then, or more, which are left out.
 */
template <class T, class Ask>
fa2a_code fillList(std::vector<T>& list, Ask ask) {
  int32_t count = 0;
  const fa2a_code code = ask(0, nullptr, &count);
  if (code != FA2A_OK) return code;
  list.resize(static_cast<size_t>(count));
  const fa2a_code filled = ask(count, list.data(), &count);
  if (static_cast<size_t>(count) < list.size()) list.resize(static_cast<size_t>(count));
  return filled;
}

}  // namespace binding
