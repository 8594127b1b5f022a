import type { DispatchRequest, DispatchResult, RoutingInput } from "../../core/backend.ts";
import { nowUs } from "../../core/clock.ts";
import { checkDispatch, checkOut } from "../../core/functions/validate.ts";
import type { Handle } from "../../core/handle/handle.ts";
import type { Prepared } from "../../core/operations.ts";
import type { AnyTensor } from "../../core/tensor.ts";
import type { Contract } from "./cluster/index.ts";
import {
  bringHandle,
  type Context,
  checkedHandle,
  enqueued,
  localiseHandle,
  requireOwnHandle,
  settingsContract,
  together,
} from "./context.ts";
import { nativeStream } from "./event.ts";
import { type CudaHandle, makeHandle, type RankSizes } from "./handle.ts";
import { isResident, localise, localiseRouting, nativeArrays, refsOf, standIns } from "./inputs.ts";
import type { NativeDispatchInto, NativeDispatchRequest, NativeHandle } from "./native.ts";
import { Delivery, freeAll } from "./outputs.ts";
import { prepareRouting } from "./routing.ts";

export interface CudaDispatchRequest extends DispatchRequest {
  /**
   * The result of an earlier dispatch of this group with the same shapes and settings, on the devices (new routing needs a
   * row budget): its tensors and handle are written again and nothing is allocated.
   */
  readonly into?: DispatchResult;
}

export interface DispatchInputs {
  readonly x: readonly AnyTensor[];
  readonly scales: readonly AnyTensor[] | null;
  readonly routing: RoutingInput | null;
}

/** Brings what lives elsewhere to the host; called with the operation, before its turn. */
export async function fetchDispatch(context: Context, request: CudaDispatchRequest): Promise<DispatchInputs> {
  const { owner } = context;
  const [x, scales, routing] = await Promise.all([
    localise(owner, request.x),
    request.scales && localise(owner, request.scales),
    request.routing ? localiseRouting(owner, request.routing, request.kind) : null,
    request.handle && localiseHandle(context, request.handle),
  ]);
  return { x, scales, routing };
}

/** Checks, calls the library once, and says where the outputs go. */
export async function prepareDispatch(
  context: Context,
  request: CudaDispatchRequest,
  { x, scales, routing: given }: DispatchInputs,
): Promise<Prepared<DispatchResult>> {
  const { owner, self, group } = context;
  const { addon } = owner;
  const stream = await nativeStream(addon, request);
  const numExperts = request.settings?.numExperts ?? 0;
  const routing = given === null ? undefined : await prepareRouting(context, given, request.kind, numExperts, true);
  const { settings } = await checkDispatch(self, {
    ...request,
    x: standIns(x),
    scales: scales && standIns(scales),
    routing: routing?.checked,
    handle: request.handle && checkedHandle(context, request.handle),
  });
  const into = request.into === undefined ? null : intoOf(context, request.into);
  const handle = request.handle && (await bringHandle(context, request.handle));
  const arrays = await routing?.arrays();
  const calledUs = nowUs();
  const native = {
    ...stream,
    kind: request.kind === "fused" ? 0 : 1,
    x: nativeArrays(x),
    scales: scales && nativeArrays(scales),
    topkIdx: arrays?.topkIdx ?? null,
    topkWeights: arrays?.topkWeights ?? null,
    handle: handle?.ref ?? null,
    numExperts: settings?.numExperts ?? 0,
    expertAlignment: settings?.expertAlignment ?? 1,
    numWorstTokens: settings?.numWorstTokens ?? 0,
    padMultiple: settings?.padMultiple ?? 1,
    numPermutedTokens: settings?.numPermutedTokens ?? -1,
    into,
  };
  const contract = {
    ...dispatchContract(request, x, scales, native, arrays?.topk ?? 0),
    ...(handle === undefined || context.link === null ? {} : { handle: context.link.origin(handle) }),
  };
  const called = await together(context, contract, calledUs, () => addon.dispatch(group, native)).finally(() =>
    arrays?.free(),
  );
  const { made } = called;
  const numRows = made.x.map(({ rows }) => rows);
  try {
    checkOut(self, request.out, x[0].dtype, numRows, x[0].shape[1]);
  } catch (error) {
    freeAll(owner, made.x, made.scales, made.topkIdx, made.topkWeights, made.probs);
    throw error;
  }
  const sizes = self.localRanks.map((rank, i) => ({ rank, numTokens: x[i].shape[0], numRows: numRows[i] }));
  const resident = x.some((value) => isResident(owner, value));
  const delivery = new Delivery(owner, resident, made.event, request);
  const outputs = {
    x: delivery.rows("x", made.x),
    scales: made.scales && delivery.rows("scales", made.scales),
    topkIdx: made.topkIdx && delivery.put(made.topkIdx),
    topkWeights: made.topkWeights && delivery.put(made.topkWeights),
    probs: made.probs && delivery.put(made.probs, true),
    handle: request.handle ?? newHandle(context, made.handle, sizes),
  };
  return enqueued(context, request, called, outputs, delivery);
}

/** What every process must have the same in a dispatch. */
function dispatchContract(
  { kind, handle }: CudaDispatchRequest,
  x: readonly AnyTensor[],
  scales: readonly AnyTensor[] | null,
  native: NativeDispatchRequest,
  topk: number,
): Contract {
  const { numExperts: experts, expertAlignment, numWorstTokens, padMultiple, numPermutedTokens } = native;
  const settings = { experts, topk, expertAlignment, numWorstTokens, padMultiple, numPermutedTokens };
  return {
    operation: handle === undefined ? "dispatch" : "cached dispatch",
    style: kind,
    dtype: x[0].dtype,
    hidden: x[0].shape[1],
    scaleColumns: scales === null ? 0 : scales[0].shape[1],
    weights: native.topkWeights === null ? 0 : 1,
    ...(handle === undefined ? settings : settingsContract(handle.meta)),
  };
}

function newHandle(context: Context, ref: NativeHandle, sizes: readonly RankSizes[]): Handle {
  const handle = makeHandle(context.owner, ref, context.self.localRanks, sizes);
  context.link?.made(handle.native as CudaHandle);
  return handle;
}

function intoOf(context: Context, result: DispatchResult): NativeDispatchInto {
  const refs = (values: readonly AnyTensor[] | null) => refsOf(context.owner, values);
  return {
    x: refs(result.x) ?? [],
    scales: refs(result.scales),
    topkIdx: refs(result.topkIdx),
    topkWeights: refs(result.topkWeights),
    probs: refs(result.probs),
    handle: requireOwnHandle(context, result.handle).ref,
  };
}
