#include "calls.h"
#include "methods.h"

namespace binding {

namespace {

Napi::Value sizesValue(Napi::Env env, const fa2a_handle_sizes& sizes) {
  auto result = Napi::Object::New(env);
  result["rank"] = static_cast<double>(sizes.rank);
  result["numTokens"] = static_cast<double>(sizes.num_tokens);
  result["numEntries"] = static_cast<double>(sizes.num_entries);
  result["numRows"] = static_cast<double>(sizes.num_rows);
  result["tokensPerExpertLength"] = static_cast<double>(sizes.tokens_per_expert_length);
  result["numLocalExperts"] = static_cast<double>(sizes.num_local_experts);
  result["numCut"] = static_cast<double>(sizes.num_cut);
  result["overflow"] = sizes.overflow != 0;
  return result;
}

fa2a_handle_sizes sizesOf(Napi::Object given) {
  fa2a_handle_sizes sizes = {};
  sizes.rank = property32(given, "rank");
  sizes.num_tokens = property64(given, "numTokens");
  sizes.num_entries = property64(given, "numEntries");
  sizes.num_rows = property64(given, "numRows");
  sizes.tokens_per_expert_length = property64(given, "tokensPerExpertLength");
  sizes.num_local_experts = property64(given, "numLocalExperts");
  sizes.num_cut = property64(given, "numCut");
  const Napi::Value overflow = given.Get("overflow");
  sizes.overflow = overflow.IsBoolean() && overflow.As<Napi::Boolean>().Value() ? 1 : 0;
  return sizes;
}

/** The arrays of one rank; each must be as long as `sizes` says. */
fa2a_handle_arrays arraysOfHandle(Napi::Object given, const fa2a_handle_sizes& sizes, Keep& keep) {
  const auto env = given.Env();
  const auto memory = [&](const char* name, int64_t length) {
    return int32Memory(env, given.Get(name), length, std::string("handle.") + name, keep);
  };
  const int64_t entries = sizes.num_tokens * sizes.num_entries;
  fa2a_handle_arrays arrays = {};
  arrays.send_rank = memory("sendRank", entries);
  arrays.send_row = memory("sendRow", entries);
  arrays.send_expert = memory("sendExpert", entries);
  arrays.send_slot = memory("sendSlot", entries);
  arrays.row_src_rank = memory("rowSrcRank", sizes.num_rows);
  arrays.row_src_token = memory("rowSrcToken", sizes.num_rows);
  arrays.tokens_per_expert = memory("tokensPerExpert", sizes.tokens_per_expert_length);
  arrays.num_tokens_per_expert = memory("numTokensPerExpert", sizes.num_local_experts);
  arrays.cut = memory("cut", sizes.num_cut * 4);
  return arrays;
}

}  // namespace

// fa2a_code fa2a_handle_meta_of(const fa2a_handle* handle, fa2a_handle_meta* meta, fa2a_error* error)
// handleMeta(handle: NativeHandle): NativeHandleMeta
Napi::Value handleMeta(const Napi::CallbackInfo& info) {
  const auto handle = unwrap<fa2a_handle>(info.Env(), info[0], "handle");
  fa2a_handle_meta meta = {};
  fa2a_error error = {};
  check(info.Env(), fa2a_handle_meta_of(handle.get(), &meta, &error), error);
  auto result = Napi::Object::New(info.Env());
  result["kind"] = static_cast<double>(meta.kind);
  result["numRanks"] = static_cast<double>(meta.num_ranks);
  result["ranksPerNode"] = static_cast<double>(meta.ranks_per_node);
  result["numExperts"] = static_cast<double>(meta.num_experts);
  result["topk"] = static_cast<double>(meta.topk);
  result["expertAlignment"] = static_cast<double>(meta.expert_alignment);
  result["numWorstTokens"] = static_cast<double>(meta.num_worst_tokens);
  result["padMultiple"] = static_cast<double>(meta.pad_multiple);
  result["numPermutedTokens"] = static_cast<double>(meta.num_permuted_tokens);
  return result;
}

// fa2a_code fa2a_handle_sizes_of(fa2a_handle* handle, int32_t local, fa2a_handle_sizes* sizes, fa2a_error* error)
// handleSizes(handle: NativeHandle, numLocal: number): Promise<NativeHandleSizes[]>
Napi::Value handleSizes(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_handle> handle;
    std::vector<fa2a_handle_sizes> sizes;
  };
  auto call = std::make_unique<Call>();
  call->handle = unwrap<fa2a_handle>(info.Env(), info[0], "handle");
  const int64_t numLocal = wholeNumber(info.Env(), info[1], "numLocal");
  if (numLocal < 1 || numLocal > 1 << 20) {
    throwArgument(info.Env(), "numLocal", "the number of local ranks", std::to_string(numLocal), "pass that number");
  }
  call->sizes.resize(static_cast<size_t>(numLocal));
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) {
        for (size_t i = 0; i < call.sizes.size(); i++) {
          const auto local = static_cast<int32_t>(i);
          const auto code = fa2a_handle_sizes_of(call.handle.get(), local, &call.sizes[i], error);
          if (code != FA2A_OK) return code;
        }
        return FA2A_OK;
      },
      [](Napi::Env env, Call& call) { return listValue(env, call.sizes, sizesValue); });
}

// fa2a_code fa2a_handle_download(fa2a_handle* handle, int32_t local, const fa2a_handle_arrays* arrays,
//                                fa2a_error* error)
// handleDownload(handle: NativeHandle, ranks: readonly NativeHandleRank[]): Promise<void>
Napi::Value handleDownload(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_handle> handle;
    std::vector<fa2a_handle_sizes> sizes;
    std::vector<fa2a_handle_arrays> arrays;
    Keep keep;
  };
  auto call = std::make_unique<Call>();
  call->handle = unwrap<fa2a_handle>(info.Env(), info[0], "handle");
  if (!info[1].IsArray()) throwArgument(info.Env(), "ranks", "an array", "something else", "pass one per local rank");
  const auto list = info[1].As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) {
    const auto rank = static_cast<Napi::Value>(list.Get(i)).As<Napi::Object>();
    call->sizes.push_back(sizesOf(rank));
    call->arrays.push_back(arraysOfHandle(rank, call->sizes.back(), call->keep));
  }
  return Worker<Call>::start(
      info.Env(), std::move(call),
      [](Call& call, fa2a_error* error) {
        for (size_t i = 0; i < call.arrays.size(); i++) {
          // The library writes as much as the handle holds: the caller's sizes must be the handle's own.
          fa2a_handle_sizes own = {};
          const auto local = static_cast<int32_t>(i);
          auto code = fa2a_handle_sizes_of(call.handle.get(), local, &own, error);
          if (code != FA2A_OK) return code;
          const auto& given = call.sizes[i];
          if (own.num_tokens != given.num_tokens || own.num_entries != given.num_entries ||
              own.num_rows != given.num_rows || own.num_cut != given.num_cut ||
              own.num_local_experts != given.num_local_experts ||
              own.tokens_per_expert_length != given.tokens_per_expert_length) {
            std::snprintf(error->message, sizeof error->message, "handle: expected the sizes that handleSizes told");
            error->rank = own.rank;
            error->token = error->slot = error->row = -1;
            error->group_usable = 1;
            return error->code = FA2A_INVALID_ARGUMENT;
          }
          code = fa2a_handle_download(call.handle.get(), local, &call.arrays[i], error);
          if (code != FA2A_OK) return code;
        }
        return FA2A_OK;
      },
      undefinedResult<Call>);
}

// fa2a_code fa2a_handle_upload(fa2a_group* group, const fa2a_handle_meta* meta, const fa2a_handle_sizes* sizes,
//                              const fa2a_handle_arrays* arrays, fa2a_handle** handle, fa2a_error* error)
// handleUpload(group: NativeGroup, meta: NativeHandleMeta, ranks: readonly NativeHandleRank[]): Promise<NativeHandle>
Napi::Value handleUpload(const Napi::CallbackInfo& info) {
  struct Call {
    std::shared_ptr<fa2a_group> group;
    fa2a_handle_meta meta;
    std::vector<fa2a_handle_sizes> sizes;
    std::vector<fa2a_handle_arrays> arrays;
    Keep keep;
    int64_t bytes = 0;
    fa2a_handle* handle = nullptr;
  };
  const auto env = info.Env();
  auto call = onGroup<Call>(info);
  const auto meta = objectArgument(info, 1, "meta");
  call->meta.kind = static_cast<fa2a_kind>(property32(meta, "kind"));
  call->meta.num_ranks = property32(meta, "numRanks");
  call->meta.ranks_per_node = property32(meta, "ranksPerNode");
  call->meta.num_experts = property32(meta, "numExperts");
  call->meta.topk = property32(meta, "topk");
  call->meta.expert_alignment = property32(meta, "expertAlignment");
  call->meta.num_worst_tokens = property64(meta, "numWorstTokens");
  call->meta.pad_multiple = property64(meta, "padMultiple");
  call->meta.num_permuted_tokens = property64(meta, "numPermutedTokens");
  const size_t numLocal = objectOf<fa2a_group>(env, info[0], "group").numLocal;
  const auto list = info[2].IsArray() ? info[2].As<Napi::Array>() : Napi::Array::New(env);
  if (list.Length() != numLocal) {
    throwArgument(env, "handle", "arrays of " + std::to_string(numLocal) + " local ranks",
                  std::to_string(list.Length()), "use the handle with a group of its size");
  }
  for (uint32_t i = 0; i < numLocal; i++) {
    const auto rank = static_cast<Napi::Value>(list.Get(i)).As<Napi::Object>();
    call->sizes.push_back(sizesOf(rank));
    const auto& sizes = call->sizes.back();
    call->arrays.push_back(arraysOfHandle(rank, sizes, call->keep));
    call->bytes += 8 * (sizes.num_tokens * sizes.num_entries + sizes.num_rows);
  }
  return Worker<Call>::start(
      env, std::move(call),
      [](Call& call, fa2a_error* error) {
        return fa2a_handle_upload(call.group.get(), &call.meta, call.sizes.data(), call.arrays.data(), &call.handle,
                                  error);
      },
      [](Napi::Env env, Call& call) -> Napi::Value { return wrap(env, own(call.handle), call.bytes); });
}

// void fa2a_handle_free(fa2a_handle* handle)
// handleFree(handle: NativeHandle): void
Napi::Value handleFree(const Napi::CallbackInfo& info) { return freeObject<fa2a_handle>(info); }

}  // namespace binding
