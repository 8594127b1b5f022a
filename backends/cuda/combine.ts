import type { CombineRequest, CombineResult } from "../../core/backend.ts";
import { nowUs } from "../../core/clock.ts";
import { checkCombine, checkOut } from "../../core/functions/validate.ts";
import type { Prepared } from "../../core/operations.ts";
import type { AnyTensor } from "../../core/tensor.ts";
import type { Contract } from "./cluster/index.ts";
import {
  bringHandle,
  type Context,
  checkedHandle,
  enqueued,
  localiseHandle,
  settingsContract,
  together,
} from "./context.ts";
import { nativeStream } from "./event.ts";
import { isResident, localise, nativeArrays, refsOf, standIns } from "./inputs.ts";
import type { NativeCombineInto } from "./native.ts";
import { Delivery } from "./outputs.ts";
import type { TensorOwner } from "./tensor.ts";

export interface CudaCombineRequest extends CombineRequest {
  /** As in CudaDispatchRequest: tensors of an earlier combine that are written again. */
  readonly into?: CombineResult;
}

export type CombineInputs = Pick<CombineRequest, "x" | "topkWeights" | "probs" | "bias">;

/** Brings what lives elsewhere to the host; called with the operation, before its turn. */
export async function fetchCombine(context: Context, request: CudaCombineRequest): Promise<CombineInputs> {
  const { owner } = context;
  const [x, topkWeights, probs, bias] = await Promise.all([
    localise(owner, request.x),
    request.topkWeights && localise(owner, request.topkWeights),
    request.probs && localise(owner, request.probs),
    Promise.all(request.bias.map((values) => localise(owner, values))),
    localiseHandle(context, request.handle),
  ]);
  return { x, topkWeights, probs, bias };
}

/** Checks, calls the library once, and says where the outputs go. */
export async function prepareCombine(
  context: Context,
  request: CudaCombineRequest,
  { x, topkWeights, probs, bias }: CombineInputs,
): Promise<Prepared<CombineResult>> {
  const { owner, self, group } = context;
  const { addon } = owner;
  const stream = await nativeStream(addon, request);
  const { data } = await checkCombine(self, {
    ...request,
    handle: checkedHandle(context, request.handle),
    x: standIns(x),
    topkWeights: topkWeights && standIns(topkWeights),
    probs: probs && standIns(probs),
    bias: bias.map(standIns),
  });
  const numTokens = data.ranks.map((rank) => rank.numTokens);
  checkOut(self, request.out, x[0].dtype, numTokens, x[0].shape[1]);
  const into = request.into === undefined ? null : intoOf(owner, request.into);
  const handle = await bringHandle(context, request.handle);
  const calledUs = nowUs();
  const native = {
    ...stream,
    handle: handle.ref,
    x: nativeArrays(x),
    topkWeights: topkWeights && nativeArrays(topkWeights),
    probs: probs && nativeArrays(probs),
    bias0: bias[0] ? nativeArrays(bias[0]) : null,
    bias1: bias[1] ? nativeArrays(bias[1]) : null,
    into,
  };
  const contract = {
    ...combineContract(request, x, topkWeights, probs),
    ...(context.link === null ? {} : { handle: context.link.origin(handle) }),
  };
  const called = await together(context, contract, calledUs, () => addon.combine(group, native));
  const { made } = called;
  const resident = x.some((value) => isResident(owner, value));
  const delivery = new Delivery(owner, resident, made.event, request);
  const outputs = {
    x: delivery.rows("x", made.x),
    topkWeights: made.topkWeights && delivery.put(made.topkWeights),
    probs: made.probs && delivery.put(made.probs),
  };
  return enqueued(context, request, called, outputs, delivery);
}

/** What every process must have the same in a combine. Biases may be given here and not there. */
function combineContract(
  { handle }: CombineRequest,
  x: readonly AnyTensor[],
  topkWeights: readonly AnyTensor[] | null,
  probs: readonly AnyTensor[] | null,
): Contract {
  return {
    operation: "combine",
    style: handle.meta.kind,
    dtype: x[0].dtype,
    hidden: x[0].shape[1],
    ...settingsContract(handle.meta),
    weightColumns: topkWeights === null ? 0 : topkWeights[0].shape[1],
    probs: probs === null ? 0 : 1,
  };
}

function intoOf(owner: TensorOwner, result: CombineResult): NativeCombineInto {
  const refs = (values: readonly AnyTensor[] | null) => refsOf(owner, values);
  return { x: refs(result.x) ?? [], topkWeights: refs(result.topkWeights), probs: refs(result.probs) };
}
