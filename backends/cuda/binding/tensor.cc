#include "calls.h"
#include "methods.h"

namespace binding {

namespace {

struct Copy {
  std::shared_ptr<fa2a_tensor> tensor;
  int64_t offset;
  int64_t bytes;
  char* host;
};

struct CopyCall {
  std::vector<Copy> copies;
  fa2a_code (*copy)(const Copy&, fa2a_error*);
  Keep keep;
};

/** Reads `[{ tensor, offset, bytes, data }]` and does `copy` to each, up to the first that fails. */
Napi::Value copyEach(const Napi::CallbackInfo& info, fa2a_code (*copy)(const Copy&, fa2a_error*)) {
  if (!info[0].IsArray()) throwArgument(info.Env(), "copies", "an array", "something else", "pass an array of copies");
  auto call = std::make_unique<CopyCall>();
  const auto list = info[0].As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) {
    const auto one = static_cast<Napi::Value>(list.Get(i)).As<Napi::Object>();
    Copy read;
    read.tensor = unwrap<fa2a_tensor>(info.Env(), one.Get("tensor"), "tensor");
    read.offset = property64(one, "offset");
    read.bytes = property64(one, "bytes");
    read.host = bytesOf(info.Env(), one.Get("data"), read.bytes, "data", call->keep);
    call->copies.push_back(std::move(read));
  }
  call->copy = copy;
  return Worker<CopyCall>::start(
      info.Env(), std::move(call),
      [](CopyCall& call, fa2a_error* error) {
        for (const auto& one : call.copies) {
          const auto code = call.copy(one, error);
          if (code != FA2A_OK) return code;
        }
        return FA2A_OK;
      },
      undefinedResult<CopyCall>);
}

}  // namespace

// fa2a_code fa2a_tensor_create(fa2a_group* group, int32_t local, fa2a_dtype dtype, int64_t rows, int64_t columns,
//                              fa2a_tensor** tensor, fa2a_error* error)
// tensorCreate(group: NativeGroup, local: number, dtype: number, rows: number, columns: number): Promise<NativeTensor>
Napi::Value tensorCreate(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    int32_t local;
    fa2a_dtype dtype;
    int64_t rows;
    int64_t columns;
    fa2a_tensor* tensor;
  };
  const auto env = info.Env();
  auto call = onGroup<Call>(info);
  call->local = static_cast<int32_t>(wholeNumber(env, info[1], "local"));
  call->dtype = static_cast<fa2a_dtype>(wholeNumber(env, info[2], "dtype"));
  call->rows = wholeNumber(env, info[3], "rows");
  call->columns = wholeNumber(env, info[4], "columns");
  return Worker<Call>::start(
      env, std::move(call),
      [](Call& call, fa2a_error* error) {
        return fa2a_tensor_create(call.group.get(), call.local, call.dtype, call.rows, call.columns, &call.tensor,
                                  error);
      },
      [](Napi::Env env, Call& call) -> Napi::Value { return wrapTensor(env, own(call.tensor)); });
}

// fa2a_code fa2a_tensor_info_of(const fa2a_tensor* tensor, fa2a_tensor_info* info, fa2a_error* error)
// tensorInfo(tensor: NativeTensorRef): NativeTensor
Napi::Value tensorInfo(const Napi::CallbackInfo& info) {
  return wrapTensor(info.Env(), unwrap<fa2a_tensor>(info.Env(), info[0], "tensor"));
}

// fa2a_code fa2a_tensor_write(fa2a_tensor* tensor, int64_t offset, int64_t bytes, const void* host, fa2a_error* error)
// tensorsWrite(copies: readonly NativeCopy[]): Promise<void>
Napi::Value tensorsWrite(const Napi::CallbackInfo& info) {
  return copyEach(info, [](const Copy& one, fa2a_error* error) {
    return fa2a_tensor_write(one.tensor.get(), one.offset, one.bytes, one.host, error);
  });
}

// fa2a_code fa2a_tensor_read(const fa2a_tensor* tensor, int64_t offset, int64_t bytes, void* host, fa2a_error* error)
// tensorsRead(copies: readonly NativeCopy[]): Promise<void>
Napi::Value tensorsRead(const Napi::CallbackInfo& info) {
  return copyEach(info, [](const Copy& one, fa2a_error* error) {
    return fa2a_tensor_read(one.tensor.get(), one.offset, one.bytes, one.host, error);
  });
}

// fa2a_code fa2a_tensor_fill(fa2a_tensor* tensor, int32_t byte, fa2a_error* error)
// tensorFill(tensor: NativeTensorRef, byte: number): Promise<void>
Napi::Value tensorFill(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_tensor> tensor;
    int32_t byte;
  };
  auto call = std::make_unique<Call>();
  call->tensor = unwrap<fa2a_tensor>(info.Env(), info[0], "tensor");
  call->byte = static_cast<int32_t>(wholeNumber(info.Env(), info[1], "byte"));
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) { return fa2a_tensor_fill(call.tensor.get(), call.byte, error); },
      undefinedResult<Call>);
}

// void fa2a_tensor_free(fa2a_tensor* tensor)
// tensorFree(tensor: NativeTensorRef): void
Napi::Value tensorFree(const Napi::CallbackInfo& info) { return freeObject<fa2a_tensor>(info); }

}  // namespace binding
