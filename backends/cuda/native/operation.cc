// How an operation is enqueued: streams, barriers, inputs and waiting.
#include <algorithm>

#include "network.h"

namespace fa2a {

Operation::Operation(Group& group, const char* name, const fa2a_stream_options& options)
    : group_(group), options_(options), event_(std::make_shared<EventState>()) {
  group.operation = name;
  group.barrierNames.clear();
  event_->operation = name;
  event_->ranks = group.ranks;
  event_->group = group.weak_from_this();
  if (group.network != nullptr) group.network->begin();
  if (capturing()) return;
  // The comm streams start after the given event, or after what the caller's compute streams hold now.
  EventState* previous = options.previous_event == nullptr ? nullptr : stateOf(options.previous_event).get();
  for (const auto& rank : group.ranks) {
    OnDevice on(rank->device);
    if (previous == nullptr) {
      rank->computeMark.record(rank->compute);
      check(cudaStreamWaitEvent(rank->comm, rank->computeMark.get(), 0), "cudaStreamWaitEvent", rank->rank);
      continue;
    }
    for (const Event& done : previous->done) {
      check(cudaStreamWaitEvent(rank->comm, done.get(), 0), "cudaStreamWaitEvent", rank->rank);
    }
  }
}

void Operation::phase(const char* name, const std::function<void(size_t, Rank&)>& body, bool waiting) {
  const bool timed = group_.recordTimings() && !capturing();
  for (size_t local = 0; local < group_.numLocal(); local++) {
    Rank& rank = *group_.ranks[local];
    OnDevice on(rank.device);
    if (timed) {
      event_->phases.push_back({rank.rank, name, waiting, -1, Event(rank.device, true), Event(rank.device, true)});
      event_->phases.back().start.record(rank.comm);
    }
    body(local, rank);
    if (timed) event_->phases.back().end.record(rank.comm);
  }
}

void Operation::timed(const Rank& rank, cudaStream_t stream, const char* name, bool waiting, int32_t srcRank,
                      const std::function<void()>& body) {
  const bool timed = group_.recordTimings() && !capturing();
  if (timed) {
    event_->phases.push_back({rank.rank, name, waiting, srcRank, Event(rank.device, true), Event(rank.device, true)});
    event_->phases.back().start.record(stream);
  }
  body();
  if (timed) event_->phases.back().end.record(stream);
}

void Operation::barrier(const char* name) {
  const int index = numBarriers_++ % Rank::NUM_BARRIERS;
  group_.barrierNames.emplace_back(name);
  const auto& ranks = group_.ranks;
  if (ranks.size() == 1) {
    ranks[0]->arrived[index].record(ranks[0]->comm);
    return;
  }
  const bool timed = group_.recordTimings() && !capturing();
  const size_t firstPhase = event_->phases.size();
  for (const auto& rank : ranks) {
    if (!timed) break;
    event_->phases.push_back({rank->rank, name, true, -1, Event(rank->device, true), Event(rank->device, true)});
    event_->phases.back().start.record(rank->comm);
  }
  // The first rank's stream is the hub: it waits for all, then all wait for it. Events order the memory as well.
  Rank& hub = *ranks[0];
  for (const auto& rank : ranks) rank->arrived[index].record(rank->comm);
  for (const auto& rank : ranks) {
    if (rank.get() == &hub) continue;
    check(cudaStreamWaitEvent(hub.comm, rank->arrived[index].get(), 0), "cudaStreamWaitEvent", rank->rank);
  }
  hub.released[index].record(hub.comm);
  for (const auto& rank : ranks) {
    if (rank.get() == &hub) continue;
    check(cudaStreamWaitEvent(rank->comm, hub.released[index].get(), 0), "cudaStreamWaitEvent", rank->rank);
  }
  for (size_t i = 0; timed && i < ranks.size(); i++) event_->phases[firstPhase + i].end.record(ranks[i]->comm);
}

void Operation::wait() {
  std::vector<Event> marks;
  for (const auto& rank : group_.ranks) {
    marks.emplace_back(rank->device, false);
    marks.back().record(rank->comm);
  }
  const Deadline deadline = group_.deadline();
  for (size_t local = 0; local < marks.size(); local++) {
    if (group_.waitFor(marks[local].get(), deadline, group_.ranks[local]->rank)) continue;
    group_.usable = false;
    failMessage(FA2A_TIMEOUT,
                format("%s: expected the devices to be done within %lld ms, received no answer from rank %d; look for "
                       "the rank that stopped, or raise the deadline: %s",
                       group_.operation.c_str(), static_cast<long long>(deadline.milliseconds),
                       group_.ranks[local]->rank, group_.waitTable().c_str()),
                group_.ranks[local]->rank, false);
  }
}

std::shared_ptr<EventState> Operation::finish(const std::shared_ptr<HandleState>& handle) {
  event_->handle = handle;
  if (capturing()) return event_;
  for (const auto& rank : group_.ranks) {
    OnDevice on(rank->device);
    event_->done.emplace_back(rank->device, false);
    event_->done.back().record(rank->comm);
    if (options_.async_finish != 0) continue;
    check(cudaStreamWaitEvent(rank->compute, event_->done.back().get(), 0), "cudaStreamWaitEvent", rank->rank);
  }
  if (options_.async_finish == 0) waitEvent(*event_, group_.deadline());
  return event_;
}

void waitEvent(EventState& event, const Deadline& deadline) {
  for (size_t local = 0; !event.settled && local < event.done.size(); local++) {
    const int32_t rank = event.ranks[local]->rank;
    const auto group = event.group.lock();
    try {
      const cudaEvent_t done = event.done[local].get();
      if (group != nullptr ? group->waitFor(done, deadline, rank) : waitFor(done, deadline, rank)) continue;
    } catch (const Failure&) {
      if (group != nullptr) group->usable = false;
      throw;
    }
    if (group != nullptr) group->usable = false;
    failMessage(FA2A_TIMEOUT,
                format("%s: expected the devices to be done within %lld ms, received no answer from rank %d; look for "
                       "the rank that stopped, or raise the deadline: %s",
                       event.operation.c_str(), static_cast<long long>(deadline.milliseconds), rank,
                       group != nullptr ? group->waitTable().c_str() : ""),
                rank, false);
  }
  if (!event.done.empty()) event.settled = true;
  if (const auto handle = event.handle.lock()) checkReports(*handle);
}

void checkReports(HandleState& handle, const std::vector<Input>* topkIdx) {
  for (size_t local = 0; local < handle.ranks.size(); local++) {
    const RankHandleState& rank = handle.ranks[local];
    const kernels::Report* report = rank.pinned.report;
    if (report == nullptr || report->badSlot == 0) continue;
    const int32_t slot = kernels::LAST_SLOT - report->badSlot;
    std::string received = "another expert id";
    if (topkIdx != nullptr) {
      const Input& ids = (*topkIdx)[local];
      int64_t id = 0;
      const auto bytes = static_cast<size_t>(fa2a_dtype_bytes(ids.dtype));
      rank.rank->download(&id, static_cast<const char*>(ids.data) + static_cast<size_t>(slot) * bytes, bytes);
      received = std::to_string(ids.dtype == FA2A_I64 ? id : static_cast<int32_t>(id));
    }
    failBadSlot(handle.meta, rank.rank->rank, slot, received.c_str());
  }
}

void failBadSlot(const fa2a_handle_meta& meta, int32_t rank, int32_t slot, const char* received) {
  failArgument("topkIdx", format("-1..%d, each expert once per token", meta.num_experts - 1), received,
               "use -1 for a slot without a choice",
               {.rank = rank, .token = slot / meta.topk, .slot = slot % meta.topk});
}

const char* dtypeName(fa2a_dtype dtype) {
  switch (dtype) {
    case FA2A_BF16: return "bf16";
    case FA2A_FP16: return "fp16";
    case FA2A_FP32: return "fp32";
    case FA2A_FP8E4M3: return "fp8e4m3";
    case FA2A_U8: return "u8";
    case FA2A_BOOL: return "bool";
    case FA2A_I16: return "i16";
    case FA2A_I32: return "i32";
    case FA2A_I64: return "i64";
  }
  return "unknown dtype";
}

std::string shapeText(fa2a_dtype dtype, int64_t rows, int64_t columns) {
  return format("%s [%lld, %lld]", dtypeName(dtype), static_cast<long long>(rows), static_cast<long long>(columns));
}

std::vector<Input> describeInputs(const Group& group, const char* name, const fa2a_array* arrays,
                                  std::initializer_list<fa2a_dtype> dtypes) {
  std::vector<Input> inputs;
  if (arrays == nullptr) return inputs;
  for (size_t local = 0; local < group.numLocal(); local++) {
    const Rank& rank = *group.ranks[local];
    const fa2a_array& array = arrays[local];
    Input input;
    if (array.tensor != nullptr) {
      input.tensor = stateOf(array.tensor);
      if (input.tensor->rank.get() != &rank) {
        failArgument(name, "a tensor of this group on its rank's device",
                     format("one of rank %d%s", input.tensor->rank->rank,
                            input.tensor->rank->rank == rank.rank ? " of another group" : ""),
                     "create it for that rank of this group", {.rank = rank.rank});
      }
      input.data = input.tensor->memory.data();
      input.dtype = input.tensor->dtype;
      input.rows = input.tensor->rows;
      input.columns = input.tensor->columns;
    } else {
      input.host = array.host;
      input.dtype = array.dtype;
      input.rows = array.rows;
      input.columns = array.columns;
      if (array.host == nullptr && array.rows > 0) {
        failArgument(name, "a tensor or host memory", "neither", "pass one array per local rank", {.rank = rank.rank});
      }
    }
    std::string wanted;
    for (const fa2a_dtype dtype : dtypes) {
      if (!wanted.empty()) wanted.append(" or ");
      wanted.append(dtypeName(dtype));
    }
    const bool known = std::find(dtypes.begin(), dtypes.end(), input.dtype) != dtypes.end();
    const bool fits = input.rows >= 0 && input.rows <= INT32_MAX && input.columns >= 1 && input.columns <= INT32_MAX / 8;
    if (!known || !fits) {
      failArgument(name, wanted + " [rows, columns]", shapeText(input.dtype, input.rows, input.columns),
                   "convert or reshape it", {.rank = rank.rank});
    }
    // Expert ids may be i32 on one rank and i64 on another.
    const bool sameType = inputs.empty() || input.dtype == inputs[0].dtype || input.dtype >= FA2A_BOOL;
    if (!inputs.empty() && (input.columns != inputs[0].columns || !sameType)) {
      failArgument(name, shapeText(inputs[0].dtype, input.rows, inputs[0].columns),
                   shapeText(input.dtype, input.rows, input.columns), "pass the same dtype and width on every rank",
                   {.rank = rank.rank});
    }
    inputs.push_back(std::move(input));
  }
  return inputs;
}

void expectRows(const Group& group, const char* name, const std::vector<Input>& inputs, const std::vector<int64_t>& rows,
                int64_t columns) {
  for (size_t local = 0; local < inputs.size(); local++) {
    const Input& input = inputs[local];
    if (input.rows == rows[local] && (columns < 0 || input.columns == columns)) continue;
    failArgument(name, shapeText(input.dtype, rows[local], columns < 0 ? input.columns : columns),
                 shapeText(input.dtype, input.rows, input.columns),
                 "pass one row per token (dispatch) or per row of the handle (combine)",
                 {.rank = group.ranks[local]->rank});
  }
}

void bring(Operation& operation, std::vector<Input>& inputs) {
  for (size_t local = 0; local < inputs.size(); local++) {
    Input& input = inputs[local];
    if (input.tensor != nullptr) continue;
    if (operation.capturing()) {
      failArgument("inputs", "tensors on the device during a capture", "host memory", "upload them before");
    }
    Rank& rank = *operation.group().ranks[local];
    const auto bytes = static_cast<size_t>(input.rows * input.columns * fa2a_dtype_bytes(input.dtype));
    input.uploaded = rank.pool->take(bytes);
    input.data = input.uploaded.data();
    if (bytes > 0) rank.upload(input.uploaded.data(), input.host, bytes);
  }
}

std::shared_ptr<Tensor> makeTensor(const std::shared_ptr<Rank>& rank, fa2a_dtype dtype, int64_t rows, int64_t columns,
                                   bool ofComm) {
  auto tensor = std::make_shared<Tensor>();
  tensor->rank = rank;
  tensor->dtype = dtype;
  tensor->rows = rows;
  tensor->columns = columns;
  tensor->memory = rank->pool->take(tensor->bytes(), ofComm);
  return tensor;
}

}  // namespace fa2a
