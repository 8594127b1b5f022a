#include "nccl.h"

#include <dirent.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "error.h"
#ifdef FA2A_EMULATED
#include "../emulation/settings.h"
#endif

namespace fa2a {

namespace {

constexpr const char* VARIABLE = "FUSED_A2A_NCCL";
constexpr const char* LIBRARY = "libnccl.so.2";

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string join(const NcclSearch& search) {
  std::string text;
  for (const std::string& one : search.tried) text.append(text.empty() ? "" : ", ").append(one);
  return text;
}

/** Takes the library when it has everything and is new enough. */
bool adopt(NcclSearch& search, const std::string& path, void* library) {
  static nccl::Api api;
  std::string missing;
  nccl::forEachFunction(api, [&](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr && missing.empty()) missing = name;
  });
  if (!missing.empty()) {
    search.tried.push_back(path + ": has no " + missing + " (2.18 or newer is needed)");
    return false;
  }
  int version = 0;
  if (api.GetVersion(&version) != nccl::Result::Success || version < nccl::LEAST_VERSION) {
    search.tried.push_back(path + ": NCCL " + ncclVersionText(version) + ", 2.18 or newer is needed");
    return false;
  }
  auto* attach = reinterpret_cast<void (*)(const nccl::EmulatedStreams*)>(dlsym(library, nccl::ATTACH_NAME));
#ifdef FA2A_EMULATED
  if (attach == nullptr) {
    search.tried.push_back(path + ": a real NCCL, which knows nothing of emulated devices");
    return false;
  }
  static const nccl::EmulatedStreams streams = emulated::streamsForNccl();
  attach(&streams);
#else
  if (attach != nullptr) {
    search.tried.push_back(path + ": the stand-in for emulated devices, which cannot drive GPUs");
    return false;
  }
#endif
  search.tried.push_back(path + ": NCCL " + ncclVersionText(version));
  search.api = &api;
  search.version = version;
  search.path = path;
  return true;
}

bool attempt(NcclSearch& search, const std::string& path, int flags = 0) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | flags);
  if (library != nullptr) return adopt(search, path, library);
  if ((flags & RTLD_NOLOAD) != 0) {
    search.tried.push_back(path + " (already in this process): no");
    return false;
  }
  const char* reason = dlerror();
  std::string text = reason == nullptr ? "does not load" : reason;
  if (text.find("No such file") != std::string::npos) text = "not there";
  search.tried.push_back(path + ": " + text);
  return false;
}

#ifndef FA2A_EMULATED

std::vector<std::string> wheelFolders(const std::string& environment) {
  std::vector<std::string> folders;
  const std::string lib = environment + "/lib";
  DIR* folder = opendir(lib.c_str());
  if (folder == nullptr) return folders;
  while (const dirent* entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (name.rfind("python3", 0) == 0) folders.push_back(lib + "/" + name + "/site-packages/nvidia/nccl/lib");
  }
  closedir(folder);
  std::sort(folders.begin(), folders.end());
  return folders;
}

/** Where python3 keeps the wheel; empty when there is none. */
std::string askPython() {
  FILE* pipe = popen("python3 -c 'import nvidia.nccl; print(list(nvidia.nccl.__path__)[0])' 2>/dev/null", "r");
  if (pipe == nullptr) return "";
  char line[1024] = "";
  const bool answered = std::fgets(line, sizeof line, pipe) != nullptr;
  pclose(pipe);
  std::string path = answered ? line : "";
  while (!path.empty() && path.back() == '\n') path.pop_back();
  return path;
}

void searchAll(NcclSearch& search) {
  if (attempt(search, LIBRARY, RTLD_NOLOAD) || attempt(search, LIBRARY)) return;
  for (const char* home : {"NCCL_HOME", "NCCL_ROOT"}) {
    if (variable(home).empty()) continue;
    for (const char* lib : {"/lib/", "/lib64/"}) {
      if (attempt(search, variable(home) + lib + LIBRARY)) return;
    }
  }
  for (const char* environment : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    if (variable(environment).empty()) continue;
    for (const std::string& folder : wheelFolders(variable(environment))) {
      if (attempt(search, folder + "/" + LIBRARY)) return;
    }
  }
  const std::string wheel = askPython();
  if (wheel.empty()) {
    search.tried.push_back("python3's nvidia.nccl: not installed");
  } else {
    attempt(search, wheel + "/lib/" + LIBRARY);
  }
}

#else

/** The stand-in lies beside this library. */
void searchAll(NcclSearch& search) {
  Dl_info self;
  static const char here = 0;
  if (dladdr(&here, &self) == 0 || self.dli_fname == nullptr) return;
  const std::string path = self.dli_fname;
  const size_t slash = path.rfind('/');
  attempt(search, (slash == std::string::npos ? "." : path.substr(0, slash)) + "/libfused_a2a_nccl_sockets.so");
}

#endif

}  // namespace

std::string ncclVersionText(int version) {
  return format("%d.%d.%d", version / 10000, version % 10000 / 100, version % 100);
}

const NcclSearch& findNccl() {
  static std::mutex mutex;
  static NcclSearch search;
  const std::lock_guard lock(mutex);
  if (search.api != nullptr) return search;
  search = {};
  if (!variable(VARIABLE).empty()) {
    attempt(search, variable(VARIABLE));
  } else {
    searchAll(search);
  }
  return search;
}

const nccl::Api& requireNccl() {
  const NcclSearch& search = findNccl();
  if (search.api != nullptr) return *search.api;
  failMessage(FA2A_UNAVAILABLE,
              "nccl: expected NCCL 2.18 or newer for a group over several processes, received none; tried " + join(search) +
                  "; install it (pip install nvidia-nccl-cu13) or name it with " + VARIABLE);
}

}  // namespace fa2a

fa2a_code fa2a_nccl(fa2a_nccl_info* info, fa2a_error* error) {
  using namespace fa2a;
  return guard(error, [&] {
    if (info == nullptr) failArgument("info", "a place for the answer", "null", "pass one");
    const NcclSearch& search = findNccl();
    *info = {};
    info->found = search.api != nullptr;
    info->version = search.version;
    std::snprintf(info->path, sizeof info->path, "%s", search.path.c_str());
    std::string tried;
    for (const std::string& one : search.tried) tried.append(tried.empty() ? "" : "\n").append(one);
    std::snprintf(info->tried, sizeof info->tried, "%s", tried.c_str());
  });
}
