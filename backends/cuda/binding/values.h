// JavaScript values to C values and back. Every reader names the property in its error.
#pragma once

#include <string>
#include <vector>

#include "worker.h"

namespace binding {

bool isAbsent(Napi::Value value);
/** A whole number within the range of int64_t. */
int64_t wholeNumber(Napi::Env env, Napi::Value value, const std::string& name);
int64_t property64(Napi::Object object, const char* name);
int32_t property32(Napi::Object object, const char* name);
Napi::Object objectArgument(const Napi::CallbackInfo& info, size_t index, const char* name);

/** A typed array's memory. Throws unless it is one with at least `bytes` bytes. */
char* bytesOf(Napi::Env env, Napi::Value value, int64_t bytes, const std::string& name, Keep& keep);
/** An Int32Array or Uint8Array of at least `length` elements; null stays null. */
int32_t* int32Memory(Napi::Env env, Napi::Value value, int64_t length, const std::string& name, Keep& keep);

/** An fa2a_array per local rank and what keeps its memory alive. */
struct Arrays {
  std::vector<fa2a_array> values;
  std::vector<std::shared_ptr<fa2a_tensor>> tensors;
  const fa2a_array* data() const { return values.empty() ? nullptr : values.data(); }
};

/** Reads `[{ tensor } | { data, dtype, rows, columns }]`; null gives none. Throws unless there are `numLocal`. */
Arrays arraysOf(Napi::Env env, Napi::Value value, size_t numLocal, const std::string& name, Keep& keep);

/** Result pointers of one output, one per local rank. */
class Outputs {
 public:
  void want(size_t numLocal) { tensors_.assign(numLocal, nullptr); }
  fa2a_tensor** data() { return tensors_.empty() ? nullptr : tensors_.data(); }
  /** `NativeTensor[]`, or null when the output was not wanted. Takes the references. */
  Napi::Value take(Napi::Env env);
  Outputs() = default;
  Outputs(const Outputs&) = delete;
  Outputs& operator=(const Outputs&) = delete;
  ~Outputs();

 private:
  std::vector<fa2a_tensor*> tensors_;
};

/** A Uint8Array of its own. */
Napi::Value bytesValue(Napi::Env env, const std::vector<uint8_t>& bytes);

template <class T>
Napi::Value listValue(Napi::Env env, const std::vector<T>& list, Napi::Value (*value)(Napi::Env, const T&)) {
  auto values = Napi::Array::New(env, list.size());
  for (uint32_t i = 0; i < list.size(); i++) values.Set(i, value(env, list[i]));
  return values;
}

/** `{ tensor, dtype, rank, device, rows, columns, bytes, pointer }` (NativeTensor). */
Napi::Value wrapTensor(Napi::Env env, std::shared_ptr<fa2a_tensor> tensor);

/** What an event weighs for the collector: the driver's events behind it are small but not free. */
constexpr int64_t EVENT_BYTES = 16384;

std::shared_ptr<fa2a_tensor> own(fa2a_tensor* tensor);
std::shared_ptr<fa2a_handle> own(fa2a_handle* handle);
std::shared_ptr<fa2a_event> own(fa2a_event* event);

}  // namespace binding
