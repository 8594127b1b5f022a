// The C interface with owners and with failures that stop the self-test.
#pragma once

#include <cstdio>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cases.h"

namespace selftest {

struct Mismatch : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/** Throws what the library said. */
void require(fa2a_code code, const fa2a_error& error, const char* what);

#define FA2A_CALL(function, ...)                                    \
  do {                                                              \
    fa2a_error callError = {};                                      \
    const fa2a_code callCode = function(__VA_ARGS__, &callError);   \
    ::selftest::require(callCode, callError, #function);            \
  } while (false)

template <class T, void (*FREE)(T*)>
struct Deleter {
  void operator()(T* pointer) const { FREE(pointer); }
};
using Tensor = std::unique_ptr<fa2a_tensor, Deleter<fa2a_tensor, fa2a_tensor_free>>;
using Handle = std::unique_ptr<fa2a_handle, Deleter<fa2a_handle, fa2a_handle_free>>;
using Event = std::unique_ptr<fa2a_event, Deleter<fa2a_event, fa2a_event_free>>;
using Graph = std::unique_ptr<fa2a_graph, Deleter<fa2a_graph, fa2a_graph_free>>;

class Group {
 public:
  explicit Group(const fa2a_group_options& options) { FA2A_CALL(fa2a_group_create, &options, &group_); }
  ~Group() { fa2a_group_close(group_, nullptr); }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
  fa2a_group* get() const { return group_; }

 private:
  fa2a_group* group_ = nullptr;
};

/** One tensor per rank. */
struct Plane {
  std::vector<Tensor> tensors;
  std::vector<fa2a_tensor*> raw() const;
  std::vector<fa2a_array> arrays() const;
  bool empty() const { return tensors.empty(); }
};
Plane adopt(const std::vector<fa2a_tensor*>& raw);
std::vector<uint8_t> readBytes(const fa2a_tensor* tensor);
Tensor upload(fa2a_group* group, int rank, fa2a_dtype dtype, int64_t rows, int64_t columns, const void* data);

struct Dispatched {
  Plane x, scales, ids, weights, probs;
  Handle handle;
  Event event;
  /** The same as the C struct, for `into`. */
  struct Raw {
    std::vector<fa2a_tensor*> x, scales, ids, weights, probs;
    fa2a_dispatch_result result;
  };
  std::unique_ptr<Raw> raw() const;
};

struct Combined {
  Plane x, weights, probs;
  Event event;
  struct Raw {
    std::vector<fa2a_tensor*> x, weights, probs;
    fa2a_combine_result result;
  };
  std::unique_ptr<Raw> raw() const;
};

/** Inputs of a case: on the host, or on the devices. */
struct Inputs {
  Plane x, scales, ids, weights;
  std::vector<fa2a_array> xArrays, scaleArrays, idArrays, weightArrays;
  std::vector<std::vector<int64_t>> wideIds;
};
Inputs makeInputs(fa2a_group* group, const reference::Case& test, bool onDevice, bool wide);

Dispatched dispatch(fa2a_group* group, const reference::Case& test, const Inputs& inputs, fa2a_handle* cached,
                    const fa2a_stream_options& stream, const Dispatched* into = nullptr);
Combined combine(fa2a_group* group, fa2a_handle* handle, const std::vector<fa2a_array>& x,
                 const std::vector<fa2a_array>& weights, const std::vector<fa2a_array>& probs,
                 const std::vector<std::vector<fa2a_array>>& bias, const fa2a_stream_options& stream,
                 const Combined* into = nullptr);

/** Throws Mismatch at the first differing element. */
void expectSame(const char* what, int rank, const std::vector<uint8_t>& wanted, const std::vector<uint8_t>& got,
                int64_t columns, int64_t elementBytes);
template <class T>
void expectWords(const char* what, int rank, const std::vector<T>& wanted, const std::vector<T>& got, int64_t columns) {
  const auto bytes = [](const std::vector<T>& words) {
    const auto* first = reinterpret_cast<const uint8_t*>(words.data());
    return std::vector<uint8_t>(first, first + words.size() * sizeof(T));
  };
  expectSame(what, rank, bytes(wanted), bytes(got), columns, sizeof(T));
}

void checkDispatched(const reference::Case& test, const reference::Layout& layout, const Dispatched& out, bool wide, bool newRouting);
/** A handle that holds `count` ranks from `first` on; 0 = all. */
void checkHandle(const reference::Case& test, const reference::Layout& layout, fa2a_handle* handle, int first = 0, int count = 0);

}  // namespace selftest
