#include "error.h"

namespace fa2a {

namespace {

template <size_t N>
void put(char (&to)[N], const std::string& text) {
  std::snprintf(to, N, "%s", text.c_str());
}

std::string describe(const Place& place) {
  std::string text;
  const auto add = [&text](const char* name, int64_t value) {
    if (value < 0) return;
    if (!text.empty()) text.append(", ");
    text.append(name).append(" ").append(std::to_string(value));
  };
  add("rank", place.rank);
  add("token", place.token);
  add("slot", place.slot);
  add("row", place.row);
  return text.empty() ? text : std::string(" at ").append(text);
}

}  // namespace

std::string format(const char* pattern, ...) {
  va_list arguments;
  va_start(arguments, pattern);
  char text[1024];
  std::vsnprintf(text, sizeof text, pattern, arguments);
  va_end(arguments);
  return text;
}

fa2a_error noError() {
  fa2a_error error;
  std::memset(&error, 0, sizeof error);
  error.rank = -1;
  error.token = error.slot = error.row = -1;
  error.group_usable = 1;
  return error;
}

void fail(fa2a_code code, const char* name, const std::string& expected, const std::string& received,
          const char* remedy, Place place) {
  Failure failure{noError()};
  fa2a_error& error = failure.error;
  error.code = code;
  error.rank = place.rank;
  error.token = place.token;
  error.slot = place.slot;
  error.row = place.row;
  put(error.name, name);
  put(error.expected, expected);
  put(error.received, received);
  put(error.remedy, remedy);
  put(error.message, std::string(name) + ": expected " + expected + ", received " + received + describe(place) + "; " +
                         remedy);
  throw failure;
}

void failArgument(const char* name, const std::string& expected, const std::string& received, const char* remedy,
                  Place place) {
  fail(FA2A_INVALID_ARGUMENT, name, expected, received, remedy, place);
}

void failMessage(fa2a_code code, const std::string& message, int32_t rank, bool groupUsable) {
  Failure failure{noError()};
  failure.error.code = code;
  failure.error.rank = rank;
  failure.error.group_usable = groupUsable;
  put(failure.error.message, message);
  throw failure;
}

}  // namespace fa2a
