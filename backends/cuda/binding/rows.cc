#include "calls.h"
#include "methods.h"

namespace binding {

namespace {

struct RowsCall {
  std::shared_ptr<fa2a_group> group;
  Arrays x;
  Arrays factors;
  Keep keep;
  Outputs out;
  Outputs scales;
};

std::unique_ptr<RowsCall> rowsCall(const Napi::CallbackInfo& info, const char* second) {
  const auto env = info.Env();
  auto call = onGroup<RowsCall>(info);
  const size_t numLocal = objectOf<fa2a_group>(env, info[0], "group").numLocal;
  call->x = arraysOf(env, info[1], numLocal, "x", call->keep);
  if (second != nullptr) call->factors = arraysOf(env, info[2], numLocal, second, call->keep);
  call->out.want(numLocal);
  if (second == nullptr) call->scales.want(numLocal);
  return call;
}

}  // namespace

// fa2a_code fa2a_cast_to_fp8(fa2a_group* group, const fa2a_array* x, fa2a_tensor** x_fp8, fa2a_tensor** scales,
//                            fa2a_error* error)
// castToFp8(group: NativeGroup, x: NativeArrays): Promise<{ x: NativeTensor[]; scales: NativeTensor[] }>
Napi::Value castToFp8(const Napi::CallbackInfo& info) {
  return Worker<RowsCall>::start(
      info.Env(), rowsCall(info, nullptr),
      [](RowsCall& call, fa2a_error* error) {
        return fa2a_cast_to_fp8(call.group.get(), call.x.data(), call.out.data(), call.scales.data(), error);
      },
      [](Napi::Env env, RowsCall& call) -> Napi::Value {
        auto result = Napi::Object::New(env);
        result["x"] = call.out.take(env);
        result["scales"] = call.scales.take(env);
        return result;
      });
}

// fa2a_code fa2a_cast_back(fa2a_group* group, const fa2a_array* x_fp8, const fa2a_array* scales, fa2a_tensor** x,
//                          fa2a_error* error)
// castBack(group: NativeGroup, x: NativeArrays, scales: NativeArrays): Promise<NativeTensor[]>
Napi::Value castBack(const Napi::CallbackInfo& info) {
  return Worker<RowsCall>::start(
      info.Env(), rowsCall(info, "scales"),
      [](RowsCall& call, fa2a_error* error) {
        return fa2a_cast_back(call.group.get(), call.x.data(), call.factors.data(), call.out.data(), error);
      },
      [](Napi::Env env, RowsCall& call) -> Napi::Value { return call.out.take(env); });
}

// fa2a_code fa2a_scale_rows(fa2a_group* group, const fa2a_array* x, const fa2a_array* factors, fa2a_tensor** out,
//                           fa2a_error* error)
// scaleRows(group: NativeGroup, x: NativeArrays, factors: NativeArrays): Promise<NativeTensor[]>
Napi::Value scaleRows(const Napi::CallbackInfo& info) {
  return Worker<RowsCall>::start(
      info.Env(), rowsCall(info, "factors"),
      [](RowsCall& call, fa2a_error* error) {
        return fa2a_scale_rows(call.group.get(), call.x.data(), call.factors.data(), call.out.data(), error);
      },
      [](Napi::Env env, RowsCall& call) -> Napi::Value { return call.out.take(env); });
}

}  // namespace binding
