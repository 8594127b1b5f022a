/** Inputs of an operation: what can be checked without copying anything from a device, and the library's view of them. */
import type { DispatchRequest, RoutingInput } from "../../core/backend.ts";
import { InvalidArgument } from "../../core/errors.ts";
import { type AnyTensor, isHostTensor, shapeAlone, type Tensor, toHost } from "../../core/tensor.ts";
import type { NativeArray, NativeTensorRef } from "./native.ts";
import { CudaTensor, dtypeIndex, matrixOf, type TensorOwner } from "./tensor.ts";

/** True for a tensor that lives on a device of this group's backend. */
export function isResident(owner: TensorOwner, value: AnyTensor): value is CudaTensor {
  return value instanceof CudaTensor && value.owner === owner;
}

/**
 * Host tensors and this group's own stay; those of other groups and backends come to the host. Call it when the operation
 * is called, not in its turn: a download takes a turn of its group, and two groups that wait for each other's never end.
 */
export async function localise(owner: TensorOwner, values: readonly AnyTensor[]): Promise<readonly AnyTensor[]> {
  return Promise.all(values.map((value) => (isResident(owner, value) ? value : toHost(value))));
}

/** Routing likewise. Fused recv ids of a multihot routing are i64, which core makes on the host: it comes there. */
export async function localiseRouting(
  owner: TensorOwner,
  routing: RoutingInput,
  kind: DispatchRequest["kind"],
): Promise<RoutingInput> {
  if ("topkIdx" in routing) {
    const weights = routing.topkWeights && localise(owner, routing.topkWeights);
    const topkIdx = await localise(owner, routing.topkIdx);
    return { topkIdx, topkWeights: await weights };
  }
  const bring = (values: readonly AnyTensor[]): Promise<readonly AnyTensor[]> =>
    kind === "fused" ? Promise.all(values.map(toHost)) : localise(owner, values);
  const probs = routing.probs && bring(routing.probs);
  const routingMap = await bring(routing.routingMap);
  return { routingMap, probs: await probs };
}

/**
 * What core's checks may look at: host tensors themselves, and for a device tensor its dtype and shape over no data. So
 * shapes and dtypes are checked by the same code, with the same errors; ids on a device are checked there.
 */
export function standIn(value: AnyTensor): Tensor {
  return isHostTensor(value) ? value : shapeAlone(value.dtype, value.shape);
}

export function standIns(values: readonly AnyTensor[]): Tensor[] {
  return values.map(standIn);
}

/** Index-form routing with stand-ins. */
export function standInRouting(routing: Extract<RoutingInput, { topkIdx: unknown }>): RoutingInput {
  return { topkIdx: standIns(routing.topkIdx), topkWeights: routing.topkWeights && standIns(routing.topkWeights) };
}

function nativeArray(value: AnyTensor): NativeArray {
  if (value instanceof CudaTensor) return { tensor: value.ref };
  const { data, dtype, shape } = value as Tensor;
  return { data, dtype: dtypeIndex(dtype), ...matrixOf(shape) };
}

export function nativeArrays(values: readonly AnyTensor[]): NativeArray[] {
  return values.map(nativeArray);
}

/** The library's references of an earlier result's tensors. Throws InvalidArgument for one that is not on this group's devices. */
export function refsOf(owner: TensorOwner, values: readonly AnyTensor[] | null): NativeTensorRef[] | null {
  if (values === null) return null;
  return values.map((value) => {
    if (isResident(owner, value)) return value.ref;
    throw new InvalidArgument({
      name: "into",
      expected: "an earlier result on this group's devices",
      received: "tensors in host memory or of another group",
      remedy: "pass the result of an operation with device-resident inputs",
    });
  });
}
