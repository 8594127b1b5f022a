// Compares ncclAbi.h with a real nccl.h where one is installed: compiled by scripts/build-native.mjs --selftest.
#include "../ncclAbi.h"

#if __has_include(<nccl.h>)
#include <nccl.h>

#include <cstdio>
#include <type_traits>

#define SAME(mine, its) static_assert(static_cast<long long>(mine) == static_cast<long long>(its), #mine)
SAME(nccl::Result::Success, ncclSuccess);
SAME(nccl::Result::UnhandledCudaError, ncclUnhandledCudaError);
SAME(nccl::Result::SystemError, ncclSystemError);
SAME(nccl::Result::InternalError, ncclInternalError);
SAME(nccl::Result::InvalidArgument, ncclInvalidArgument);
SAME(nccl::Result::InvalidUsage, ncclInvalidUsage);
SAME(nccl::Result::RemoteError, ncclRemoteError);
SAME(nccl::Result::InProgress, ncclInProgress);
SAME(nccl::DataType::Uint8, ncclUint8);
SAME(nccl::DataType::Int32, ncclInt32);
SAME(nccl::UNDEFINED, NCCL_CONFIG_UNDEF_INT);
SAME(sizeof(nccl::UniqueId), sizeof(ncclUniqueId));
SAME(sizeof(nccl::UniqueId), NCCL_UNIQUE_ID_BYTES);
SAME(offsetof(nccl::Config, size), offsetof(ncclConfig_t, size));
SAME(offsetof(nccl::Config, magic), offsetof(ncclConfig_t, magic));
SAME(offsetof(nccl::Config, version), offsetof(ncclConfig_t, version));
SAME(offsetof(nccl::Config, blocking), offsetof(ncclConfig_t, blocking));
SAME(offsetof(nccl::Config, cgaClusterSize), offsetof(ncclConfig_t, cgaClusterSize));
SAME(offsetof(nccl::Config, minCTAs), offsetof(ncclConfig_t, minCTAs));
SAME(offsetof(nccl::Config, maxCTAs), offsetof(ncclConfig_t, maxCTAs));
SAME(offsetof(nccl::Config, netName), offsetof(ncclConfig_t, netName));
SAME(offsetof(nccl::Config, splitShare), offsetof(ncclConfig_t, splitShare));
static_assert(sizeof(nccl::Config) <= sizeof(ncclConfig_t));
static_assert(NCCL_VERSION_CODE >= nccl::LEAST_VERSION);

/** Same number of parameters, each passed alike. */
template <class Mine, class Its>
struct Alike : std::false_type {};
template <class R, class... A, class S, class... B>
struct Alike<R (*)(A...), S (*)(B...)> {
  static constexpr bool value = [] {
    if constexpr (sizeof...(A) != sizeof...(B)) {
      return false;
    } else {
      return sizeof(R) == sizeof(S) && ((sizeof(A) == sizeof(B) && std::is_pointer_v<A> == std::is_pointer_v<B>) && ...);
    }
  }();
};
#define FUNCTION(name) static_assert(Alike<decltype(nccl::Api::name), decltype(&nccl##name)>::value, #name)
FUNCTION(GetVersion);
FUNCTION(GetErrorString);
FUNCTION(GetLastError);
FUNCTION(GetUniqueId);
FUNCTION(CommInitRankConfig);
FUNCTION(CommDestroy);
FUNCTION(CommAbort);
FUNCTION(CommGetAsyncError);
FUNCTION(GroupStart);
FUNCTION(GroupEnd);
FUNCTION(Send);
FUNCTION(Recv);
FUNCTION(AllGather);

int main() {
  const ncclConfig_t fresh = NCCL_CONFIG_INITIALIZER;
  if (fresh.magic != nccl::CONFIG_MAGIC) {
    std::puts("FAIL: the magic number of ncclConfig_t is another");
    return 1;
  }
  std::printf("ncclcheck: declarations agree with nccl.h of %d.%d.%d\n", NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH);
}
#else
#include <cstdio>
int main() { std::puts("ncclcheck: skipped: no nccl.h on the include path (set NCCL_HOME to a toolkit with headers)"); }
#endif
