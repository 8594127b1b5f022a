#include "methods.h"
#include "values.h"

namespace binding {

namespace {

struct GraphCall {
  std::shared_ptr<fa2a_group> group;
  std::shared_ptr<fa2a_graph> graph;
  fa2a_graph* made = nullptr;
  fa2a_event* event = nullptr;
};

std::unique_ptr<GraphCall> captureCall(const Napi::CallbackInfo& info) {
  auto call = std::make_unique<GraphCall>();
  call->group = unwrap<fa2a_group>(info.Env(), info[0], "group");
  return call;
}

}  // namespace

// fa2a_code fa2a_graph_begin(fa2a_group* group, fa2a_error* error)
// graphBegin(group: NativeGroup): Promise<void>
Napi::Value graphBegin(const Napi::CallbackInfo& info) {
  return Worker<GraphCall>::start(
      info.Env(), captureCall(info),
      [](GraphCall& call, fa2a_error* error) { return fa2a_graph_begin(call.group.get(), error); },
      undefinedResult<GraphCall>);
}

// fa2a_code fa2a_graph_end(fa2a_group* group, fa2a_graph** graph, fa2a_error* error)
// graphEnd(group: NativeGroup): Promise<NativeGraph>
Napi::Value graphEnd(const Napi::CallbackInfo& info) {
  return Worker<GraphCall>::start(
      info.Env(), captureCall(info),
      [](GraphCall& call, fa2a_error* error) { return fa2a_graph_end(call.group.get(), &call.made, error); },
      [](Napi::Env env, GraphCall& call) -> Napi::Value {
        return wrap(env, std::shared_ptr<fa2a_graph>(call.made, fa2a_graph_free));
      });
}

// fa2a_code fa2a_graph_launch(fa2a_graph* graph, fa2a_event** event, fa2a_error* error)
// graphLaunch(graph: NativeGraph): Promise<NativeEvent>
Napi::Value graphLaunch(const Napi::CallbackInfo& info) {
  auto call = std::make_unique<GraphCall>();
  call->graph = unwrap<fa2a_graph>(info.Env(), info[0], "graph");
  return Worker<GraphCall>::start(
      info.Env(), std::move(call),
      [](GraphCall& call, fa2a_error* error) { return fa2a_graph_launch(call.graph.get(), &call.event, error); },
      [](Napi::Env env, GraphCall& call) -> Napi::Value { return wrap(env, own(call.event), EVENT_BYTES); });
}

// void fa2a_graph_free(fa2a_graph* graph)
// graphFree(graph: NativeGraph): void
Napi::Value graphFree(const Napi::CallbackInfo& info) {
  objectOf<fa2a_graph>(info.Env(), info[0], "graph").release(info.Env());
  return info.Env().Undefined();
}

}  // namespace binding
