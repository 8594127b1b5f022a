// Casts, row scaling, layout and multihot conversion: operations whose ranks do not talk to each other.
#include "rowops.h"

#include "../kernels/cast.cuh"
#include "../kernels/multihot.cuh"
#include "launch.h"
#include "layout.h"
#include "rows.h"

namespace fa2a {

namespace {

constexpr unsigned THREADS = 256;
constexpr fa2a_stream_options BLOCKING = {};

template <class F>
void withSumType(fa2a_dtype dtype, F f) {
  if (dtype == FA2A_BF16) {
    f.template operator()<kernels::Bf16>();
  } else if (dtype == FA2A_FP16) {
    f.template operator()<kernels::Fp16>();
  } else {
    f.template operator()<kernels::Fp32>();
  }
}

std::vector<int64_t> rowsOf(const std::vector<Input>& inputs) {
  std::vector<int64_t> rows;
  for (const Input& input : inputs) rows.push_back(input.rows);
  return rows;
}

int64_t scaleBlocks(int64_t hidden) { return (hidden + kernels::SCALE_BLOCK - 1) / kernels::SCALE_BLOCK; }

unsigned blocksFor(const Operation& operation, const Rank& rank, int64_t threads) {
  return operation.blocks(Work::Permute, rank, (threads + THREADS - 1) / THREADS);
}

}  // namespace

Tensors castToFp8(Group& group, const fa2a_array* arrays, Tensors& scales) {
  group.requireOpen();
  auto x = describeInputs(group, "x", arrays, {FA2A_BF16, FA2A_FP16, FA2A_FP32});
  Operation operation(group, "cast to fp8", BLOCKING);
  bring(operation, x);
  Tensors out;
  operation.phase("cast", [&](size_t local, Rank& rank) {
    const int64_t blocks = scaleBlocks(x[local].columns);
    out.push_back(makeTensor(group.ranks[local], FA2A_FP8E4M3, x[local].rows, x[local].columns, false));
    scales.push_back(makeTensor(group.ranks[local], FA2A_FP32, x[local].rows, blocks, false));
    if (x[local].rows == 0) return;
    const kernels::CastArgs args = {static_cast<int>(x[local].rows), static_cast<int>(x[local].columns), x[local].data,
                                    reinterpret_cast<uint8_t*>(out[local]->memory.data()),
                                    reinterpret_cast<float*>(scales[local]->memory.data())};
    withSumType(x[local].dtype, [&]<class D>() {
      launch("castToFp8", kernels::castToFp8<D>, blocksFor(operation, rank, x[local].rows * blocks * 32), THREADS, 0,
             rank.comm, args);
    });
  });
  operation.finish(nullptr);
  return out;
}

Tensors castBack(Group& group, const fa2a_array* arrays, const fa2a_array* scaleArrays) {
  group.requireOpen();
  auto x = describeInputs(group, "x", arrays, {FA2A_FP8E4M3, FA2A_U8});
  auto scales = describeInputs(group, "scales", scaleArrays, {FA2A_FP32});
  if (scales.empty()) failArgument("scales", "one array per local rank", "null", "pass the scales of the cast");
  expectRows(group, "scales", scales, rowsOf(x), scaleBlocks(x[0].columns));
  Operation operation(group, "cast back", BLOCKING);
  bring(operation, x);
  bring(operation, scales);
  Tensors out;
  operation.phase("cast", [&](size_t local, Rank& rank) {
    out.push_back(makeTensor(group.ranks[local], FA2A_BF16, x[local].rows, x[local].columns, false));
    const int64_t elements = x[local].rows * x[local].columns;
    if (elements == 0) return;
    const kernels::CastBackArgs args = {elements, static_cast<int>(x[local].columns),
                                        static_cast<const uint8_t*>(x[local].data),
                                        static_cast<const float*>(scales[local].data),
                                        reinterpret_cast<uint16_t*>(out[local]->memory.data())};
    launch("castBack", kernels::castBack, blocksFor(operation, rank, elements), THREADS, 0, rank.comm, args);
  });
  operation.finish(nullptr);
  return out;
}

Tensors scaleRows(Group& group, const fa2a_array* arrays, const fa2a_array* factorArrays) {
  group.requireOpen();
  auto x = describeInputs(group, "x", arrays, {FA2A_BF16, FA2A_FP16, FA2A_FP32});
  auto factors = describeInputs(group, "factors", factorArrays, {FA2A_FP32});
  if (factors.empty()) failArgument("factors", "one array per local rank", "null", "pass one factor per row");
  expectRows(group, "factors", factors, rowsOf(x), 1);
  Operation operation(group, "scale rows", BLOCKING);
  bring(operation, x);
  bring(operation, factors);
  Tensors out;
  operation.phase("scale", [&](size_t local, Rank& rank) {
    out.push_back(makeTensor(group.ranks[local], x[local].dtype, x[local].rows, x[local].columns, false));
    const int64_t elements = x[local].rows * x[local].columns;
    if (elements == 0) return;
    const kernels::ScaleArgs args = {elements, static_cast<int>(x[local].columns), x[local].data,
                                     static_cast<const float*>(factors[local].data), out[local]->memory.data()};
    withSumType(x[local].dtype, [&]<class D>() {
      launch("scaleRows", kernels::scaleRows<D>, blocksFor(operation, rank, elements), THREADS, 0, rank.comm, args);
    });
  });
  operation.finish(nullptr);
  return out;
}

void layout(Group& group, const fa2a_array* arrays, int32_t numExperts, const fa2a_layout_result& result) {
  group.requireOpen();
  auto topkIdx = describeInputs(group, "topkIdx", arrays, {FA2A_I32, FA2A_I64});
  if (topkIdx.empty()) failArgument("topkIdx", "one array per local rank", "null", "pass the routing");
  if (numExperts < 1 || numExperts % group.numRanks() != 0) {
    failArgument("numExperts", format("a multiple of numRanks %d", group.numRanks()), std::to_string(numExperts),
                 "use redundant or empty experts, or another number of ranks");
  }
  fa2a_handle_meta meta = {};
  meta.num_ranks = group.numRanks();
  meta.ranks_per_node = group.ranksPerNode();
  meta.num_experts = numExperts;
  meta.topk = static_cast<int32_t>(topkIdx[0].columns);
  meta.num_permuted_tokens = -1;
  const auto handle = makeHandle(group, meta, rowsOf(topkIdx));
  const ArenaLayout arena = arenaLayout(bufferShape(group, *handle, 0, false));
  group.reserve(static_cast<size_t>(arena.bytes.total));
  Operation operation(group, "layout", BLOCKING);
  bring(operation, topkIdx);
  const auto wantsMarks = [&](size_t local) {
    return result.is_token_in_rank != nullptr && result.is_token_in_rank[local] != nullptr;
  };
  std::vector<Memory> totals, marks;
  for (size_t local = 0; local < group.numLocal(); local++) {
    const kernels::Shape shape = handle->shape(local);
    const auto cells = static_cast<size_t>(shape.numTokens) * static_cast<size_t>(shape.numRanks);
    totals.push_back(group.ranks[local]->pool->take(static_cast<size_t>(kernels::numBuckets(shape)) * sizeof(int32_t)));
    marks.push_back(group.ranks[local]->pool->take(wantsMarks(local) ? cells : 0));
  }
  countTiles(operation, *handle, arena, topkIdx);
  scanTiles(operation, *handle, arena, totals);
  operation.phase("marks", [&](size_t local, Rank& rank) {
    const kernels::Shape shape = handle->shape(local);
    if (!wantsMarks(local) || shape.numTokens == 0) return;
    const kernels::InRankArgs args = {shape, handle->ranks[local].slotExpert, reinterpret_cast<uint8_t*>(marks[local].data())};
    launch("markRanks", kernels::markRanks, blocksFor(operation, rank, int64_t{shape.numTokens} * shape.numRanks),
           THREADS, 0, rank.comm, args);
  });
  fetchReports(operation, *handle);
  operation.finish(handle);
  for (size_t local = 0; local < group.numLocal(); local++) {
    Rank& rank = *group.ranks[local];
    const kernels::Shape shape = handle->shape(local);
    std::vector<int32_t> counts(static_cast<size_t>(kernels::numBuckets(shape)));
    rank.download(counts.data(), totals[local].data(), counts.size() * sizeof(int32_t));
    const auto wanted = [&](auto* const* list) { return list != nullptr && list[local] != nullptr; };
    const auto put = [&](int32_t* const* list, int first, int count) {
      if (wanted(list)) std::copy_n(counts.begin() + first, count, list[local]);
    };
    put(result.num_tokens_per_rank, 0, shape.numRanks);
    put(result.num_tokens_per_expert, shape.numRanks, shape.numExperts);
    if (kernels::numNodes(shape) > 1) {
      put(result.num_tokens_per_node, shape.numRanks + shape.numExperts, kernels::numNodes(shape));
    } else if (wanted(result.num_tokens_per_node)) {
      // One node: a token is on it when it is on any rank, which the buckets do not hold.
      failArgument("num_tokens_per_node", "several nodes", "one node", "pass null");
    }
    if (wanted(result.is_token_in_rank)) {
      rank.download(result.is_token_in_rank[local], marks[local].data(), marks[local].bytes());
    }
  }
}

Tensors fromMultihot(Group& group, const fa2a_array* maps, const fa2a_array* probArrays, int32_t topk, Tensors& weights) {
  group.requireOpen();
  auto map = describeInputs(group, "routingMap", maps, {FA2A_BOOL, FA2A_U8});
  auto probs = describeInputs(group, "probs", probArrays, {FA2A_FP32});
  if (map.empty()) failArgument("routingMap", "one array per local rank", "null", "pass the routing");
  expectRows(group, "probs", probs, rowsOf(map), map[0].columns);
  if (topk < 0 || topk > map[0].columns) {
    failArgument("topk", format("0..%lld", static_cast<long long>(map[0].columns)), std::to_string(topk), "correct it");
  }
  Operation operation(group, "from multihot", BLOCKING);
  bring(operation, map);
  bring(operation, probs);
  std::vector<Memory> most;
  for (const auto& rank : group.ranks) most.push_back(rank->pool->take(sizeof(int32_t)));
  const auto run = [&](const Tensors& ids) {
    operation.phase("index form", [&](size_t local, Rank& rank) {
      check(cudaMemsetAsync(most[local].data(), 0, sizeof(int32_t), rank.comm), "cudaMemset", rank.rank);
      if (map[local].rows == 0) return;
      kernels::MultihotArgs args = {};
      args.numTokens = static_cast<int>(map[local].rows);
      args.numExperts = static_cast<int>(map[local].columns);
      args.topk = topk;
      args.routingMap = static_cast<const uint8_t*>(map[local].data);
      args.most = reinterpret_cast<int32_t*>(most[local].data());
      if (!ids.empty()) args.topkIdx = reinterpret_cast<int32_t*>(ids[local]->memory.data());
      if (!ids.empty() && !probs.empty()) {
        args.probs = static_cast<const float*>(probs[local].data);
        args.topkWeights = reinterpret_cast<float*>(weights[local]->memory.data());
      }
      launch("indexForm", kernels::indexForm, blocksFor(operation, rank, map[local].rows), THREADS, 0, rank.comm, args);
    });
  };
  const auto largest = [&] {
    int32_t found = 1;
    for (size_t local = 0; local < group.numLocal(); local++) {
      int32_t own = 0;
      group.ranks[local]->download(&own, most[local].data(), sizeof own);
      found = std::max(found, own);
    }
    return found;
  };
  if (topk == 0) {
    run({});
    topk = largest();
  }
  Tensors ids;
  for (size_t local = 0; local < group.numLocal(); local++) {
    ids.push_back(makeTensor(group.ranks[local], FA2A_I32, map[local].rows, topk, false));
    if (!probs.empty()) weights.push_back(makeTensor(group.ranks[local], FA2A_FP32, map[local].rows, topk, false));
  }
  run(ids);
  operation.finish(nullptr);
  const int32_t found = largest();
  if (found > topk) {
    failArgument("topk", format("at least %d, the most experts of any token", found), std::to_string(topk), "raise it or pass 0");
  }
  return ids;
}

}  // namespace fa2a
