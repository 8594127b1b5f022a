#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace selftest {

/** Times of every kernel beside a device-to-device copy of the same bytes; text on stdout. */
int bench(const std::map<std::string, int64_t>& options);

}  // namespace selftest
