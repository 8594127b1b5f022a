/** Every kernel: its files, and what the host fixes when compiling it. */
import type { DType } from "../../core/dtype/dtype.ts";
import type { Device } from "./device.ts";
import { type Kernel, rowWorkgroup } from "./launcher.ts";

/** Names of all files in kernels/, for entries that must list what they bundle. */
export const KERNEL_FILES = [
  "probe",
  "numbers",
  "divide",
  "row_bf16",
  "row_fp16",
  "row_fp32",
  "layout_entries",
  "layout_tally",
  "layout_count",
  "layout_scan",
  "layout_blocks",
  "layout_place",
  "layout_received",
  "dispatch",
  "dispatch_slots",
  "combine",
  "combine_probs",
  "cast_to_fp8",
  "cast_back",
  "scale",
] as const;

export function dispatchKernel(device: Device, unitBytes: 4 | 16, numUnits: number): Kernel {
  return {
    name: "dispatch",
    files: ["dispatch"],
    unit: unitBytes === 4 ? "u32" : "vec4u",
    workgroup: rowWorkgroup(device, numUnits),
  };
}

export function dispatchSlotsKernel(device: Device, topk: number): Kernel {
  return { name: "dispatch_slots", files: ["dispatch_slots"], workgroup: rowWorkgroup(device, topk) };
}

export function combineKernel(device: Device, dtype: DType, numUnits: number, numEntries: number): Kernel {
  return {
    name: "combine",
    files: ["numbers", `row_${dtype}`, "combine"],
    constants: { NUM_ENTRIES: numEntries },
    workgroup: rowWorkgroup(device, numUnits),
  };
}

export function scaleKernel(device: Device, dtype: DType, numUnits: number): Kernel {
  return { name: "scale", files: ["numbers", `row_${dtype}`, "scale"], workgroup: rowWorkgroup(device, numUnits) };
}

export function castToFp8Kernel(device: Device, dtype: DType): Kernel {
  const files = ["numbers", "divide", `row_${dtype}`, "cast_to_fp8"];
  return { name: "cast_to_fp8", files, workgroup: itemWorkgroup(device) };
}

export function castBackKernel(device: Device, numUnits: number): Kernel {
  return { name: "cast_back", files: ["numbers", "row_bf16", "cast_back"], workgroup: rowWorkgroup(device, numUnits) };
}

/** A kernel with one invocation per item. */
export function itemKernel(device: Device, name: string): Kernel {
  return { name, files: [name], workgroup: itemWorkgroup(device) };
}

function itemWorkgroup(device: Device): readonly [number, number] {
  return [1, device.workgroupSize];
}
