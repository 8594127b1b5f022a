#include "harness.h"

#include <algorithm>
#include <cstring>

namespace selftest {

void require(fa2a_code code, const fa2a_error& error, const char* what) {
  if (code != FA2A_OK) throw std::runtime_error(std::string(what) + " answered " + std::to_string(code) + ": " + error.message);
}

std::vector<fa2a_tensor*> Plane::raw() const {
  std::vector<fa2a_tensor*> pointers;
  for (const Tensor& tensor : tensors) pointers.push_back(tensor.get());
  return pointers;
}

std::vector<fa2a_array> Plane::arrays() const {
  std::vector<fa2a_array> list;
  for (const Tensor& tensor : tensors) {
    fa2a_array array = {};
    array.tensor = tensor.get();
    list.push_back(array);
  }
  return list;
}

Plane adopt(const std::vector<fa2a_tensor*>& raw) {
  Plane plane;
  for (fa2a_tensor* tensor : raw) {
    if (tensor != nullptr) plane.tensors.emplace_back(tensor);
  }
  return plane;
}

std::vector<uint8_t> readBytes(const fa2a_tensor* tensor) {
  fa2a_tensor_info info;
  FA2A_CALL(fa2a_tensor_info_of, tensor, &info);
  std::vector<uint8_t> bytes(static_cast<size_t>(info.bytes));
  FA2A_CALL(fa2a_tensor_read, tensor, 0, info.bytes, bytes.data());
  return bytes;
}

Tensor upload(fa2a_group* group, int rank, fa2a_dtype dtype, int64_t rows, int64_t columns, const void* data) {
  fa2a_tensor* tensor = nullptr;
  FA2A_CALL(fa2a_tensor_create, group, rank, dtype, rows, columns, &tensor);
  Tensor owner(tensor);
  const int64_t bytes = rows * columns * fa2a_dtype_bytes(dtype);
  if (bytes > 0) FA2A_CALL(fa2a_tensor_write, tensor, 0, bytes, data);
  return owner;
}

Inputs makeInputs(fa2a_group* group, const reference::Case& test, bool onDevice, bool wide) {
  Inputs inputs;
  for (int rank = 0; rank < test.ranks; rank++) {
    const auto r = static_cast<size_t>(rank);
    inputs.wideIds.emplace_back(test.ids[r].begin(), test.ids[r].end());
    const void* ids = wide ? static_cast<const void*>(inputs.wideIds[r].data()) : test.ids[r].data();
    const int64_t tokens = test.tokens[r];
    const auto add = [&](Plane& plane, std::vector<fa2a_array>& arrays, fa2a_dtype dtype, int64_t columns, const void* data) {
      fa2a_array array = {nullptr, data, dtype, tokens, columns};
      if (onDevice) {
        plane.tensors.push_back(upload(group, rank, dtype, tokens, columns, data));
        array = {plane.tensors.back().get(), nullptr, dtype, 0, 0};
      }
      arrays.push_back(array);
    };
    add(inputs.x, inputs.xArrays, test.dtype, test.hidden, test.x[r].data());
    add(inputs.ids, inputs.idArrays, wide ? FA2A_I64 : FA2A_I32, test.topk, ids);
    add(inputs.weights, inputs.weightArrays, FA2A_FP32, test.topk, test.weights[r].data());
    if (test.scaleColumns > 0) add(inputs.scales, inputs.scaleArrays, FA2A_FP32, test.scaleColumns, test.scales[r].data());
  }
  return inputs;
}

std::unique_ptr<Dispatched::Raw> Dispatched::raw() const {
  auto raw = std::make_unique<Raw>();
  raw->x = x.raw();
  raw->scales = scales.raw();
  raw->ids = ids.raw();
  raw->weights = weights.raw();
  raw->probs = probs.raw();
  const auto pointer = [](std::vector<fa2a_tensor*>& list) { return list.empty() ? nullptr : list.data(); };
  raw->result = {pointer(raw->x), pointer(raw->scales), pointer(raw->ids), pointer(raw->weights), pointer(raw->probs),
                 handle.get(), nullptr};
  return raw;
}

std::unique_ptr<Combined::Raw> Combined::raw() const {
  auto raw = std::make_unique<Raw>();
  raw->x = x.raw();
  raw->weights = weights.raw();
  raw->probs = probs.raw();
  const auto pointer = [](std::vector<fa2a_tensor*>& list) { return list.empty() ? nullptr : list.data(); };
  raw->result = {pointer(raw->x), pointer(raw->weights), pointer(raw->probs), nullptr};
  return raw;
}

Dispatched dispatch(fa2a_group* group, const reference::Case& test, const Inputs& inputs, fa2a_handle* cached,
                    const fa2a_stream_options& stream, const Dispatched* into) {
  const auto ranks = static_cast<size_t>(test.ranks);
  std::vector<fa2a_tensor*> x(ranks), scales(ranks), ids(ranks), weights(ranks), probs(ranks);
  fa2a_dispatch_result result = {x.data(), scales.data(), ids.data(), weights.data(), probs.data(), nullptr, nullptr};
  fa2a_dispatch_request request = {};
  request.kind = test.kind;
  request.x = inputs.xArrays.data();
  request.scales = inputs.scaleArrays.empty() ? nullptr : inputs.scaleArrays.data();
  request.num_permuted_tokens = -1;
  if (cached == nullptr) {
    request.topk_idx = inputs.idArrays.data();
    request.topk_weights = inputs.weightArrays.data();
    request.num_experts = test.experts;
    request.expert_alignment = test.alignment;
    request.num_worst_tokens = test.worstTokens;
    request.pad_multiple = test.padMultiple;
    request.num_permuted_tokens = test.permutedTokens;
  } else {
    request.handle = cached;
  }
  request.stream = stream;
  const auto old = into == nullptr ? nullptr : into->raw();
  if (old != nullptr) request.into = &old->result;
  FA2A_CALL(fa2a_dispatch, group, &request, &result);
  return {adopt(x), adopt(scales), adopt(ids), adopt(weights), adopt(probs), Handle(result.handle), Event(result.event)};
}

Combined combine(fa2a_group* group, fa2a_handle* handle, const std::vector<fa2a_array>& x,
                 const std::vector<fa2a_array>& weights, const std::vector<fa2a_array>& probs,
                 const std::vector<std::vector<fa2a_array>>& bias, const fa2a_stream_options& stream, const Combined* into) {
  std::vector<fa2a_tensor*> outX(x.size()), outWeights(x.size()), outProbs(x.size());
  fa2a_combine_result result = {outX.data(), outWeights.data(), outProbs.data(), nullptr};
  fa2a_combine_request request = {};
  request.handle = handle;
  request.x = x.data();
  request.topk_weights = weights.empty() ? nullptr : weights.data();
  request.probs = probs.empty() ? nullptr : probs.data();
  request.bias0 = bias.empty() ? nullptr : bias[0].data();
  request.bias1 = bias.size() < 2 ? nullptr : bias[1].data();
  request.stream = stream;
  const auto old = into == nullptr ? nullptr : into->raw();
  if (old != nullptr) request.into = &old->result;
  FA2A_CALL(fa2a_combine, group, &request, &result);
  return {adopt(outX), adopt(outWeights), adopt(outProbs), Event(result.event)};
}

void expectSame(const char* what, int rank, const std::vector<uint8_t>& wanted, const std::vector<uint8_t>& got,
                int64_t columns, int64_t elementBytes) {
  if (wanted == got) return;
  char text[256];
  if (wanted.size() != got.size()) {
    std::snprintf(text, sizeof text, "%s: rank %d has %zu bytes, expected %zu", what, rank, got.size(), wanted.size());
    throw Mismatch(text);
  }
  const auto at = std::mismatch(wanted.begin(), wanted.end(), got.begin()).first - wanted.begin();
  const int64_t element = at / elementBytes;
  uint64_t want = 0, have = 0;
  std::memcpy(&want, wanted.data() + element * elementBytes, static_cast<size_t>(elementBytes));
  std::memcpy(&have, got.data() + element * elementBytes, static_cast<size_t>(elementBytes));
  std::snprintf(text, sizeof text, "%s: rank %d row %lld column %lld is 0x%llx, expected 0x%llx", what, rank,
                static_cast<long long>(element / columns), static_cast<long long>(element % columns),
                static_cast<unsigned long long>(have), static_cast<unsigned long long>(want));
  throw Mismatch(text);
}

namespace {

template <class T>
std::vector<T> readWords(const fa2a_tensor* tensor) {
  const std::vector<uint8_t> bytes = readBytes(tensor);
  std::vector<T> words(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(words.data(), bytes.data(), bytes.size());
  return words;
}

}  // namespace

void checkDispatched(const reference::Case& test, const reference::Layout& layout, const Dispatched& out, bool wide, bool newRouting) {
  FA2A_CALL(fa2a_event_wait, out.event.get());
  for (int dst = 0; dst < test.ranks; dst++) {
    const auto d = static_cast<size_t>(dst);
    const int64_t bytes = test.hidden * reference::elementBytes(test.dtype);
    expectSame("x", dst, reference::dispatchRows(layout, test.x, bytes, dst), readBytes(out.x.tensors[d].get()), test.hidden,
               reference::elementBytes(test.dtype));
    if (test.scaleColumns > 0) {
      expectSame("scales", dst, reference::dispatchRows(layout, test.scales, test.scaleColumns * 4, dst),
                 readBytes(out.scales.tensors[d].get()), test.scaleColumns, 4);
    }
    if (!newRouting) continue;
    if (test.kind == FA2A_HYBRID_EP) {
      expectWords("probs", dst, reference::recvProbs(test, layout, dst), readWords<uint32_t>(out.probs.tensors[d].get()), 1);
      continue;
    }
    expectWords("topkWeights", dst, reference::recvWeights(test, layout, dst),
                readWords<uint32_t>(out.weights.tensors[d].get()), test.topk);
    const std::vector<int32_t> ids = reference::recvIds(test, layout, dst);
    if (wide) {
      expectWords("topkIdx", dst, std::vector<int64_t>(ids.begin(), ids.end()),
                  readWords<int64_t>(out.ids.tensors[d].get()), test.topk);
    } else {
      expectWords("topkIdx", dst, ids, readWords<int32_t>(out.ids.tensors[d].get()), test.topk);
    }
  }
}

void checkHandle(const reference::Case& test, const reference::Layout& layout, fa2a_handle* handle, int first,
                 int count) {
  const bool hybrid = test.kind == FA2A_HYBRID_EP;
  const int width = hybrid ? test.topk : std::min(test.topk, test.ranks);
  for (int rank = first; rank < first + (count == 0 ? test.ranks : count); rank++) {
    const auto r = static_cast<size_t>(rank);
    const reference::Destination& own = layout.at[r];
    fa2a_handle_sizes sizes;
    FA2A_CALL(fa2a_handle_sizes_of, handle, rank - first, &sizes);
    const auto entries = static_cast<size_t>(sizes.num_tokens * sizes.num_entries);
    std::vector<int32_t> sendRank(entries), sendRow(entries), sendExpert(entries), sendSlot(entries);
    std::vector<int32_t> srcRank(static_cast<size_t>(sizes.num_rows)), srcToken(srcRank.size());
    std::vector<int32_t> padded(static_cast<size_t>(sizes.tokens_per_expert_length));
    std::vector<int32_t> counts(static_cast<size_t>(sizes.num_local_experts)), cut(static_cast<size_t>(4 * sizes.num_cut));
    const fa2a_handle_arrays arrays = {sendRank.data(), sendRow.data(), hybrid ? sendExpert.data() : nullptr,
                                       hybrid ? sendSlot.data() : nullptr, srcRank.data(), srcToken.data(),
                                       padded.data(), counts.data(), cut.data()};
    FA2A_CALL(fa2a_handle_download, handle, rank - first, &arrays);
    // The source's lists, from the destinations' rows.
    std::vector<int32_t> wantRank(static_cast<size_t>(test.tokens[r] * width), -1), wantRow = wantRank, wantExpert = wantRank,
                                                                                    wantSlot = wantRank;
    std::vector<int> used(static_cast<size_t>(test.tokens[r]), 0);
    for (int dst = 0; dst < test.ranks; dst++) {
      const auto& rows = layout.at[static_cast<size_t>(dst)].rows;
      for (size_t row = 0; row < rows.size(); row++) {
        if (rows[row].src != rank) continue;
        const auto at = static_cast<size_t>(rows[row].token * width + used[static_cast<size_t>(rows[row].token)]++);
        wantRank[at] = dst;
        wantRow[at] = static_cast<int32_t>(row);
        wantExpert[at] = rows[row].expert;
        wantSlot[at] = rows[row].slot;
      }
    }
    std::vector<int32_t> wantSrc, wantToken;
    for (const reference::Row& row : own.rows) {
      wantSrc.push_back(row.src);
      wantToken.push_back(row.token);
    }
    expectWords("sendRank", rank, wantRank, sendRank, width);
    expectWords("sendRow", rank, wantRow, sendRow, width);
    if (hybrid) expectWords("sendExpert", rank, wantExpert, sendExpert, width);
    if (hybrid) expectWords("sendSlot", rank, wantSlot, sendSlot, width);
    expectWords("rowSrcRank", rank, wantSrc, srcRank, 1);
    expectWords("rowSrcToken", rank, wantToken, srcToken, 1);
    expectWords("tokensPerExpert", rank, own.tokensPerExpert, padded, 1);
    expectWords("numTokensPerExpert", rank, own.numTokensPerExpert, counts, 1);
    expectWords("cut", rank, own.cut, cut, 4);
  }
}

}  // namespace selftest
