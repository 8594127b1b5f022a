#include "checks.h"

#include <algorithm>
#include <cstring>

namespace selftest {

namespace {

fa2a_array hostArray(fa2a_dtype dtype, int64_t rows, int64_t columns, const void* data) { return {nullptr, data, dtype, rows, columns}; }

}  // namespace

CombineInput drawCombine(const reference::Case& test, const reference::Layout& layout, Random& random, bool specials) {
  CombineInput input;
  input.dtype = random.pick({FA2A_BF16, FA2A_BF16, FA2A_FP16, FA2A_FP32});
  input.hidden = test.hidden;
  for (int rank = 0; rank < test.ranks; rank++) {
    const auto rows = static_cast<int64_t>(layout.at[static_cast<size_t>(rank)].rows.size());
    input.rows.push_back(randomRows(random, input.dtype, rows * input.hidden, specials));
    if (test.kind == FA2A_HYBRID_EP) {
      input.probs.push_back(randomFloats(random, rows, specials));
    } else {
      input.weights.push_back(randomRows(random, FA2A_FP32, rows * test.topk, specials));
    }
  }
  const int64_t numBias = test.kind == FA2A_FUSED ? random.below(3) : 0;
  for (int64_t i = 0; i < numBias; i++) {
    input.bias.emplace_back();
    for (const int tokens : test.tokens) input.bias.back().push_back(randomRows(random, input.dtype, tokens * input.hidden, specials));
  }
  return input;
}

CombineArrays arraysOf(const reference::Case& test, const CombineInput& input) {
  CombineArrays arrays;
  arrays.bias.resize(input.bias.size());
  for (size_t r = 0; r < input.rows.size(); r++) {
    const auto rows = static_cast<int64_t>(input.rows[r].size()) / reference::elementBytes(input.dtype) / input.hidden;
    arrays.x.push_back(hostArray(input.dtype, rows, input.hidden, input.rows[r].data()));
    if (!input.weights.empty()) arrays.weights.push_back(hostArray(FA2A_FP32, rows, test.topk, input.weights[r].data()));
    if (!input.probs.empty()) arrays.probs.push_back(hostArray(FA2A_FP32, rows, 1, input.probs[r].data()));
    for (size_t i = 0; i < input.bias.size(); i++) {
      arrays.bias[i].push_back(hostArray(input.dtype, test.tokens[r], input.hidden, input.bias[i][r].data()));
    }
  }
  return arrays;
}

void checkCombined(const reference::Case& test, const reference::Layout& layout, const CombineInput& input, const Combined& out) {
  FA2A_CALL(fa2a_event_wait, out.event.get());
  for (int src = 0; src < test.ranks; src++) {
    const auto s = static_cast<size_t>(src);
    Bytes bias;
    for (const Bytes& one : input.bias) bias.push_back(one[s]);
    expectSame("combined x", src, reference::combineRows(test, layout, input.rows, input.hidden, input.dtype, bias, src),
               readBytes(out.x.tensors[s].get()), input.hidden, reference::elementBytes(input.dtype));
    if (!input.weights.empty()) {
      expectSame("combined weights", src, reference::combineRows(test, layout, input.weights, test.topk, FA2A_FP32, {}, src),
                 readBytes(out.weights.tensors[s].get()), test.topk, 4);
    }
    if (!input.probs.empty()) {
      const std::vector<uint8_t> bytes = readBytes(out.probs.tensors[s].get());
      std::vector<uint32_t> got(bytes.size() / 4);
      if (!bytes.empty()) std::memcpy(got.data(), bytes.data(), bytes.size());
      expectWords("combined probs", src, reference::combineProbs(test, layout, input.probs, src), got, test.experts);
    }
  }
}

namespace {

/** The handle through the host and back. */
Handle reupload(fa2a_group* group, fa2a_handle* handle, int ranks) {
  fa2a_handle_meta meta;
  FA2A_CALL(fa2a_handle_meta_of, handle, &meta);
  std::vector<fa2a_handle_sizes> sizes(static_cast<size_t>(ranks));
  std::vector<fa2a_handle_arrays> arrays(sizes.size());
  std::vector<std::vector<int32_t>> memory;
  memory.reserve(sizes.size() * 9);
  for (size_t r = 0; r < sizes.size(); r++) {
    FA2A_CALL(fa2a_handle_sizes_of, handle, static_cast<int32_t>(r), &sizes[r]);
    const auto room = [&memory](int64_t count) {
      memory.emplace_back(static_cast<size_t>(count) + 1);
      return memory.back().data();
    };
    const int64_t entries = sizes[r].num_tokens * sizes[r].num_entries;
    const bool hybrid = meta.kind == FA2A_HYBRID_EP;
    int32_t* sendRank = room(entries);
    int32_t* sendRow = room(entries);
    arrays[r] = {sendRank, sendRow, hybrid ? room(entries) : nullptr, hybrid ? room(entries) : nullptr,
                 room(sizes[r].num_rows), room(sizes[r].num_rows), room(sizes[r].tokens_per_expert_length),
                 room(sizes[r].num_local_experts), room(4 * sizes[r].num_cut)};
    FA2A_CALL(fa2a_handle_download, handle, static_cast<int32_t>(r), &arrays[r]);
  }
  fa2a_handle* uploaded = nullptr;
  FA2A_CALL(fa2a_handle_upload, group, &meta, sizes.data(), arrays.data(), &uploaded);
  return Handle(uploaded);
}

}  // namespace

void checkLayout(fa2a_group* group, const reference::Case& test, bool wide) {
  const Inputs inputs = makeInputs(group, test, false, wide);
  const auto ranks = static_cast<size_t>(test.ranks);
  const size_t nodes = ranks / static_cast<size_t>(test.ranksPerNode);
  std::vector<std::vector<int32_t>> perRank(ranks), perNode(ranks), perExpert(ranks);
  std::vector<std::vector<uint8_t>> marks(ranks);
  std::vector<int32_t*> rankPointers, nodePointers, expertPointers;
  std::vector<uint8_t*> markPointers;
  for (size_t r = 0; r < ranks; r++) {
    perRank[r].assign(ranks, -1);
    perNode[r].assign(nodes, -1);
    perExpert[r].assign(static_cast<size_t>(test.experts), -1);
    marks[r].assign(static_cast<size_t>(test.tokens[r]) * ranks + 1, 9);
    rankPointers.push_back(perRank[r].data());
    nodePointers.push_back(perNode[r].data());
    expertPointers.push_back(perExpert[r].data());
    markPointers.push_back(marks[r].data());
  }
  const fa2a_layout_result result = {rankPointers.data(), nodes > 1 ? nodePointers.data() : nullptr, expertPointers.data(),
                                     markPointers.data()};
  FA2A_CALL(fa2a_layout, group, inputs.idArrays.data(), test.experts, &result);
  for (size_t r = 0; r < ranks; r++) {
    const int expertsPerRank = test.experts / test.ranks;
    std::vector<int32_t> wantRank(ranks, 0), wantNode(nodes, 0), wantExpert(static_cast<size_t>(test.experts), 0);
    std::vector<uint8_t> wantMarks(static_cast<size_t>(test.tokens[r]) * ranks, 0);
    for (int token = 0; token < test.tokens[r]; token++) {
      std::vector<bool> onNode(nodes, false);
      for (int slot = 0; slot < test.topk; slot++) {
        const int id = test.ids[r][static_cast<size_t>(token * test.topk + slot)];
        if (id < 0) continue;
        wantExpert[static_cast<size_t>(id)]++;
        const auto dst = static_cast<size_t>(id / expertsPerRank);
        wantMarks[static_cast<size_t>(token) * ranks + dst] = 1;
        onNode[dst / static_cast<size_t>(test.ranksPerNode)] = true;
      }
      for (size_t dst = 0; dst < ranks; dst++) wantRank[dst] += wantMarks[static_cast<size_t>(token) * ranks + dst];
      for (size_t node = 0; node < nodes; node++) wantNode[node] += onNode[node];
    }
    marks[r].pop_back();
    const int rank = static_cast<int>(r);
    expectWords("numTokensPerRank", rank, wantRank, perRank[r], 1);
    if (nodes > 1) expectWords("numTokensPerNode", rank, wantNode, perNode[r], 1);
    expectWords("numTokensPerExpert", rank, wantExpert, perExpert[r], 1);
    expectSame("isTokenInRank", rank, wantMarks, marks[r], test.ranks, 1);
  }
}

void checkCase(fa2a_group* group, const reference::Case& first, Random& random, const CheckOptions& options) {
  reference::Case test = first;
  const reference::Layout layout = reference::layout(test);
  const bool wide = random.once(2), onDevice = random.once(2);
  fa2a_group_options caps = {};
  caps.num_sms = 1 + static_cast<int32_t>(random.below(6));
  caps.num_blocks_permute = static_cast<int32_t>(random.below(4));
  caps.combine_path = options.pull ? FA2A_COMBINE_PULL : FA2A_COMBINE_PUSH;
  FA2A_CALL(fa2a_group_configure, group, &caps);
  fa2a_stream_options stream = {};
  stream.async_finish = random.once(2);
  stream.allocate_on_comm_stream = random.once(2);
  stream.num_sms = random.once(3) ? 1 + static_cast<int32_t>(random.below(3)) : 0;

  if (random.once(3)) checkLayout(group, test, wide);
  Inputs inputs = makeInputs(group, test, onDevice, wide);
  Dispatched out = dispatch(group, test, inputs, nullptr, stream);
  checkDispatched(test, layout, out, wide, true);
  checkHandle(test, layout, out.handle.get());

  const CombineInput back = drawCombine(test, layout, random, options.specials);
  const CombineArrays arrays = arraysOf(test, back);
  const Combined sum = combine(group, out.handle.get(), arrays.x, arrays.weights, arrays.probs, arrays.bias, stream);
  checkCombined(test, layout, back, sum);

  // The same movement for new rows, with the handle and with one that has been on the host.
  redrawRows(random, test, options.specials);
  inputs = makeInputs(group, test, onDevice, wide);
  const Dispatched cached = dispatch(group, test, inputs, out.handle.get(), stream);
  checkDispatched(test, layout, cached, wide, false);
  const Handle uploaded = reupload(group, out.handle.get(), test.ranks);
  checkHandle(test, layout, uploaded.get());
  const Dispatched again = dispatch(group, test, inputs, uploaded.get(), stream);
  checkDispatched(test, layout, again, wide, false);
  const CombineInput more = drawCombine(test, layout, random, options.specials);
  const CombineArrays moreArrays = arraysOf(test, more);
  const Combined other = combine(group, uploaded.get(), moreArrays.x, moreArrays.weights, moreArrays.probs, moreArrays.bias, stream);
  checkCombined(test, layout, more, other);
}

void checkCasts(fa2a_group* group, int ranks, Random& random) {
  const fa2a_dtype dtype = random.pick({FA2A_BF16, FA2A_FP16, FA2A_FP32});
  const int64_t hidden = 1 + random.below(300), bytes = reference::elementBytes(dtype), blocks = (hidden + 127) / 128;
  Bytes x, factors;
  std::vector<fa2a_array> xArrays, factorArrays;
  std::vector<int64_t> rows;
  for (int rank = 0; rank < ranks; rank++) {
    rows.push_back(random.below(6));
    x.push_back(randomRows(random, dtype, rows.back() * hidden, true));
    factors.push_back(randomRows(random, FA2A_FP32, rows.back(), true));
  }
  for (size_t r = 0; r < x.size(); r++) {
    xArrays.push_back(hostArray(dtype, rows[r], hidden, x[r].data()));
    factorArrays.push_back(hostArray(FA2A_FP32, rows[r], 1, factors[r].data()));
  }
  std::vector<fa2a_tensor*> fp8(x.size()), scales(x.size()), back(x.size()), scaled(x.size());
  FA2A_CALL(fa2a_cast_to_fp8, group, xArrays.data(), fp8.data(), scales.data());
  const Plane fp8Plane = adopt(fp8), scalePlane = adopt(scales);
  FA2A_CALL(fa2a_cast_back, group, fp8Plane.arrays().data(), scalePlane.arrays().data(), back.data());
  FA2A_CALL(fa2a_scale_rows, group, xArrays.data(), factorArrays.data(), scaled.data());
  const Plane backPlane = adopt(back), scaledPlane = adopt(scaled);
  for (size_t r = 0; r < x.size(); r++) {
    const auto count = static_cast<size_t>(rows[r]);
    std::vector<uint8_t> codes(count * static_cast<size_t>(hidden)), wantBack(codes.size() * 2), wantScaled(x[r].size());
    std::vector<float> wantScales(count * static_cast<size_t>(blocks));
    for (int64_t row = 0; row < rows[r]; row++) {
      uint8_t* rowCodes = codes.data() + row * hidden;
      float* rowScales = wantScales.data() + row * blocks;
      reference::castToFp8(dtype, x[r].data() + row * hidden * bytes, hidden, rowCodes, rowScales);
      reference::castBack(rowCodes, rowScales, hidden, wantBack.data() + 2 * row * hidden);
      const float factor = reference::decode(FA2A_FP32, factors[r].data() + 4 * row);
      for (int64_t i = row * hidden; i < (row + 1) * hidden; i++) {
        reference::encode(dtype, reference::product(reference::decode(dtype, x[r].data() + i * bytes), factor), wantScaled.data() + i * bytes);
      }
    }
    std::vector<uint8_t> scaleBytes(wantScales.size() * 4);
    if (!scaleBytes.empty()) std::memcpy(scaleBytes.data(), wantScales.data(), scaleBytes.size());
    const int rank = static_cast<int>(r);
    expectSame("cast to fp8", rank, codes, readBytes(fp8Plane.tensors[r].get()), hidden, 1);
    expectSame("scales of the cast", rank, scaleBytes, readBytes(scalePlane.tensors[r].get()), blocks, 4);
    expectSame("cast back", rank, wantBack, readBytes(backPlane.tensors[r].get()), hidden, 2);
    expectSame("scaled rows", rank, wantScaled, readBytes(scaledPlane.tensors[r].get()), hidden, bytes);
  }
}

void checkBackToBack(fa2a_group* group, int ranks, int ranksPerNode, int count, Random& random, const CheckOptions& options) {
  struct Pending {
    reference::Case test;
    reference::Layout layout;
    Inputs inputs;
    Dispatched out;
    CombineInput back;
    CombineArrays arrays;
    Combined sum;
    /** A second combine right behind the first: nothing but its own barrier keeps the two apart. */
    CombineInput secondBack;
    CombineArrays secondArrays;
    Combined second;
    bool fresh;
    bool kept;
  };
  fa2a_group_options caps = {};
  caps.combine_path = options.pull ? FA2A_COMBINE_PULL : FA2A_COMBINE_PUSH;
  FA2A_CALL(fa2a_group_configure, group, &caps);
  fa2a_stream_options stream = {};
  stream.async_finish = 1;
  stream.allocate_on_comm_stream = 1;
  std::vector<std::unique_ptr<Pending>> pending;
  for (int i = 0; i < count; i += 3) {
    auto one = std::make_unique<Pending>();
    const Pending* repeat = !pending.empty() && random.once(3) ? pending.back().get() : nullptr;
    one->fresh = repeat == nullptr;
    if (repeat == nullptr) {
      one->test = randomCase(random, ranks, ranksPerNode, options.maxTokens, options.specials);
      // Mostly operations that wait for nothing.
      if (one->test.kind == FA2A_FUSED && random.once(2)) one->test.worstTokens = ranks * options.maxTokens;
      if (one->test.kind == FA2A_HYBRID_EP && random.once(2)) one->test.permutedTokens = one->test.padMultiple * ranks * options.maxTokens;
      one->layout = reference::layout(one->test);
    } else {
      one->test = repeat->test;
      redrawRows(random, one->test, options.specials);
      one->layout = repeat->layout;
    }
    one->inputs = makeInputs(group, one->test, false, false);
    one->out = dispatch(group, one->test, one->inputs, repeat == nullptr ? nullptr : repeat->out.handle.get(), stream);
    one->back = drawCombine(one->test, one->layout, random, options.specials);
    one->arrays = arraysOf(one->test, one->back);
    one->sum = combine(group, one->out.handle.get(), one->arrays.x, one->arrays.weights, one->arrays.probs, one->arrays.bias, stream);
    one->secondBack = drawCombine(one->test, one->layout, random, options.specials);
    one->secondArrays = arraysOf(one->test, one->secondBack);
    one->second = combine(group, one->out.handle.get(), one->secondArrays.x, one->secondArrays.weights, one->secondArrays.probs,
                          one->secondArrays.bias, stream);
    // Some results are thrown away at once: their memory is reused while the devices may still be busy.
    one->kept = !random.once(4);
    if (!one->kept) {
      one->out.x = {};
      one->sum = {};
    }
    pending.push_back(std::move(one));
  }
  for (const auto& one : pending) {
    if (!one->kept) continue;
    checkDispatched(one->test, one->layout, one->out, false, one->fresh);
    checkCombined(one->test, one->layout, one->back, one->sum);
    checkCombined(one->test, one->layout, one->secondBack, one->second);
  }
}

void checkGraph(fa2a_group* group, int ranks, int ranksPerNode, Random& random) {
  for (const fa2a_kind kind : {FA2A_FUSED, FA2A_HYBRID_EP}) {
    reference::Case test = randomCase(random, ranks, ranksPerNode, 24, true);
    test.kind = kind;
    test.dtype = FA2A_BF16;
    test.scaleColumns = 0;
    test.alignment = 1;
    test.padMultiple = kind == FA2A_FUSED ? 1 : 4;
    test.worstTokens = kind == FA2A_FUSED ? 20 * ranks : 0;
    test.permutedTokens = kind == FA2A_FUSED ? -1 : 32 * ranks;
    redrawRows(random, test, true);
    fa2a_stream_options stream = {};
    stream.async_finish = 1;
    Inputs inputs = makeInputs(group, test, true, false);
    const Dispatched out = dispatch(group, test, inputs, nullptr, stream);
    const std::vector<fa2a_array> x = out.x.arrays(), weights = out.weights.arrays(), probs = out.probs.arrays();
    const Combined sum = combine(group, out.handle.get(), x, weights, probs, {}, stream);
    FA2A_CALL(fa2a_group_synchronize, group);
    FA2A_CALL(fa2a_graph_begin, group);
    dispatch(group, test, inputs, nullptr, stream, &out);
    combine(group, out.handle.get(), x, weights, probs, {}, stream, &sum);
    fa2a_graph* raw = nullptr;
    FA2A_CALL(fa2a_graph_end, group, &raw);
    const Graph graph(raw);
    for (int replay = 0; replay < 4; replay++) {
      // Other routing and rows in the same tensors; stale outputs must not show through.
      reference::Case next = randomCase(random, ranks, ranksPerNode, 24, true);
      for (size_t r = 0; r < test.ids.size(); r++) {
        for (size_t at = 0; at < test.ids[r].size(); at++) {
          test.ids[r][at] = -1;
          const auto first = test.ids[r].begin() + static_cast<int64_t>(at) / test.topk * test.topk;
          const auto id = static_cast<int32_t>(random.below(test.experts));
          if (!random.once(5) && std::find(first, first + test.topk, id) == first + test.topk) test.ids[r][at] = id;
        }
      }
      redrawRows(random, test, true);
      for (size_t r = 0; r < test.ids.size(); r++) {
        const auto write = [](const Tensor& tensor, const void* data, size_t bytes) {
          if (bytes > 0) FA2A_CALL(fa2a_tensor_write, tensor.get(), 0, static_cast<int64_t>(bytes), data);
        };
        write(inputs.ids.tensors[r], test.ids[r].data(), test.ids[r].size() * 4);
        write(inputs.weights.tensors[r], test.weights[r].data(), test.weights[r].size() * 4);
        write(inputs.x.tensors[r], test.x[r].data(), test.x[r].size());
        FA2A_CALL(fa2a_tensor_fill, out.x.tensors[r].get(), 0xA5);
        FA2A_CALL(fa2a_tensor_fill, sum.x.tensors[r].get(), 0xA5);
      }
      fa2a_event* event = nullptr;
      FA2A_CALL(fa2a_graph_launch, graph.get(), &event);
      const Event done(event);
      FA2A_CALL(fa2a_event_wait, event);
      const reference::Layout layout = reference::layout(test);
      for (int rank = 0; rank < ranks; rank++) {
        const auto r = static_cast<size_t>(rank);
        expectSame("replayed x", rank, reference::dispatchRows(layout, test.x, test.hidden * 2, rank), readBytes(out.x.tensors[r].get()), test.hidden, 2);
      }
      checkHandle(test, layout, out.handle.get());
      Bytes rows, weightRows;
      for (int rank = 0; rank < ranks; rank++) {
        rows.push_back(reference::dispatchRows(layout, test.x, test.hidden * 2, rank));
      }
      for (int rank = 0; rank < ranks; rank++) {
        expectSame("replayed sum", rank, reference::combineRows(test, layout, rows, test.hidden, FA2A_BF16, {}, rank),
                   readBytes(sum.x.tensors[static_cast<size_t>(rank)].get()), test.hidden, 2);
      }
    }
  }
}

namespace {

void expectCode(const char* what, fa2a_code wanted, fa2a_code got, const fa2a_error& error, const char* text) {
  if (wanted != got) throw Mismatch(std::string(what) + ": answered " + std::to_string(got) + ", expected " + std::to_string(wanted));
  if (std::strstr(error.message, text) == nullptr) throw Mismatch(std::string(what) + ": said '" + error.message + "', expected '" + text + "'");
}

}  // namespace

void checkDeadline(fa2a_group* group, int stalledRank) {
  Random random(11);
  reference::Case test = randomCase(random, 4, 4, 8, false);
  test.tokens.assign(4, 4);
  for (auto& ids : test.ids) {
    ids.clear();
    for (int token = 0; token < 4; token++) {
      for (int slot = 0; slot < test.topk; slot++) ids.push_back((token + slot) % test.experts);
    }
  }
  redrawRows(random, test, false);
  // Host inputs need no answer of the stopped device before the operation itself does.
  const Inputs inputs = makeInputs(group, test, false, false);
  std::vector<fa2a_tensor*> x(4);
  fa2a_dispatch_result result = {x.data(), nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
  fa2a_dispatch_request request = {};
  request.kind = test.kind;
  request.x = inputs.xArrays.data();
  request.topk_idx = inputs.idArrays.data();
  request.num_experts = test.experts;
  request.num_permuted_tokens = -1;
  fa2a_error error = {};
  const fa2a_code code = fa2a_dispatch(group, &request, &result, &error);
  char missing[64];
  std::snprintf(missing, sizeof missing, "expected 4 ranks, received 3 (missing %d)", stalledRank);
  expectCode("stopped device", FA2A_TIMEOUT, code, error, missing);
  if (error.group_usable != 0) throw Mismatch("stopped device: the group is said to be usable");
  expectCode("after a timeout", FA2A_BACKEND_FAILURE, fa2a_dispatch(group, &request, &result, &error), error, "close it");
}

void checkRefusals(fa2a_group* group, int ranks) {
  Random random(5);
  reference::Case test = randomCase(random, ranks, ranks, 8, false);
  test.kind = FA2A_FUSED;
  test.dtype = FA2A_BF16;
  test.hidden = 16;
  test.topk = 1;
  test.scaleColumns = 0;
  test.worstTokens = 0;
  test.tokens.assign(static_cast<size_t>(ranks), 3);
  test.ids.assign(static_cast<size_t>(ranks), {0, 0, -1});
  redrawRows(random, test, false);
  fa2a_error error = {};
  const fa2a_stream_options stream = {};
  const auto tryDispatch = [&](const reference::Case& bad) {
    const Inputs inputs = makeInputs(group, bad, false, false);
    std::vector<fa2a_tensor*> x(static_cast<size_t>(ranks));
    fa2a_dispatch_result result = {x.data(), nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
    fa2a_dispatch_request request = {};
    request.kind = bad.kind;
    request.x = inputs.xArrays.data();
    request.topk_idx = inputs.idArrays.data();
    request.num_experts = bad.experts;
    request.num_permuted_tokens = bad.permutedTokens;
    request.pad_multiple = bad.padMultiple;
    request.stream = stream;
    const fa2a_code code = fa2a_dispatch(group, &request, &result, &error);
    if (code == FA2A_OK) {
      fa2a_handle_free(result.handle);
      fa2a_event_free(result.event);
      for (fa2a_tensor* tensor : x) fa2a_tensor_free(tensor);
    }
    return code;
  };
  reference::Case bad = test;
  bad.ids.back()[1] = bad.experts;
  expectCode("id too large", FA2A_INVALID_ARGUMENT, tryDispatch(bad), error, "token 1, slot 0");
  bad = test;
  bad.experts = ranks * 2 + 1;
  if (ranks > 1) expectCode("experts", FA2A_INVALID_ARGUMENT, tryDispatch(bad), error, "a multiple of numRanks");
  bad = test;
  bad.kind = FA2A_HYBRID_EP;
  bad.padMultiple = 16;
  bad.permutedTokens = 24;
  expectCode("budget", FA2A_INVALID_ARGUMENT, tryDispatch(bad), error, "numPermutedTokens");
  // After all of them the group still works.
  const Inputs inputs = makeInputs(group, test, false, false);
  const Dispatched out = dispatch(group, test, inputs, nullptr, stream);
  checkDispatched(test, reference::layout(test), out, false, true);

  fa2a_handle_meta meta;
  expectCode("wrong type", FA2A_INVALID_ARGUMENT,
             fa2a_handle_meta_of(reinterpret_cast<const fa2a_handle*>(out.event.get()), &meta, &error), error, "something else");
  expectCode("null", FA2A_INVALID_ARGUMENT, fa2a_handle_meta_of(nullptr, &meta, &error), error, "null");
  std::vector<uint8_t> host(64);
  expectCode("range", FA2A_INVALID_ARGUMENT, fa2a_tensor_read(out.x.tensors[0].get(), 0, 1 << 20, host.data(), &error), error, "bytes 0..");
  FA2A_CALL(fa2a_graph_begin, group);
  expectCode("capture", FA2A_INVALID_ARGUMENT, tryDispatch(test), error, "into");
  checkDispatched(test, reference::layout(test), dispatch(group, test, inputs, nullptr, stream), false, true);
}

}  // namespace selftest
