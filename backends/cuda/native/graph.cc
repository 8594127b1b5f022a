// CUDA graphs: a capture forks from the first rank's stream to the others by events and joins them again.
#include "graph.h"

namespace fa2a {

void beginGraph(Group& group) {
  group.requireOpen();
  group.requireOneProcess("graph");
  if (group.capture != nullptr) failArgument("graph", "no capture in progress", "one", "end it first");
  if (group.ranks[0]->arena == nullptr) {
    failArgument("graph", "operations that have run once", "none", "run what you capture once before");
  }
  Rank& hub = *group.ranks[0];
  OnDevice on(hub.device);
  auto capture = std::make_shared<GraphState>();
  capture->group = group.shared_from_this();
  check(cudaStreamBeginCapture(hub.comm, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture", hub.rank);
  hub.released[0].record(hub.comm);
  for (const auto& rank : group.ranks) {
    if (rank.get() == &hub) continue;
    OnDevice other(rank->device);
    check(cudaStreamWaitEvent(rank->comm, hub.released[0].get(), 0), "cudaStreamWaitEvent", rank->rank);
  }
  group.capture = std::move(capture);
}

namespace {

/** Ends the capture whatever came of it, so that the streams can be used again. */
cudaError_t joinCapture(Group& group, cudaGraph_t* graph) {
  Rank& hub = *group.ranks[0];
  OnDevice on(hub.device);
  for (const auto& rank : group.ranks) {
    if (rank.get() == &hub) continue;
    rank->arrived[0].record(rank->comm);
    check(cudaStreamWaitEvent(hub.comm, rank->arrived[0].get(), 0), "cudaStreamWaitEvent", rank->rank);
  }
  return cudaStreamEndCapture(hub.comm, graph);
}

}  // namespace

void abandonCapture(Group& group) {
  if (group.capture == nullptr) return;
  group.capture.reset();
  cudaGraph_t graph = nullptr;
  joinCapture(group, &graph);
  cudaGetLastError();
  if (graph != nullptr) cudaGraphDestroy(graph);
}

std::shared_ptr<GraphState> endGraph(Group& group) {
  if (group.capture == nullptr) failArgument("graph", "a capture in progress", "none", "begin one first");
  std::shared_ptr<GraphState> state = std::move(group.capture);
  group.capture = nullptr;
  check(joinCapture(group, &state->graph), "cudaStreamEndCapture", 0);
  OnDevice on(group.ranks[0]->device);
  check(cudaGraphInstantiate(&state->exec, state->graph, 0), "cudaGraphInstantiate", 0);
  if (state->numOperations == 0) failArgument("graph", "at least one operation", "none", "capture a dispatch or combine");
  return state;
}

std::shared_ptr<EventState> launchGraph(GraphState& graph) {
  Group& group = *graph.group;
  group.requireOpen();
  if (group.capture != nullptr) failArgument("graph", "no capture in progress", "one", "end it first");
  fa2a_stream_options options = {};
  options.async_finish = 1;
  Operation operation(group, "graph", options);
  operation.barrier("entry");
  Rank& hub = *group.ranks[0];
  {
    OnDevice on(hub.device);
    check(cudaGraphLaunch(graph.exec, hub.comm), "cudaGraphLaunch", hub.rank);
  }
  operation.barrier("replayed");
  const auto event = operation.finish(graph.handles.empty() ? nullptr : graph.handles[0]);
  for (const auto& handle : graph.handles) {
    std::lock_guard lock(handle->mutex);
    handle->ready = event;
  }
  return event;
}

}  // namespace fa2a
