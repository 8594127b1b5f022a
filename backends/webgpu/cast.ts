/** The host half of the fp8 casts and of scaleRows. */
import type { RowOutputs } from "../../core/backend.ts";
import { elementBytes, SCALE_BLOCK } from "../../core/dtype/dtype.ts";
import { bytesOf, rowBytes, type Tensor, tensor } from "../../core/tensor.ts";
import type { Context } from "./context.ts";
import { castBackKernel, castToFp8Kernel, scaleKernel } from "./kernels.ts";
import { mapRows, type Plane } from "./map.ts";
import { RowSink } from "./rows.ts";

const SCALES: Plane = { elementBytes: 4, columns: SCALE_BLOCK, unit: 4 };
const PER_ROW: Plane = { elementBytes: 4, columns: Number.POSITIVE_INFINITY, unit: 4 };

function rowPlane(bytes: number): Plane {
  return { elementBytes: bytes, columns: 1, unit: 16 };
}

function sinkOf(value: Tensor): RowSink {
  return new RowSink("x", 0, rowBytes(value), bytesOf(value), null);
}

export async function castToFp8(
  context: Context,
  x: readonly Tensor[],
): Promise<{ x: Tensor<"fp8e4m3">[]; scales: Tensor<"fp32">[] }> {
  const { dtype, shape } = x[0];
  const hidden = shape[1];
  const numBlocks = Math.ceil(hidden / SCALE_BLOCK);
  const out = x.map((value) => tensor("fp8e4m3", [value.shape[0], hidden]));
  const scales = x.map((value) => tensor("fp32", [value.shape[0], numBlocks]));
  await mapRows(context, {
    kernel: castToFp8Kernel(context.device, dtype),
    hidden,
    columnStep: SCALE_BLOCK,
    inputs: [rowPlane(elementBytes(dtype))],
    outputs: [rowPlane(1), SCALES],
    ranks: x.map((value, i) => ({
      numRows: value.shape[0],
      inputs: [bytesOf(value)],
      sinks: [sinkOf(out[i]), sinkOf(scales[i])],
    })),
    params: (numRows, [input], [output, scale]) => [numRows, input.stride / 16, output.stride / 16, scale.stride / 4],
    numItems: (numRows, [, scale]) => (numRows * scale.stride) / 4,
  });
  return { x: out, scales };
}

export async function castBack(
  context: Context,
  x: readonly Tensor[],
  scales: readonly Tensor<"fp32">[],
): Promise<Tensor<"bf16">[]> {
  const hidden = x[0].shape[1];
  const out = x.map((value) => tensor("bf16", [value.shape[0], hidden]));
  await mapRows(context, {
    kernel: castBackKernel(context.device, Math.ceil(hidden / 8)),
    hidden,
    columnStep: SCALE_BLOCK,
    inputs: [rowPlane(1), SCALES],
    outputs: [rowPlane(2)],
    ranks: x.map((value, i) => ({
      numRows: value.shape[0],
      inputs: [bytesOf(value), bytesOf(scales[i])],
      sinks: [sinkOf(out[i])],
    })),
    params: (numRows, [input, scale], [output]) => [numRows, input.stride / 8, output.stride / 16, scale.stride / 4],
  });
  return out;
}

export async function scaleRows(
  context: Context,
  localRanks: readonly number[],
  x: readonly Tensor[],
  factors: readonly Tensor<"fp32">[],
  options: RowOutputs,
): Promise<Tensor[]> {
  const { dtype, shape } = x[0];
  const consume = options.consume ?? null;
  const out = consume ? [] : (options.out ?? x.map((value) => tensor(dtype, value.shape)));
  const plane = rowPlane(elementBytes(dtype));
  await mapRows(context, {
    kernel: scaleKernel(context.device, dtype, Math.ceil((shape[1] * elementBytes(dtype)) / 16)),
    hidden: shape[1],
    columnStep: SCALE_BLOCK,
    inputs: [plane, PER_ROW],
    outputs: [plane],
    ranks: x.map((value, i) => ({
      numRows: value.shape[0],
      inputs: [bytesOf(value), bytesOf(factors[i])],
      sinks: [new RowSink("x", localRanks[i], rowBytes(value), out[i] ? bytesOf(out[i]) : null, consume)],
    })),
    params: (numRows, [input]) => [numRows, input.stride / 16],
    progress: options.progress,
  });
  return [...out];
}
