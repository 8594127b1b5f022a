// The addon's export list.
#include "methods.h"

namespace {

Napi::Object exportAll(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, Napi::Value (*method)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, method, name));
  };
  add("abiVersion", binding::abiVersion);
  add("isEmulated", binding::isEmulated);
  add("driver", binding::driver);
  add("device", binding::device);
  add("peerMatrix", binding::peerMatrix);
  add("bufferSize", binding::bufferSize);
  add("groupCreate", binding::groupCreate);
  add("groupClose", binding::groupClose);
  add("groupConfigure", binding::groupConfigure);
  add("groupSetNumSms", binding::groupSetNumSms);
  add("groupSynchronize", binding::groupSynchronize);
  add("groupStream", binding::groupStream);
  add("groupReserve", binding::groupReserve);
  add("groupRelease", binding::groupRelease);
  add("groupMemory", binding::groupMemory);
  add("nccl", binding::nccl);
  add("networkId", binding::networkId);
  add("groupNetwork", binding::groupNetwork);
  add("groupConnect", binding::groupConnect);
  add("groupWaits", binding::groupWaits);
  add("groupAbort", binding::groupAbort);
  add("tensorCreate", binding::tensorCreate);
  add("tensorInfo", binding::tensorInfo);
  add("tensorsWrite", binding::tensorsWrite);
  add("tensorsRead", binding::tensorsRead);
  add("tensorFill", binding::tensorFill);
  add("tensorFree", binding::tensorFree);
  add("eventQuery", binding::eventQuery);
  add("eventWait", binding::eventWait);
  add("eventStreamWait", binding::eventStreamWait);
  add("eventRecord", binding::eventRecord);
  add("eventPhases", binding::eventPhases);
  add("eventFree", binding::eventFree);
  add("handleMeta", binding::handleMeta);
  add("handleSizes", binding::handleSizes);
  add("handleDownload", binding::handleDownload);
  add("handleUpload", binding::handleUpload);
  add("handleFree", binding::handleFree);
  add("layout", binding::layout);
  add("fromMultihot", binding::fromMultihot);
  add("dispatch", binding::dispatch);
  add("combine", binding::combine);
  add("castToFp8", binding::castToFp8);
  add("castBack", binding::castBack);
  add("scaleRows", binding::scaleRows);
  add("graphBegin", binding::graphBegin);
  add("graphEnd", binding::graphEnd);
  add("graphLaunch", binding::graphLaunch);
  add("graphFree", binding::graphFree);
  return exports;
}

}  // namespace

NODE_API_MODULE(fused_a2a, exportAll)
