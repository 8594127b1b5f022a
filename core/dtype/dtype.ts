/** The element types of the project: how wide they are and which typed array holds them on the host. */
const TABLE = {
  bf16: { bytes: 2, array: Uint16Array },
  fp16: { bytes: 2, array: Uint16Array },
  fp32: { bytes: 4, array: Float32Array },
  fp8e4m3: { bytes: 1, array: Uint8Array },
  u8: { bytes: 1, array: Uint8Array },
  bool: { bytes: 1, array: Uint8Array },
  i16: { bytes: 2, array: Int16Array },
  i32: { bytes: 4, array: Int32Array },
  i64: { bytes: 8, array: BigInt64Array },
} as const;

export type DType = keyof typeof TABLE;
/** What a row of `x` may be: fp8 and raw u8 rows can be dispatched, not summed. */
export type RowDType = "bf16" | "fp16" | "fp32" | "fp8e4m3" | "u8";
/** What combine can sum. */
export type SumDType = "bf16" | "fp16" | "fp32";
/** The host array of each dtype; its memory may be shared between threads. */
interface HostArrays {
  bf16: Uint16Array;
  fp16: Uint16Array;
  fp32: Float32Array;
  fp8e4m3: Uint8Array;
  u8: Uint8Array;
  bool: Uint8Array;
  i16: Int16Array;
  i32: Int32Array;
  i64: BigInt64Array;
}
export type ArrayOf<D extends DType> = HostArrays[D];
export type HostArray = ArrayOf<DType>;

export const DTYPES = Object.keys(TABLE) as DType[];
export const SUM_DTYPES: readonly DType[] = ["bf16", "fp16", "fp32"];
export const ROW_DTYPES: readonly DType[] = ["bf16", "fp16", "fp32", "fp8e4m3", "u8"];

/** Columns that share one float32 scale in fp8 rows (DeepEP's per-token cast). */
export const SCALE_BLOCK = 128;

/** Bytes of one element. */
export function elementBytes(dtype: DType): number {
  return TABLE[dtype].bytes;
}

export function arrayConstructor<D extends DType>(dtype: D): (typeof TABLE)[D]["array"] {
  return TABLE[dtype].array;
}
