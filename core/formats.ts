/** Files: tensors, routing, traces. Sources and sinks are byte ranges, so this runs in Node and in the browser. */
export { type ByteSink, type ByteSource, memorySink, memorySource } from "./io/bytes.ts";
export { type NpyFile, openNpy, writeNpy } from "./io/npy.ts";
export {
  openSafetensors,
  type SafetensorsEntry,
  type SafetensorsFile,
  safetensorsBytes,
  writeSafetensors,
} from "./io/safetensors/index.ts";
export { type GenerateOptions, generateRouting, WORKLOADS } from "./routing/generate.ts";
export { openRouting, type RoutingFile, type RoutingLayer, splitRanks } from "./routing/import/index.ts";
export {
  countRouting,
  LOAD_FORMULAS,
  type LoadStatistics,
  loadStatistics,
  ROUTING_FORMULAS,
  type RoutingStatistics,
  routingStatistics,
} from "./routing/statistics/index.ts";
export { TRACE_FORMAT, TRACE_VERSION, type TraceChunk, type TraceHeader } from "./trace/format.ts";
export { openTrace, type TraceFile } from "./trace/read.ts";
export { writeTrace } from "./trace/write.ts";
