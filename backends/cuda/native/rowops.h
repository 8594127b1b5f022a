#pragma once

#include "group.h"

namespace fa2a {

using Tensors = std::vector<std::shared_ptr<Tensor>>;

Tensors castToFp8(Group& group, const fa2a_array* x, Tensors& scales);
Tensors castBack(Group& group, const fa2a_array* x, const fa2a_array* scales);
Tensors scaleRows(Group& group, const fa2a_array* x, const fa2a_array* factors);
void layout(Group& group, const fa2a_array* topkIdx, int32_t numExperts, const fa2a_layout_result& result);
Tensors fromMultihot(Group& group, const fa2a_array* maps, const fa2a_array* probs, int32_t topk, Tensors& weights);

}  // namespace fa2a
