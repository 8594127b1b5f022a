// Failures inside the library are exceptions that carry the C error; guard() turns them into codes at the boundary.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>

#include "include/fused_a2a.h"

namespace fa2a {

struct Failure {
  fa2a_error error;
};

/** Where a value was found; -1 = does not apply. */
struct Place {
  int32_t rank = -1;
  int64_t token = -1;
  int64_t slot = -1;
  int64_t row = -1;
};

/** printf into a std::string. */
std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

/** "name: expected E, received R at rank 3, token 17; remedy": the grammar of core/errors.ts. */
[[noreturn]] void fail(fa2a_code code, const char* name, const std::string& expected, const std::string& received,
                       const char* remedy, Place place = {});
[[noreturn]] void failArgument(const char* name, const std::string& expected, const std::string& received,
                               const char* remedy, Place place = {});
/** One line of its own. `groupUsable` false: the group must be closed. */
[[noreturn]] void failMessage(fa2a_code code, const std::string& message, int32_t rank = -1, bool groupUsable = true);

fa2a_error noError();

/** Runs `body`; failures go to *error. */
template <class Body>
fa2a_code guard(fa2a_error* error, Body body) {
  try {
    body();
    return FA2A_OK;
  } catch (const Failure& failure) {
    if (error != nullptr) *error = failure.error;
    return failure.error.code;
  } catch (const std::bad_alloc&) {
    fa2a_error failed = noError();
    failed.code = FA2A_OUT_OF_MEMORY;
    std::snprintf(failed.message, sizeof failed.message, "host memory: expected room for the operation, received none; "
                                                         "free memory or lower the sizes");
    if (error != nullptr) *error = failed;
    return failed.code;
  } catch (const std::exception& other) {
    fa2a_error failed = noError();
    failed.code = FA2A_BACKEND_FAILURE;
    std::snprintf(failed.message, sizeof failed.message, "%s", other.what());
    if (error != nullptr) *error = failed;
    return failed.code;
  }
}

}  // namespace fa2a
