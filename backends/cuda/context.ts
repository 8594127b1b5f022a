import type { Group, Phase, StreamOptions } from "../../core/backend.ts";
import { nowUs } from "../../core/clock.ts";
import { InvalidArgument } from "../../core/errors.ts";
import type { EventOverlap } from "../../core/event.ts";
import { checkHandleData } from "../../core/handle/check.ts";
import type { Handle, HandleMeta } from "../../core/handle/handle.ts";
import type { Prepared } from "../../core/operations.ts";
import type { Contract } from "./cluster/index.ts";
import { native } from "./errors.ts";
import { deviceEvent, hostEvent, phasesOf } from "./event.ts";
import { CudaHandle, sizesOnly, uploadHandle } from "./handle.ts";
import type { ClusterLink } from "./link.ts";
import type { NativeEvent, NativeGroup } from "./native.ts";
import type { Delivery } from "./outputs.ts";
import type { TensorOwner } from "./tensor.ts";

/** What the operations share: the group as core sees it, the library's group, and handles brought to it. */
export interface Context {
  readonly self: Group;
  readonly owner: TensorOwner;
  readonly group: NativeGroup;
  readonly recordTimings: boolean;
  /** Groups over several processes. */
  readonly link: ClusterLink | null;
  /** Handles made elsewhere that were uploaded to this group. */
  readonly uploaded: WeakMap<Handle, CudaHandle>;
}

/** A call of the library that was made: what came of it, the wait for the other processes, and when it began. */
export interface Called<T> {
  readonly made: T;
  readonly waits: readonly Phase[];
  readonly startUs: number;
}

/**
 * Calls the library once the other processes, if there are any, are about to do the same. `step`: a part of the present
 * call, which agrees once more.
 */
export async function together<T>(
  { link }: Context,
  contract: Contract,
  calledUs: number,
  call: () => Promise<T>,
  step = false,
): Promise<Called<T>> {
  if (link === null) return { made: await call(), waits: [], startUs: calledUs };
  const waits = await link.agree(contract, calledUs, step);
  const startUs = nowUs();
  return { made: await link.run(() => native(call)), waits, startUs };
}

/**
 * A dispatch or combine that the devices have got: `work` brings its outputs to the host, `result` has them with its phases
 * and the event that says when all is there.
 */
export async function enqueued<O extends object>(
  { owner: { addon }, link, recordTimings }: Context,
  { asyncFinish }: StreamOptions,
  { made: { event }, waits, startUs }: Called<{ readonly event: NativeEvent }>,
  outputs: O,
  delivery: Delivery,
): Promise<Prepared<O & { readonly phases: readonly Phase[]; readonly event: EventOverlap }>> {
  const isTimed = recordTimings && asyncFinish !== true;
  const phases = [...waits, ...(isTimed ? await phasesOf(addon, event, startUs) : [])];
  return {
    // Bringing outputs to the host may wait for other processes as well.
    work: () => (link === null ? delivery.run() : link.run(() => native(() => delivery.run()))),
    result: (done) => ({
      ...outputs,
      phases,
      event: delivery.touchesHost ? hostEvent(addon, event, done) : deviceEvent(addon, event),
    }),
  };
}

function ownHandle(context: Context, handle: Handle): CudaHandle | null {
  const { native } = handle;
  return native instanceof CudaHandle && native.owner === context.owner ? native : null;
}

/** The handle for core's checks: for one on this group's devices only its sizes are looked at. */
export function checkedHandle(context: Context, handle: Handle): Handle {
  const own = ownHandle(context, handle);
  return own === null ? handle : sizesOnly(handle, own.sizes);
}

/** Starts to bring the arrays of a handle made elsewhere to the host; see localise for when. */
export async function localiseHandle(context: Context, handle: Handle): Promise<void> {
  if (ownHandle(context, handle) === null && !context.uploaded.has(handle)) await handle.data();
}

/** The handle on this group's devices, uploaded once when it was made elsewhere. */
export async function bringHandle(context: Context, handle: Handle): Promise<CudaHandle> {
  const own = ownHandle(context, handle) ?? context.uploaded.get(handle);
  if (own !== undefined) return own;
  const data = await handle.data();
  checkHandleData(data);
  const upload = () => uploadHandle(context.owner, context.group, data);
  const { made } = await together(context, uploadContract(handle), nowUs(), upload, true);
  context.link?.made(made);
  context.uploaded.set(handle, made);
  return made;
}

/** What every process must have the same in a handle. */
function uploadContract({ meta }: Handle): Contract {
  return { operation: "handle upload", style: meta.kind, ...settingsContract(meta) };
}

/** The fields of a handle that every process must have the same. */
export function settingsContract(meta: HandleMeta): Contract {
  return {
    experts: meta.numExperts,
    topk: meta.topk,
    expertAlignment: meta.expertAlignment,
    numWorstTokens: meta.numWorstTokens,
    padMultiple: meta.padMultiple,
    numPermutedTokens: meta.numPermutedTokens ?? -1,
  };
}

/** The handle of an earlier dispatch of this group. Throws InvalidArgument for any other. */
export function requireOwnHandle(context: Context, handle: Handle): CudaHandle {
  const own = ownHandle(context, handle);
  if (own !== null) return own;
  throw new InvalidArgument({
    name: "into",
    expected: "the handle of an earlier dispatch of this group",
    received: "one made elsewhere",
    remedy: "pass a whole result of this group",
  });
}
