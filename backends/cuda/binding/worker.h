// One promise per operation: the C call runs on a thread of Node's pool, the event loop is never blocked.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "objects.h"

namespace binding {

/** JavaScript values that must stay alive while a call runs: the memory of typed arrays. */
class Keep {
 public:
  void add(Napi::Object value) { references_.push_back(Napi::Persistent(value)); }

 private:
  std::vector<Napi::ObjectReference> references_;
};

/**
 * `execute` runs off the event loop and touches no JavaScript; `result` makes the promise's value on it. Both share
 * `Call`, which owns what the C call needs (objects, arrays, result pointers) and dies on the event loop.
 */
template <class Call>
class Worker : public Napi::AsyncWorker {
 public:
  using Execution = fa2a_code (*)(Call&, fa2a_error*);
  using Result = Napi::Value (*)(Napi::Env, Call&);

  static Napi::Promise start(Napi::Env env, std::unique_ptr<Call> call, Execution execution, Result result) {
    auto* worker = new Worker(env, std::move(call), execution, result);
    auto promise = worker->deferred_.Promise();
    worker->Queue();
    return promise;
  }

 protected:
  void Execute() override {
    error_ = {};
    if (execution_(*call_, &error_) != FA2A_OK) SetError(error_.message[0] != 0 ? error_.message : "native call failed");
  }
  void OnOK() override {
    try {
      deferred_.Resolve(result_(Env(), *call_));
    } catch (const Napi::Error& error) {
      deferred_.Reject(error.Value());
    }
  }
  void OnError(const Napi::Error&) override { deferred_.Reject(makeError(Env(), error_).Value()); }

 private:
  Worker(Napi::Env env, std::unique_ptr<Call> call, Execution execution, Result result)
      : Napi::AsyncWorker(env, "fused-a2a"), deferred_(env), call_(std::move(call)), execution_(execution), result_(result) {}

  Napi::Promise::Deferred deferred_;
  std::unique_ptr<Call> call_;
  Execution execution_;
  Result result_;
  fa2a_error error_ = {};
};

template <class Call>
Napi::Value undefinedResult(Napi::Env env, Call&) {
  return env.Undefined();
}

}  // namespace binding
