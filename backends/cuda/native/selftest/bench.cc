#include "bench.h"
namespace selftest { int bench(const std::map<std::string, int64_t>&) { return 0; } }
