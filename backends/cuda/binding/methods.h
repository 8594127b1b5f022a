// The methods of the addon by object; addon.cc lists them. Above each body: the C function, then the TypeScript one.
#pragma once

#include <napi.h>

namespace binding {

// driver.cc
Napi::Value abiVersion(const Napi::CallbackInfo& info);
Napi::Value isEmulated(const Napi::CallbackInfo& info);
Napi::Value driver(const Napi::CallbackInfo& info);
Napi::Value device(const Napi::CallbackInfo& info);
Napi::Value peerMatrix(const Napi::CallbackInfo& info);
Napi::Value bufferSize(const Napi::CallbackInfo& info);

// group.cc
Napi::Value groupCreate(const Napi::CallbackInfo& info);
Napi::Value groupClose(const Napi::CallbackInfo& info);
Napi::Value groupConfigure(const Napi::CallbackInfo& info);
Napi::Value groupSetNumSms(const Napi::CallbackInfo& info);
Napi::Value groupSynchronize(const Napi::CallbackInfo& info);
Napi::Value groupStream(const Napi::CallbackInfo& info);
Napi::Value groupReserve(const Napi::CallbackInfo& info);
Napi::Value groupRelease(const Napi::CallbackInfo& info);
Napi::Value groupMemory(const Napi::CallbackInfo& info);

// network.cc
Napi::Value nccl(const Napi::CallbackInfo& info);
Napi::Value networkId(const Napi::CallbackInfo& info);
Napi::Value groupNetwork(const Napi::CallbackInfo& info);
Napi::Value groupConnect(const Napi::CallbackInfo& info);
Napi::Value groupWaits(const Napi::CallbackInfo& info);
Napi::Value groupAbort(const Napi::CallbackInfo& info);

// tensor.cc
Napi::Value tensorCreate(const Napi::CallbackInfo& info);
Napi::Value tensorInfo(const Napi::CallbackInfo& info);
Napi::Value tensorsWrite(const Napi::CallbackInfo& info);
Napi::Value tensorsRead(const Napi::CallbackInfo& info);
Napi::Value tensorFill(const Napi::CallbackInfo& info);
Napi::Value tensorFree(const Napi::CallbackInfo& info);

// event.cc
Napi::Value eventQuery(const Napi::CallbackInfo& info);
Napi::Value eventWait(const Napi::CallbackInfo& info);
Napi::Value eventStreamWait(const Napi::CallbackInfo& info);
Napi::Value eventRecord(const Napi::CallbackInfo& info);
Napi::Value eventPhases(const Napi::CallbackInfo& info);
Napi::Value eventFree(const Napi::CallbackInfo& info);

// handle.cc
Napi::Value handleMeta(const Napi::CallbackInfo& info);
Napi::Value handleSizes(const Napi::CallbackInfo& info);
Napi::Value handleDownload(const Napi::CallbackInfo& info);
Napi::Value handleUpload(const Napi::CallbackInfo& info);
Napi::Value handleFree(const Napi::CallbackInfo& info);

// layout.cc
Napi::Value layout(const Napi::CallbackInfo& info);
Napi::Value fromMultihot(const Napi::CallbackInfo& info);

// dispatch.cc, combine.cc
Napi::Value dispatch(const Napi::CallbackInfo& info);
Napi::Value combine(const Napi::CallbackInfo& info);

// rows.cc
Napi::Value castToFp8(const Napi::CallbackInfo& info);
Napi::Value castBack(const Napi::CallbackInfo& info);
Napi::Value scaleRows(const Napi::CallbackInfo& info);

// graph.cc
Napi::Value graphBegin(const Napi::CallbackInfo& info);
Napi::Value graphEnd(const Napi::CallbackInfo& info);
Napi::Value graphLaunch(const Napi::CallbackInfo& info);
Napi::Value graphFree(const Napi::CallbackInfo& info);

}  // namespace binding
