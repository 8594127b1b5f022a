#include "values.h"

#include <algorithm>
#include <cmath>

namespace binding {

bool isAbsent(Napi::Value value) { return value.IsNull() || value.IsUndefined(); }

int64_t wholeNumber(Napi::Env env, Napi::Value value, const std::string& name) {
  if (value.IsNumber()) {
    const double number = value.As<Napi::Number>().DoubleValue();
    if (std::floor(number) == number && std::abs(number) <= 9007199254740992.0) return static_cast<int64_t>(number);
  }
  throwArgument(env, name, "a whole number", value.ToString().Utf8Value(), "pass a safe integer");
}

int64_t property64(Napi::Object object, const char* name) {
  const Napi::Value value = object.Get(name);
  return isAbsent(value) ? 0 : wholeNumber(object.Env(), value, name);
}

int32_t property32(Napi::Object object, const char* name) {
  const int64_t value = property64(object, name);
  if (value < INT32_MIN || value > INT32_MAX) {
    throwArgument(object.Env(), name, "a 32-bit number", std::to_string(value), "pass a smaller one");
  }
  return static_cast<int32_t>(value);
}

Napi::Object objectArgument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  if (info[index].IsObject() && !info[index].IsExternal()) return info[index].As<Napi::Object>();
  throwArgument(info.Env(), name, "an object", isAbsent(info[index]) ? "nothing" : "something else", "pass an object");
}

char* bytesOf(Napi::Env env, Napi::Value value, int64_t bytes, const std::string& name, Keep& keep) {
  if (!value.IsTypedArray()) throwArgument(env, name, "a typed array", "something else", "pass a typed array");
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  // Not through Napi::TypedArray::ArrayBuffer: arrays over shared memory have none.
  napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr);
  const size_t have = value.As<Napi::TypedArray>().ByteLength();
  if (bytes < 0 || have < static_cast<size_t>(bytes)) {
    throwArgument(env, name, std::to_string(bytes) + " bytes", std::to_string(have), "pass an array of that size");
  }
  keep.add(value.As<Napi::Object>());
  return static_cast<char*>(data);
}

int32_t* int32Memory(Napi::Env env, Napi::Value value, int64_t length, const std::string& name, Keep& keep) {
  if (isAbsent(value)) return nullptr;
  return reinterpret_cast<int32_t*>(bytesOf(env, value, length * 4, name, keep));
}

namespace {

fa2a_array arrayOf(Napi::Env env, Napi::Value value, const std::string& name, Keep& keep, Arrays& arrays) {
  fa2a_array array = {};
  if (!value.IsObject()) throwArgument(env, name, "an array or a tensor", "something else", "pass one per local rank");
  const auto object = value.As<Napi::Object>();
  const Napi::Value tensor = object.Get("tensor");
  if (!isAbsent(tensor)) {
    arrays.tensors.push_back(unwrap<fa2a_tensor>(env, tensor, name));
    array.tensor = arrays.tensors.back().get();
    return array;
  }
  array.dtype = static_cast<fa2a_dtype>(property32(object, "dtype"));
  array.rows = property64(object, "rows");
  array.columns = property64(object, "columns");
  const int64_t width = fa2a_dtype_bytes(array.dtype);
  const bool fits = width > 0 && array.rows >= 0 && array.columns >= 0 &&
                    (array.columns == 0 || array.rows <= INT64_MAX / width / array.columns);
  if (!fits) throwArgument(env, name, "a dtype and a size", "impossible ones", "pass rows, columns and a dtype");
  array.host = bytesOf(env, object.Get("data"), array.rows * array.columns * width, name, keep);
  // An empty typed array has no memory, and null means "not given".
  static const char EMPTY[1] = {0};
  if (array.host == nullptr) array.host = EMPTY;
  return array;
}

}  // namespace

Arrays arraysOf(Napi::Env env, Napi::Value value, size_t numLocal, const std::string& name, Keep& keep) {
  Arrays arrays;
  if (isAbsent(value)) return arrays;
  const size_t length = value.IsArray() ? value.As<Napi::Array>().Length() : 0;
  if (length != numLocal) {
    throwArgument(env, name, "one per local rank (" + std::to_string(numLocal) + ")", std::to_string(length),
                  "pass an array for every local rank");
  }
  const auto list = value.As<Napi::Array>();
  for (uint32_t i = 0; i < length; i++) {
    arrays.values.push_back(arrayOf(env, list.Get(i), name + "[" + std::to_string(i) + "]", keep, arrays));
  }
  return arrays;
}

std::shared_ptr<fa2a_tensor> own(fa2a_tensor* tensor) { return {tensor, fa2a_tensor_free}; }
std::shared_ptr<fa2a_handle> own(fa2a_handle* handle) { return {handle, fa2a_handle_free}; }
std::shared_ptr<fa2a_event> own(fa2a_event* event) { return {event, fa2a_event_free}; }

Napi::Value bytesValue(Napi::Env env, const std::vector<uint8_t>& bytes) {
  auto value = Napi::Uint8Array::New(env, bytes.size());
  std::copy(bytes.begin(), bytes.end(), value.Data());
  return value;
}

Napi::Value wrapTensor(Napi::Env env, std::shared_ptr<fa2a_tensor> tensor) {
  fa2a_tensor_info info = {};
  fa2a_error error = {};
  check(env, fa2a_tensor_info_of(tensor.get(), &info, &error), error);
  auto object = Napi::Object::New(env);
  object["tensor"] = wrap(env, std::move(tensor), info.bytes);
  object["dtype"] = static_cast<double>(info.dtype);
  object["rank"] = static_cast<double>(info.rank);
  object["device"] = static_cast<double>(info.device);
  object["rows"] = static_cast<double>(info.rows);
  object["columns"] = static_cast<double>(info.columns);
  object["bytes"] = static_cast<double>(info.bytes);
  object["pointer"] = Napi::BigInt::New(env, static_cast<uint64_t>(reinterpret_cast<uintptr_t>(info.data)));
  return object;
}

Napi::Value Outputs::take(Napi::Env env) {
  if (tensors_.empty()) return env.Null();
  auto list = Napi::Array::New(env, tensors_.size());
  for (uint32_t i = 0; i < tensors_.size(); i++) {
    auto* tensor = tensors_[i];
    tensors_[i] = nullptr;
    list.Set(i, wrapTensor(env, own(tensor)));
  }
  tensors_.clear();
  return list;
}

Outputs::~Outputs() {
  for (auto* tensor : tensors_) fa2a_tensor_free(tensor);
}

}  // namespace binding
