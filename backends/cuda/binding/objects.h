// The C library's objects as JavaScript values: externals that share ownership with running operations.
#pragma once

#include <napi.h>

#include <memory>
#include <string>

#include "../native/include/fused_a2a.h"

namespace binding {

/** Throws the JavaScript error of `error`: an Error whose `native` holds the fields (errors.ts makes classes of them). */
[[noreturn]] void throwError(Napi::Env env, const fa2a_error& error);
Napi::Error makeError(Napi::Env env, const fa2a_error& error);
/** InvalidArgument in the grammar of core/errors.ts. */
[[noreturn]] void throwArgument(Napi::Env env, const std::string& name, const std::string& expected,
                                const std::string& received, const std::string& remedy);
/** Throws unless `code` is FA2A_OK. */
void check(Napi::Env env, fa2a_code code, const fa2a_error& error);

template <class T>
struct KindOf;
template <>
struct KindOf<fa2a_group> {
  static constexpr uint64_t INDEX = 1;
  static constexpr const char* NAME = "group";
};
template <>
struct KindOf<fa2a_tensor> {
  static constexpr uint64_t INDEX = 2;
  static constexpr const char* NAME = "tensor";
};
template <>
struct KindOf<fa2a_handle> {
  static constexpr uint64_t INDEX = 3;
  static constexpr const char* NAME = "handle";
};
template <>
struct KindOf<fa2a_event> {
  static constexpr uint64_t INDEX = 4;
  static constexpr const char* NAME = "event";
};
template <>
struct KindOf<fa2a_graph> {
  static constexpr uint64_t INDEX = 5;
  static constexpr const char* NAME = "graph";
};

/**
 * Drawn when the addon is loaded: the CUDA and the emulated build can be in one process, and an object of one must be a
 * stranger to the other although the C types have the same names.
 */
uint64_t loadTag();

/** What an external points to. `pointer` is empty once freed; running operations hold copies of their own. */
template <class T>
struct Object {
  std::shared_ptr<T> pointer;
  /** Memory outside the JavaScript heap, told to the collector so that forgotten objects are found in time. */
  int64_t bytes = 0;
  /** Groups: entries that every [local] array must have. */
  size_t numLocal = 0;

  void release(Napi::Env env) {
    if (pointer == nullptr) return;
    pointer.reset();
    Napi::MemoryManagement::AdjustExternalMemory(env, -bytes);
  }
};

template <class T>
Napi::Value wrap(Napi::Env env, std::shared_ptr<T> pointer, int64_t bytes = 0, size_t numLocal = 0) {
  auto* object = new Object<T>{std::move(pointer), bytes, numLocal};
  auto external = Napi::External<Object<T>>::New(env, object, [](Napi::Env finalEnv, Object<T>* data) {
    data->release(finalEnv);
    delete data;
  });
  const napi_type_tag tag = {loadTag(), KindOf<T>::INDEX};
  external.TypeTag(&tag);
  Napi::MemoryManagement::AdjustExternalMemory(env, bytes);
  return external;
}

/** The object behind `value`, freed or not. Throws when it is anything but a T of this addon. */
template <class T>
Object<T>& objectOf(Napi::Env env, Napi::Value value, const std::string& name) {
  const napi_type_tag tag = {loadTag(), KindOf<T>::INDEX};
  if (value.IsExternal()) {
    auto external = value.As<Napi::External<Object<T>>>();
    if (external.CheckTypeTag(&tag)) return *external.Data();
  }
  throwArgument(env, name, std::string("a ") + KindOf<T>::NAME + " of this backend",
                value.IsExternal() ? "another native object" : "something else", "pass what the backend returned");
}

/** The live T behind `value`. Throws when it is of another type or was freed. */
template <class T>
std::shared_ptr<T> unwrap(Napi::Env env, Napi::Value value, const std::string& name) {
  auto& object = objectOf<T>(env, value, name);
  if (object.pointer != nullptr) return object.pointer;
  throwArgument(env, name, std::string("a live ") + KindOf<T>::NAME, "one that was freed",
                "use it before you free it");
}

}  // namespace binding
