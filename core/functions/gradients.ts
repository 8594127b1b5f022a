import { bf16ToNumber } from "../dtype/bf16.ts";
import { fp16ToNumber } from "../dtype/fp16.ts";
import { type AnyTensor, type Tensor, tensor, toHost } from "../tensor.ts";

/** Gradients of weights as float32: bf16 and fp16 are widened exactly, fp32 is passed through untouched. */
export async function toFloat32(values: readonly AnyTensor[]): Promise<AnyTensor[]> {
  return Promise.all(values.map((value) => (value.dtype === "fp32" ? value : toHost(value).then(widen))));
}

function widen(value: Tensor): Tensor {
  if (value.dtype !== "bf16" && value.dtype !== "fp16") return value;
  const decode = value.dtype === "bf16" ? bf16ToNumber : fp16ToNumber;
  return tensor("fp32", value.shape, Float32Array.from(value.data as Uint16Array, decode));
}
