import type { DType } from "../../dtype/dtype.ts";

/** The project's dtype of each safetensors dtype that it can hold. */
export const DTYPE_OF_FILE: ReadonlyMap<string, DType> = new Map([
  ["BF16", "bf16"],
  ["F16", "fp16"],
  ["F32", "fp32"],
  ["F8_E4M3", "fp8e4m3"],
  ["U8", "u8"],
  ["BOOL", "bool"],
  ["I16", "i16"],
  ["I32", "i32"],
  ["I64", "i64"],
]);

export const FILE_OF_DTYPE: Readonly<Record<DType, string>> = Object.fromEntries(
  [...DTYPE_OF_FILE].map(([file, dtype]) => [dtype, file]),
) as Record<DType, string>;

/**
 * Bits per element of every dtype of the format: tensors of the others may lie in a file (their sizes are checked like
 * any), they are refused only when they are read.
 */
export const FILE_DTYPE_BITS: ReadonlyMap<string, number> = new Map([
  ["BOOL", 8],
  ["F4", 4],
  ["F6_E2M3", 6],
  ["F6_E3M2", 6],
  ["U8", 8],
  ["I8", 8],
  ["F8_E5M2", 8],
  ["F8_E4M3", 8],
  ["F8_E8M0", 8],
  ["F8_E4M3FNUZ", 8],
  ["F8_E5M2FNUZ", 8],
  ["I16", 16],
  ["U16", 16],
  ["F16", 16],
  ["BF16", 16],
  ["I32", 32],
  ["U32", 32],
  ["F32", 32],
  ["C64", 64],
  ["F64", 64],
  ["I64", 64],
  ["U64", 64],
]);
