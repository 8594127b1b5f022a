#pragma once

#include <string>

namespace emulated {
/** What the first failed kernel said; empty when none failed. */
std::string failureMessage();
}  // namespace emulated
