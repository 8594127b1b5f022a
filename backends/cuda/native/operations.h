// The two operations that communicate.
#pragma once

#include "group.h"

namespace fa2a {

/** Enqueues the push of `shape.numTokens` rows of `bytes` along the send lists. */
void launchPush(Operation& operation, Rank& rank, const kernels::Shape& shape, const kernels::Arenas& arenas,
                const kernels::SendLists& send, const void* rows, int plane, size_t bytes);
/** Throws unless the handle belongs to this group. */
void checkHandle(const Group& group, const HandleState& handle);
void dispatch(Group& group, const fa2a_dispatch_request& request, fa2a_dispatch_result& result);
void combine(Group& group, const fa2a_combine_request& request, fa2a_combine_result& result);

}  // namespace fa2a
