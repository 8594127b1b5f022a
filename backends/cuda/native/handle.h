#pragma once

#include "group.h"

namespace fa2a {

/** Waits for the dispatch that made the handle. */
void waitReady(HandleState& handle);
fa2a_handle_sizes handleSizes(HandleState& handle, size_t local);
void downloadHandle(HandleState& handle, size_t local, const fa2a_handle_arrays& arrays);
std::shared_ptr<HandleState> uploadHandle(Group& group, const fa2a_handle_meta& meta, const fa2a_handle_sizes* sizes,
                                          const fa2a_handle_arrays* arrays);

}  // namespace fa2a
