/**
 * What the devices still hold, brought to the host after an operation has failed. It runs in that operation's turn, so
 * nothing here may take another; and a device may never answer again, so everything has an end: Timeout.
 */
import type { RoutingInput } from "../../core/backend.ts";
import { BackendFailure, Timeout } from "../../core/errors.ts";
import type { Handle, HandleData } from "../../core/handle/handle.ts";
import { type AnyTensor, isHostTensor, type Tensor, tensor, toHost } from "../../core/tensor.ts";
import { withDeadline } from "./cluster/index.ts";
import { native } from "./errors.ts";
import { CudaHandle, downloadHandle } from "./handle.ts";
import { isResident } from "./inputs.ts";
import type { TensorOwner } from "./tensor.ts";

const LONGEST_MS = 10_000;

/** The arrays of a handle. */
export async function rescueHandle(owner: TensorOwner, handle: Handle): Promise<HandleData> {
  const { native: own, meta } = handle;
  if (handle.isOnHost || !(own instanceof CudaHandle) || own.owner !== owner) return within(() => handle.data());
  return within(() => native(() => downloadHandle(owner, own.ref, meta)));
}

/** Routing with its tensors in host memory. */
export function rescueRouting(owner: TensorOwner, routing: RoutingInput): Promise<RoutingInput> {
  return within(() => hostRouting(owner, routing));
}

async function hostRouting(owner: TensorOwner, routing: RoutingInput): Promise<RoutingInput> {
  const bring = (values: readonly AnyTensor[]) => Promise.all(values.map((value) => download(owner, value)));
  if ("topkIdx" in routing) {
    return {
      topkIdx: await bring(routing.topkIdx),
      topkWeights: routing.topkWeights && (await bring(routing.topkWeights)),
    };
  }
  return { routingMap: await bring(routing.routingMap), probs: routing.probs && (await bring(routing.probs)) };
}

async function download(owner: TensorOwner, value: AnyTensor): Promise<Tensor> {
  if (isHostTensor(value) || !isResident(owner, value)) return toHost(value);
  if (value.isFreed) throw new BackendFailure("it was on a device and has been freed since");
  const host = tensor(value.dtype, value.shape);
  const copy = { tensor: value.ref, offset: 0, bytes: value.bytes, data: host.data };
  await native(() => owner.addon.tensorsRead([copy]));
  return host;
}

function within<T>(work: () => Promise<T>): Promise<T> {
  return withDeadline(LONGEST_MS, () => new Timeout(`the device did not answer within ${LONGEST_MS} ms`), work);
}
