#include "stream.h"

namespace binding {

namespace {

int32_t flag(Napi::Object object, const char* name) {
  const Napi::Value value = object.Get(name);
  return value.IsBoolean() && value.As<Napi::Boolean>().Value() ? 1 : 0;
}

}  // namespace

Stream streamOf(Napi::Object request) {
  Stream stream;
  const Napi::Value previous = request.Get("previousEvent");
  if (!isAbsent(previous)) stream.previous = unwrap<fa2a_event>(request.Env(), previous, "previousEvent");
  stream.options.previous_event = stream.previous.get();
  stream.options.async_finish = flag(request, "asyncFinish");
  stream.options.allocate_on_comm_stream = flag(request, "allocateOnCommStream");
  stream.options.num_sms = property32(request, "numSms");
  return stream;
}

fa2a_tensor** Into::list(Napi::Object result, const char* name, size_t numLocal) {
  const Napi::Value value = result.Get(name);
  if (isAbsent(value)) return nullptr;
  const auto list = value.IsArray() ? value.As<Napi::Array>() : Napi::Array::New(result.Env());
  if (list.Length() != numLocal) {
    throwArgument(result.Env(), std::string("into.") + name, "one tensor per local rank",
                  std::to_string(list.Length()), "pass the result of an earlier call unchanged");
  }
  std::vector<fa2a_tensor*> tensors;
  for (uint32_t i = 0; i < numLocal; i++) {
    owners_.push_back(unwrap<fa2a_tensor>(result.Env(), list.Get(i), std::string("into.") + name));
    tensors.push_back(owners_.back().get());
  }
  // The inner vector's memory stays where it is when the outer one grows.
  lists_.push_back(std::move(tensors));
  return lists_.back().data();
}

}  // namespace binding
