// What this machine can do, and the emulated machine's settings.
#include <algorithm>

#include "cuda.h"
#ifdef FA2A_EMULATED
#include "../emulation/settings.h"
#endif

#ifndef FA2A_ARCHITECTURES
#ifdef FA2A_EMULATED
#define FA2A_ARCHITECTURES "emulated"
#else
#define FA2A_ARCHITECTURES "not recorded"
#endif
#endif
#ifndef FA2A_COMPILER
#define FA2A_COMPILER __VERSION__
#endif

using namespace fa2a;

namespace {

std::string versionText(int version) { return format("%d.%d", version / 1000, version % 1000 / 10); }

}  // namespace

fa2a_code fa2a_driver(fa2a_driver_info* info, fa2a_error* error) {
  return guard(error, [&] {
    if (info == nullptr) failArgument("info", "a place for the answer", "null", "pass one");
    std::memset(info, 0, sizeof *info);
    std::snprintf(info->architectures, sizeof info->architectures, "%s", FA2A_ARCHITECTURES);
    std::snprintf(info->compiler, sizeof info->compiler, "%s", FA2A_COMPILER);
    int driver = 0, runtime = 0, devices = 0;
    cudaRuntimeGetVersion(&runtime);
    cudaDriverGetVersion(&driver);
    const cudaError_t counted = cudaGetDeviceCount(&devices);
    if (counted != cudaSuccess) devices = 0;
    cudaGetLastError();
    info->driver_version = driver;
    info->runtime_version = runtime;
    info->num_devices = devices;
    std::string message;
    if (driver == 0) {
      info->state = FA2A_DRIVER_MISSING;
      message = "no NVIDIA driver (libcuda.so.1 not found); install one, or use --backend wasm";
    } else if (counted == cudaErrorInsufficientDriver) {
      info->state = FA2A_DRIVER_TOO_OLD;
      message = "the driver supports CUDA " + versionText(driver) + ", this build needs " + versionText(runtime) +
                "; update the driver (580 or newer for CUDA 13)";
    } else if (counted == cudaErrorNoDevice || (counted == cudaSuccess && devices == 0)) {
      info->state = FA2A_DRIVER_NO_DEVICE;
      message = "the driver is there, but no GPU is visible; look at CUDA_VISIBLE_DEVICES";
    } else if (counted != cudaSuccess) {
      info->state = FA2A_DRIVER_ERROR;
      message = std::string("the driver does not answer: ") + cudaGetErrorString(counted);
    } else {
      info->state = FA2A_DRIVER_USABLE;
      message = format("%d device%s, driver for CUDA %s, built with CUDA %s", devices, devices == 1 ? "" : "s",
                       versionText(driver).c_str(), versionText(runtime).c_str());
    }
    std::snprintf(info->message, sizeof info->message, "%s", message.c_str());
  });
}

fa2a_code fa2a_device(int32_t device, fa2a_device_info* info, fa2a_error* error) {
  return guard(error, [&] {
    if (info == nullptr) failArgument("info", "a place for the answer", "null", "pass one");
    OnDevice on(device);
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    std::memset(info, 0, sizeof *info);
    info->device = device;
    std::snprintf(info->name, sizeof info->name, "%.127s", properties.name);
    cudaDeviceGetPCIBusId(info->pci_bus_id, sizeof info->pci_bus_id, device);
    info->compute_major = properties.major;
    info->compute_minor = properties.minor;
    info->num_sms = properties.multiProcessorCount;
    info->l2_bytes = properties.l2CacheSize;
    info->shared_bytes_per_block = static_cast<int32_t>(properties.sharedMemPerBlockOptin);
    // Images of 8.0, 9.0 and 10.0 run on their whole generation; the PTX of the newest covers what comes after.
    info->supported = properties.major >= 8;
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    info->free_bytes = static_cast<int64_t>(free);
    info->total_bytes = static_cast<int64_t>(total);
  });
}

fa2a_code fa2a_peer_matrix(int32_t numDevices, uint8_t* canAccess, fa2a_error* error) {
  return guard(error, [&] {
    for (int32_t from = 0; from < numDevices; from++) {
      for (int32_t to = 0; to < numDevices; to++) {
        int can = from == to;
        if (from != to) check(cudaDeviceCanAccessPeer(&can, from, to), "cudaDeviceCanAccessPeer");
        canAccess[from * numDevices + to] = static_cast<uint8_t>(can != 0);
      }
    }
  });
}

fa2a_code fa2a_emulation_configure(const fa2a_emulation* settings, fa2a_error* error) {
  return guard(error, [&] {
    if (settings == nullptr) failArgument("settings", "settings", "null", "pass them");
#ifdef FA2A_EMULATED
    const auto orDefault = [](auto value, auto other) { return value == 0 ? other : value; };
    emulated::Settings machine;
    machine.numDevices = orDefault(settings->num_devices, machine.numDevices);
    machine.numSms = orDefault(settings->num_sms, machine.numSms);
    machine.computeMajor = orDefault(settings->compute_major, machine.computeMajor);
    machine.seed = settings->seed;
    machine.weakStores = settings->weak_stores != 0;
    machine.slowDevice = settings->slow_device - 1;
    machine.stalledDevice = settings->stalled_device - 1;
    machine.deviceBytes = orDefault(settings->device_bytes, machine.deviceBytes);
    machine.poison = settings->poison != 0;
    emulated::configure(machine);
#else
    failMessage(FA2A_UNAVAILABLE, "fa2a_emulation_configure: expected the emulated build, received the CUDA build; load the other library");
#endif
  });
}
