#include "calls.h"
#include "methods.h"

namespace binding {

// fa2a_code fa2a_graph_begin(fa2a_group* group, fa2a_error* error)
// graphBegin(group: NativeGroup): Promise<void>
Napi::Value graphBegin(const Napi::CallbackInfo& info) { return callOn(info, fa2a_graph_begin); }

// fa2a_code fa2a_graph_end(fa2a_group* group, fa2a_graph** graph, fa2a_error* error)
// graphEnd(group: NativeGroup): Promise<NativeGraph>
Napi::Value graphEnd(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    fa2a_graph* graph;
  };
  return Worker<Call>::start(
      info.Env(), onGroup<Call>(info),
      [](Call& call, fa2a_error* error) { return fa2a_graph_end(call.group.get(), &call.graph, error); },
      [](Napi::Env env, Call& call) -> Napi::Value {
        return wrap(env, std::shared_ptr<fa2a_graph>(call.graph, fa2a_graph_free));
      });
}

// fa2a_code fa2a_graph_launch(fa2a_graph* graph, fa2a_event** event, fa2a_error* error)
// graphLaunch(graph: NativeGraph): Promise<NativeEvent>
Napi::Value graphLaunch(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_graph> graph;
    fa2a_event* event;
  };
  auto call = std::make_unique<Call>();
  call->graph = unwrap<fa2a_graph>(info.Env(), info[0], "graph");
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) { return fa2a_graph_launch(call.graph.get(), &call.event, error); },
      [](Napi::Env env, Call& call) -> Napi::Value { return wrap(env, own(call.event), EVENT_BYTES); });
}

// void fa2a_graph_free(fa2a_graph* graph)
// graphFree(graph: NativeGraph): void
Napi::Value graphFree(const Napi::CallbackInfo& info) { return freeObject<fa2a_graph>(info); }

}  // namespace binding
