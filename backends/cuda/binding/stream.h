// What dispatch and combine share.
#pragma once

#include "values.h"

namespace binding {

/** Stream arguments and the event they hold. */
struct Stream {
  fa2a_stream_options options = {};
  std::shared_ptr<fa2a_event> previous;
};

/** Reads `previousEvent`, `asyncFinish`, `allocateOnCommStream` and `numSms` of a request. */
Stream streamOf(Napi::Object request);

/** Tensors of an earlier result, to be written again. */
class Into {
 public:
  /** Those of `name`, one per local rank; null when the result has none. They live as long as this. */
  fa2a_tensor** list(Napi::Object result, const char* name, size_t numLocal);

 private:
  std::vector<std::shared_ptr<fa2a_tensor>> owners_;
  std::vector<std::vector<fa2a_tensor*>> lists_;
};

}  // namespace binding
