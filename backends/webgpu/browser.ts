/** The WebGPU backend in the browser: navigator.gpu and the same kernels, bundled as text. */
import { Unavailable } from "../../core/errors.ts";
import { type AdapterReport, adapterTitle, describeAdapter } from "./adapters/report.ts";
import { openBackend, type WebGpuBackend } from "./backend.ts";
import castBack from "./kernels/cast_back.wgsl?raw";
import castToFp8 from "./kernels/cast_to_fp8.wgsl?raw";
import combine from "./kernels/combine.wgsl?raw";
import combineProbs from "./kernels/combine_probs.wgsl?raw";
import dispatch from "./kernels/dispatch.wgsl?raw";
import dispatchSlots from "./kernels/dispatch_slots.wgsl?raw";
import divide from "./kernels/divide.wgsl?raw";
import layoutBlocks from "./kernels/layout_blocks.wgsl?raw";
import layoutCount from "./kernels/layout_count.wgsl?raw";
import layoutEntries from "./kernels/layout_entries.wgsl?raw";
import layoutPlace from "./kernels/layout_place.wgsl?raw";
import layoutReceived from "./kernels/layout_received.wgsl?raw";
import layoutScan from "./kernels/layout_scan.wgsl?raw";
import layoutTally from "./kernels/layout_tally.wgsl?raw";
import numbers from "./kernels/numbers.wgsl?raw";
import probe from "./kernels/probe.wgsl?raw";
import rowBf16 from "./kernels/row_bf16.wgsl?raw";
import rowFp16 from "./kernels/row_fp16.wgsl?raw";
import rowFp32 from "./kernels/row_fp32.wgsl?raw";
import scale from "./kernels/scale.wgsl?raw";
import type { KERNEL_FILES } from "./kernels.ts";
import type { WebGpuOptions } from "./options.ts";

export { type AdapterReport, adapterTitle } from "./adapters/report.ts";
export type { WebGpuBackend } from "./backend.ts";
export type { WebGpuOptions } from "./options.ts";

const KERNELS: Readonly<Record<(typeof KERNEL_FILES)[number], string>> = {
  probe,
  numbers,
  divide,
  row_bf16: rowBf16,
  row_fp16: rowFp16,
  row_fp32: rowFp32,
  layout_entries: layoutEntries,
  layout_tally: layoutTally,
  layout_count: layoutCount,
  layout_scan: layoutScan,
  layout_blocks: layoutBlocks,
  layout_place: layoutPlace,
  layout_received: layoutReceived,
  dispatch,
  dispatch_slots: dispatchSlots,
  combine,
  combine_probs: combineProbs,
  cast_to_fp8: castToFp8,
  cast_back: castBack,
  scale,
};

/** Throws Unavailable when the browser has no WebGPU adapter. */
export async function createWebGpuBackend(options: WebGpuOptions = {}): Promise<WebGpuBackend> {
  const { adapter, report } = await ask();
  if (adapter === null) {
    throw new Unavailable({
      name: "webgpu adapter",
      expected: "a browser with WebGPU and an adapter",
      received: report.attempts[0].reason,
      remedy: report.remedy ?? "",
    });
  }
  return openBackend(adapter, report, (name) => KERNELS[name as keyof typeof KERNELS], options);
}

export async function describeAdapters(): Promise<AdapterReport> {
  return (await ask()).report;
}

async function ask(): Promise<{ adapter: GPUAdapter | null; report: AdapterReport }> {
  const attempt = { source: "browser", detail: "navigator.gpu" } as const;
  const gpu = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  const adapter = (await gpu?.requestAdapter({ powerPreference: "high-performance" })) ?? null;
  if (adapter === null) {
    const reason = gpu ? "the browser has WebGPU but no adapter" : "this browser (or this insecure page) has no WebGPU";
    const remedy = gpu
      ? "start Chromium with --enable-unsafe-webgpu --use-webgpu-adapter=swiftshader"
      : "open the page over https or localhost in a browser with WebGPU";
    return {
      adapter,
      report: { attempts: [{ ...attempt, outcome: gpu ? "no adapter" : "absent", reason }], chosen: null, remedy },
    };
  }
  const chosen = describeAdapter("browser", adapter);
  return {
    adapter,
    report: { attempts: [{ ...attempt, outcome: "chosen", reason: adapterTitle(chosen) }], chosen, remedy: null },
  };
}
