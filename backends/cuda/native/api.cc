// The C interface: tags, locks and codes around the C++ of this folder.
#include <algorithm>

#include "graph.h"
#include "group.h"
#include "handle.h"
#include "network.h"
#include "operations.h"
#include "rowops.h"

using namespace fa2a;

namespace {

template <class T>
T& required(T* pointer, const char* name) {
  if (pointer == nullptr) failArgument(name, "a place for it", "null", "pass one");
  return *pointer;
}

/** Runs `body(group)` under the group's lock. A failure during a capture ends the capture. */
template <class Body>
fa2a_code withGroup(fa2a_group* pointer, fa2a_error* error, Body body) {
  return guard(error, [&] {
    const std::shared_ptr<Group> group = stateOf(pointer);
    std::lock_guard lock(group->mutex);
    try {
      body(*group);
    } catch (const Failure& failure) {
      if (failure.error.group_usable == 0) {
        group->usable = false;
        group->giveUp();
      }
      abandonCapture(*group);
      throw;
    }
  });
}

size_t localIndex(const Group& group, int32_t local) {
  if (local < 0 || static_cast<size_t>(local) >= group.numLocal()) {
    failArgument("local", format("0..%zu", group.numLocal() - 1), std::to_string(local), "pass the index of a local rank");
  }
  return static_cast<size_t>(local);
}

void refuseCapture(const Group& group, const char* what) {
  if (group.capture != nullptr) failArgument(what, "dispatch and combine only during a capture", what, "end the capture first");
}

void give(fa2a_tensor** to, const Tensors& tensors) {
  if (to == nullptr) return;
  for (size_t i = 0; i < tensors.size(); i++) to[i] = boxOf<fa2a_tensor>(tensors[i]);
}

}  // namespace

int32_t fa2a_abi_version(void) { return FA2A_ABI_VERSION; }

int32_t fa2a_is_emulated(void) {
#ifdef FA2A_EMULATED
  return 1;
#else
  return 0;
#endif
}

int64_t fa2a_dtype_bytes(fa2a_dtype dtype) {
  switch (dtype) {
    case FA2A_BF16:
    case FA2A_FP16:
    case FA2A_I16: return 2;
    case FA2A_FP32:
    case FA2A_I32: return 4;
    case FA2A_FP8E4M3:
    case FA2A_U8:
    case FA2A_BOOL: return 1;
    case FA2A_I64: return 8;
  }
  return 0;
}

fa2a_code fa2a_group_create(const fa2a_group_options* options, fa2a_group** group, fa2a_error* error) {
  return guard(error, [&] {
    required(group, "group");
    *group = boxOf<fa2a_group>(std::make_shared<Group>(required(options, "options")));
  });
}

fa2a_code fa2a_group_close(fa2a_group* group, fa2a_error* error) {
  const fa2a_code code = withGroup(group, error, [](Group& open) {
    abandonCapture(open);
    open.close();
  });
  if (group != nullptr && group->tag == TagOf<fa2a_group>::TAG) freeBox(group);
  return code;
}

fa2a_code fa2a_group_configure(fa2a_group* group, const fa2a_group_options* options, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) { open.configure(required(options, "options"), false); });
}

fa2a_code fa2a_group_set_num_sms(fa2a_group* group, int32_t numSms, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) { open.setNumSms(numSms); });
}

fa2a_code fa2a_group_network(fa2a_group* group, int32_t local, fa2a_network_info* info, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    const size_t index = localIndex(open, local);
    required(info, "info") = {};
    if (open.network == nullptr) return;
    if (open.usable && !open.closed) {
      open.synchronize();
      open.network->settleLinks();
    }
    *info = open.network->sent[index];
  });
}

fa2a_code fa2a_group_connect(fa2a_group* group, fa2a_error* error) {
  return withGroup(group, error, [](Group& open) {
    refuseCapture(open, "connect");
    open.requireOpen();
    connect(open);
  });
}

fa2a_code fa2a_group_abort(fa2a_group* group, const char* why, fa2a_error* error) {
  // Without the lock: the call that waits holds it.
  return guard(error, [&] {
    const std::shared_ptr<Group> own = stateOf(group);
    const std::string reason = &required(why, "why");
    if (own->network != nullptr) own->network->abort(reason);
  });
}

fa2a_code fa2a_group_waits(fa2a_group* group, int32_t capacity, fa2a_wait* waits, int32_t* numWaits, fa2a_error* error) {
  return guard(error, [&] {
    const std::shared_ptr<Group> own = stateOf(group);
    const std::vector<fa2a_wait> all = own->network == nullptr ? std::vector<fa2a_wait>() : own->network->waits();
    required(numWaits, "num_waits") = static_cast<int32_t>(all.size());
    for (size_t i = 0; i < all.size() && static_cast<int32_t>(i) < capacity; i++) waits[i] = all[i];
  });
}

fa2a_code fa2a_group_synchronize(fa2a_group* group, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    refuseCapture(open, "synchronize");
    open.requireOpen();
    open.synchronize();
  });
}

fa2a_code fa2a_group_stream(fa2a_group* group, int32_t local, fa2a_stream which, void** stream, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    const Rank& rank = *open.ranks[localIndex(open, local)];
    required(stream, "stream") = which == FA2A_STREAM_COMPUTE ? rank.compute : rank.comm;
  });
}

fa2a_code fa2a_buffer_size(const fa2a_buffer_shape* shape, fa2a_buffer_bytes* bytes, fa2a_error* error) {
  return guard(error, [&] {
    const fa2a_buffer_shape& given = required(shape, "shape");
    const int32_t perNode = given.ranks_per_node == 0 ? given.num_ranks : given.ranks_per_node;
    const bool whole = given.num_ranks >= 1 && perNode >= 1 && given.num_ranks % perNode == 0 && given.num_experts >= 0 &&
                       given.num_tokens >= 0 && given.row_bytes >= 0 && given.topk >= 0 && given.num_rows >= 0;
    if (!whole) failArgument("shape", "sizes that are not negative, whole nodes", "others", "correct the shape");
    required(bytes, "bytes") = arenaLayout(given).bytes;
  });
}

fa2a_code fa2a_group_reserve(fa2a_group* group, int64_t bytes, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    refuseCapture(open, "reserve");
    open.requireOpen();
    if (bytes < 0) failArgument("bytes", "at least 0", std::to_string(bytes), "pass what fa2a_buffer_size says");
    open.reserve(static_cast<size_t>(bytes));
  });
}

fa2a_code fa2a_group_release(fa2a_group* group, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    refuseCapture(open, "release");
    open.requireOpen();
    open.synchronize();
    open.release();
  });
}

fa2a_code fa2a_group_memory(fa2a_group* group, int32_t local, fa2a_memory_info* info, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    const Rank& rank = *open.ranks[localIndex(open, local)];
    required(info, "info") = {static_cast<int64_t>(rank.arenaBytes), rank.pool->totalBytes(), rank.pool->freeBytes(),
                              open.reallocations};
  });
}

fa2a_code fa2a_tensor_create(fa2a_group* group, int32_t local, fa2a_dtype dtype, int64_t rows, int64_t columns,
                             fa2a_tensor** tensor, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    refuseCapture(open, "tensor_create");
    open.requireOpen();
    const bool fits = fa2a_dtype_bytes(dtype) > 0 && rows >= 0 && columns >= 0 && rows <= INT32_MAX && columns <= INT32_MAX;
    if (!fits) failArgument("tensor", "a known dtype and sizes of 0..2147483647", shapeText(dtype, rows, columns), "correct it");
    required(tensor, "tensor") = boxOf<fa2a_tensor>(makeTensor(open.ranks[localIndex(open, local)], dtype, rows, columns, false));
  });
}

fa2a_code fa2a_tensor_info_of(const fa2a_tensor* tensor, fa2a_tensor_info* info, fa2a_error* error) {
  return guard(error, [&] {
    const Tensor& own = *stateOf(tensor);
    required(info, "info") = {own.dtype, own.rank->rank, own.rank->device, own.rows, own.columns,
                              static_cast<int64_t>(own.bytes()), own.memory.data()};
  });
}

namespace {

void checkRange(const Tensor& tensor, int64_t offset, int64_t bytes) {
  const auto size = static_cast<int64_t>(tensor.bytes());
  if (offset >= 0 && bytes >= 0 && offset <= size && bytes <= size - offset) return;
  failArgument("range", format("bytes 0..%lld of the tensor", static_cast<long long>(size)),
               format("%lld from %lld", static_cast<long long>(bytes), static_cast<long long>(offset)), "shorten it");
}

}  // namespace

fa2a_code fa2a_tensor_write(fa2a_tensor* tensor, int64_t offset, int64_t bytes, const void* host, fa2a_error* error) {
  return guard(error, [&] {
    const std::shared_ptr<Tensor> own = stateOf(tensor);
    checkRange(*own, offset, bytes);
    if (bytes == 0) return;
    own->rank->upload(own->memory.data() + offset, host, static_cast<size_t>(bytes));
    own->rank->synchronize();
  });
}

fa2a_code fa2a_tensor_read(const fa2a_tensor* tensor, int64_t offset, int64_t bytes, void* host, fa2a_error* error) {
  return guard(error, [&] {
    const std::shared_ptr<Tensor> own = stateOf(tensor);
    checkRange(*own, offset, bytes);
    if (bytes > 0) own->rank->download(host, own->memory.data() + offset, static_cast<size_t>(bytes));
  });
}

fa2a_code fa2a_tensor_fill(fa2a_tensor* tensor, int32_t byte, fa2a_error* error) {
  return guard(error, [&] {
    const std::shared_ptr<Tensor> own = stateOf(tensor);
    OnDevice on(own->rank->device);
    if (own->bytes() == 0) return;
    check(cudaMemsetAsync(own->memory.data(), byte, own->bytes(), own->rank->comm), "cudaMemset", own->rank->rank);
  });
}

void fa2a_tensor_free(fa2a_tensor* tensor) { freeBox(tensor); }

fa2a_code fa2a_event_query(fa2a_event* event, int32_t* done, fa2a_error* error) {
  return guard(error, [&] {
    const std::shared_ptr<EventState> own = stateOf(event);
    required(done, "done") = 1;
    for (size_t local = 0; local < own->done.size(); local++) {
      const cudaError_t state = cudaEventQuery(own->done[local].get());
      if (state == cudaErrorNotReady) {
        *done = 0;
        return;
      }
      check(state, "cudaEventQuery", own->ranks[local]->rank);
    }
  });
}

fa2a_code fa2a_event_wait(fa2a_event* event, fa2a_error* error) {
  return guard(error, [&] {
    const std::shared_ptr<EventState> own = stateOf(event);
    waitEvent(*own, Deadline(own->ranks[0]->deadlineMs));
  });
}

fa2a_code fa2a_event_stream_wait(fa2a_event* event, fa2a_error* error) {
  return guard(error, [&] {
    const std::shared_ptr<EventState> own = stateOf(event);
    for (const auto& rank : own->ranks) {
      OnDevice on(rank->device);
      for (const Event& done : own->done) check(cudaStreamWaitEvent(rank->compute, done.get(), 0), "cudaStreamWaitEvent", rank->rank);
    }
  });
}

fa2a_code fa2a_event_record(fa2a_group* group, fa2a_event** event, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    refuseCapture(open, "event_record");
    open.requireOpen();
    required(event, "event");
    auto state = std::make_shared<EventState>();
    state->operation = "event";
    state->ranks = open.ranks;
    for (const auto& rank : open.ranks) {
      state->done.emplace_back(rank->device, false);
      state->done.back().record(rank->compute);
    }
    *event = boxOf<fa2a_event>(std::move(state));
  });
}

fa2a_code fa2a_event_phases(fa2a_event* event, int32_t capacity, fa2a_phase* phases, int32_t* numPhases, fa2a_error* error) {
  return guard(error, [&] {
    const std::shared_ptr<EventState> own = stateOf(event);
    waitEvent(*own, Deadline(own->ranks[0]->deadlineMs));
    required(numPhases, "num_phases") = static_cast<int32_t>(own->phases.size());
    for (size_t i = 0; i < own->phases.size() && static_cast<int32_t>(i) < capacity; i++) {
      const TimedPhase& phase = own->phases[i];
      fa2a_phase& to = phases[i];
      to = {};
      to.rank = phase.rank;
      to.waiting = phase.waiting;
      to.src_rank = phase.srcRank;
      std::snprintf(to.name, sizeof to.name, "%s", phase.name.c_str());
      // Times of one device compare with each other only: start at the first phase of any rank on it.
      const auto deviceOf = [&](int32_t rank) {
        for (const auto& other : own->ranks) {
          if (other->rank == rank) return other->device;
        }
        return -1;
      };
      const TimedPhase* origin = &phase;
      for (const TimedPhase& other : own->phases) {
        if (deviceOf(other.rank) != deviceOf(phase.rank)) continue;
        origin = &other;
        break;
      }
      float start = 0, length = 0;
      check(cudaEventElapsedTime(&start, origin->start.get(), phase.start.get()), "cudaEventElapsedTime", phase.rank);
      check(cudaEventElapsedTime(&length, phase.start.get(), phase.end.get()), "cudaEventElapsedTime", phase.rank);
      to.start_us = start * 1000.0;
      to.duration_us = length * 1000.0;
    }
  });
}

void fa2a_event_free(fa2a_event* event) { freeBox(event); }

fa2a_code fa2a_layout(fa2a_group* group, const fa2a_array* topkIdx, int32_t numExperts, const fa2a_layout_result* result,
                      fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    refuseCapture(open, "layout");
    layout(open, topkIdx, numExperts, required(result, "result"));
  });
}

fa2a_code fa2a_from_multihot(fa2a_group* group, const fa2a_array* routingMap, const fa2a_array* probs, int32_t topk,
                             fa2a_tensor** topkIdx, fa2a_tensor** topkWeights, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    refuseCapture(open, "from_multihot");
    Tensors weights;
    const Tensors ids = fromMultihot(open, routingMap, probs, topk, weights);
    give(topkIdx, ids);
    give(topkWeights, weights);
  });
}

fa2a_code fa2a_handle_meta_of(const fa2a_handle* handle, fa2a_handle_meta* meta, fa2a_error* error) {
  return guard(error, [&] { required(meta, "meta") = stateOf(handle)->meta; });
}

namespace {

size_t handleIndex(const HandleState& handle, int32_t local) {
  if (local < 0 || static_cast<size_t>(local) >= handle.ranks.size()) {
    failArgument("local", format("0..%zu", handle.ranks.size() - 1), std::to_string(local), "pass the index of a local rank");
  }
  return static_cast<size_t>(local);
}

}  // namespace

fa2a_code fa2a_handle_sizes_of(fa2a_handle* handle, int32_t local, fa2a_handle_sizes* sizes, fa2a_error* error) {
  return guard(error, [&] {
    const std::shared_ptr<HandleState> own = stateOf(handle);
    required(sizes, "sizes") = handleSizes(*own, handleIndex(*own, local));
  });
}

fa2a_code fa2a_handle_download(fa2a_handle* handle, int32_t local, const fa2a_handle_arrays* arrays, fa2a_error* error) {
  return guard(error, [&] {
    const std::shared_ptr<HandleState> own = stateOf(handle);
    downloadHandle(*own, handleIndex(*own, local), required(arrays, "arrays"));
  });
}

fa2a_code fa2a_handle_upload(fa2a_group* group, const fa2a_handle_meta* meta, const fa2a_handle_sizes* sizes,
                             const fa2a_handle_arrays* arrays, fa2a_handle** handle, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    refuseCapture(open, "handle_upload");
    required(handle, "handle");
    required(sizes, "sizes");
    required(arrays, "arrays");
    *handle = boxOf<fa2a_handle>(uploadHandle(open, required(meta, "meta"), sizes, arrays));
  });
}

void fa2a_handle_free(fa2a_handle* handle) { freeBox(handle); }

fa2a_code fa2a_dispatch(fa2a_group* group, const fa2a_dispatch_request* request, fa2a_dispatch_result* result, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) { dispatch(open, required(request, "request"), required(result, "result")); });
}

fa2a_code fa2a_combine(fa2a_group* group, const fa2a_combine_request* request, fa2a_combine_result* result, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) { combine(open, required(request, "request"), required(result, "result")); });
}

fa2a_code fa2a_cast_to_fp8(fa2a_group* group, const fa2a_array* x, fa2a_tensor** fp8, fa2a_tensor** scales, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    refuseCapture(open, "cast_to_fp8");
    Tensors scaleTensors;
    const Tensors codes = castToFp8(open, x, scaleTensors);
    give(fp8, codes);
    give(scales, scaleTensors);
  });
}

fa2a_code fa2a_cast_back(fa2a_group* group, const fa2a_array* fp8, const fa2a_array* scales, fa2a_tensor** x, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    refuseCapture(open, "cast_back");
    give(x, castBack(open, fp8, scales));
  });
}

fa2a_code fa2a_scale_rows(fa2a_group* group, const fa2a_array* x, const fa2a_array* factors, fa2a_tensor** out, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    refuseCapture(open, "scale_rows");
    give(out, scaleRows(open, x, factors));
  });
}

fa2a_code fa2a_graph_begin(fa2a_group* group, fa2a_error* error) {
  return withGroup(group, error, [](Group& open) { beginGraph(open); });
}

fa2a_code fa2a_graph_end(fa2a_group* group, fa2a_graph** graph, fa2a_error* error) {
  return withGroup(group, error, [&](Group& open) {
    required(graph, "graph");
    *graph = boxOf<fa2a_graph>(endGraph(open));
  });
}

fa2a_code fa2a_graph_launch(fa2a_graph* graph, fa2a_event** event, fa2a_error* error) {
  return guard(error, [&] {
    const std::shared_ptr<GraphState> own = stateOf(graph);
    std::lock_guard lock(own->group->mutex);
    required(event, "event");
    *event = boxOf<fa2a_event>(launchGraph(*own));
  });
}

void fa2a_graph_free(fa2a_graph* graph) { freeBox(graph); }
