/** The core's public list. It knows no backend: `fused-a2a` (backends/index.ts) adds createGroup by name. */
export type {
  Backend,
  BackendName,
  BufferMemory,
  CombineRequest,
  CombineResult,
  DispatchRequest,
  DispatchResult,
  DispatchSettings,
  Group,
  GroupOptions,
  OutputChunk,
  Phase,
  RoutingInput,
  RowOutputs,
  StreamOptions,
} from "./backend.ts";
export { type DType, elementBytes, type RowDType, SCALE_BLOCK, type SumDType } from "./dtype/dtype.ts";
export {
  BackendFailure,
  ContractMismatch,
  type ErrorCode,
  FusedA2AError,
  InvalidArgument,
  InvalidFile,
  OutOfMemory,
  type Place,
  type Problem,
  Timeout,
  Unavailable,
} from "./errors.ts";
export { EventOverlap } from "./event.ts";
export {
  type BufferBytes,
  type BufferConfig,
  fusedBufferBytes,
  getCombineConfig,
  getDispatchConfig,
  type HybridEpSizes,
  hybridEpBufferBytes,
} from "./functions/bufferSize.ts";
export {
  type CommBuffer,
  cachedBuffer,
  cachedHybridEpBuffer,
  getBuffer,
  getHiddenBytes,
  getNumSms,
  type HybridEpBuffer,
  type HybridEpOptions,
  initHybridEpBuffer,
  resetBuffer,
  resetHybridEpBuffer,
  setNumSms,
} from "./functions/buffers.ts";
export { FunctionContext } from "./functions/context.ts";
export {
  FusedCombine,
  FusedDispatch,
  type FusedDispatchOptions,
  type FusedDispatchOutput,
  type FusedOptions,
} from "./functions/fused.ts";
export {
  Buffer,
  type BufferCombineArguments,
  type BufferCombineOutput,
  type BufferDispatchArguments,
  type BufferDispatchOutput,
  type DispatchLayout,
  type LayoutArguments,
} from "./functions/fusedBuffer.ts";
export {
  HYBRIDEP_TOKEN_ALIGNMENT,
  HybridEPCombine,
  HybridEPDispatch,
  type HybridEpDispatchOptions,
  type HybridEpDispatchOutput,
} from "./functions/hybridEp.ts";
export {
  type CombineWithUnpermuteArguments,
  type DenseDispatchOutput,
  type DispatchWithPermuteArguments,
  type DispatchWithPermuteOutput,
  HybridEPBuffer,
  type HybridEpCombineOutput,
  type HybridEpDispatchArguments,
} from "./functions/hybridEpBuffer.ts";
export { fusedCombine, fusedDispatch, hybridEpCombine, hybridEpDispatch } from "./functions/wrappers.ts";
export { checkHandleData } from "./handle/check.ts";
export { decodeHandle, encodeHandle, HANDLE_VERSION } from "./handle/encode.ts";
export {
  Handle,
  type HandleData,
  type HandleKind,
  type HandleMeta,
  type Overflow,
  type RankHandle,
} from "./handle/handle.ts";
export { conservationLaws, type Law } from "./layout/conservation.ts";
export { type RankLayout, rankLayout } from "./layout/counts.ts";
export { toIndexForm, toMultihotForm } from "./layout/multihot.ts";
export { fusedHandle, hybridEpHandle } from "./layout/positions.ts";
export { checkShape, type GroupShape, type RankRouting, rankRouting } from "./layout/routing.ts";
export {
  type AnyTensor,
  bytesOf,
  type DeviceTensor,
  isHostTensor,
  rowBytes,
  type Tensor,
  tensor,
  toHost,
} from "./tensor.ts";
