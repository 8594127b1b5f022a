#include "objects.h"

#include <cstring>
#include <random>

namespace binding {

uint64_t loadTag() {
  static const uint64_t tag = [] {
    std::random_device random;
    return static_cast<uint64_t>(random()) << 32 | random();
  }();
  return tag;
}

Napi::Error makeError(Napi::Env env, const fa2a_error& error) {
  auto made = Napi::Error::New(env, error.message);
  auto native = Napi::Object::New(env);
  native["code"] = static_cast<double>(error.code);
  native["rank"] = static_cast<double>(error.rank);
  native["token"] = static_cast<double>(error.token);
  native["slot"] = static_cast<double>(error.slot);
  native["row"] = static_cast<double>(error.row);
  native["groupUsable"] = error.group_usable != 0;
  native["name"] = error.name;
  native["expected"] = error.expected;
  native["received"] = error.received;
  native["remedy"] = error.remedy;
  made.Value()["native"] = native;
  return made;
}

void throwError(Napi::Env env, const fa2a_error& error) { throw makeError(env, error); }

void throwArgument(Napi::Env env, const std::string& name, const std::string& expected, const std::string& received,
                   const std::string& remedy) {
  fa2a_error error = {};
  error.code = FA2A_INVALID_ARGUMENT;
  error.rank = -1;
  error.token = error.slot = error.row = -1;
  error.group_usable = 1;
  const auto copy = [](char* to, size_t size, const std::string& from) { std::strncpy(to, from.c_str(), size - 1); };
  copy(error.name, sizeof error.name, name);
  copy(error.expected, sizeof error.expected, expected);
  copy(error.received, sizeof error.received, received);
  copy(error.remedy, sizeof error.remedy, remedy);
  copy(error.message, sizeof error.message, name + ": expected " + expected + ", received " + received + "; " + remedy);
  throwError(env, error);
}

void check(Napi::Env env, fa2a_code code, const fa2a_error& error) {
  if (code != FA2A_OK) throwError(env, error);
}

}  // namespace binding
