/** FusedDispatch and FusedCombine: Megatron-Core's DeepEP-style autograd functions (fused_a2a.py; design 2.3, 2.4, 2.6). */
import type { Group, StreamOptions } from "../backend.ts";
import type { EventOverlap } from "../event.ts";
import type { Handle } from "../handle/handle.ts";
import { type AnyTensor, type Tensor, tensor } from "../tensor.ts";
import { type CommBuffer, getBuffer, getHiddenBytes } from "./buffers.ts";
import type { FunctionContext } from "./context.ts";
import { toFloat32 } from "./gradients.ts";
import { expectMatrices } from "./validate.ts";

export interface FusedOptions {
  /** Resolve before the device is done; `event` says when it is. Default false. */
  readonly asyncFinish?: boolean;
  /** The communication stream owns the outputs. Default false. */
  readonly allocateOnCommStream?: boolean;
}

export interface FusedDispatchOptions extends FusedOptions {
  /** Rounds the per-expert counts (only the counts) up to a multiple. Default 1. */
  readonly expertAlignment?: number;
  /** Fixed number of recv rows, no host synchronisation; 0 = exact. Default 0. */
  readonly numWorstTokens?: number;
  readonly previousEvent?: EventOverlap | null;
}

/** Arrays have one entry per local rank. N = recv rows of the rank, L = local experts. */
export interface FusedDispatchOutput {
  /** [N, hidden], ordered by (source rank, source token). */
  readonly recvX: readonly AnyTensor[];
  /** [N, topk] local expert ids, -1 for slots of other ranks and dropped ones. */
  readonly recvTokenIndices: readonly AnyTensor[] | null;
  /** [N, topk] fp32, exactly 0 where the id is -1. */
  readonly recvTokenProbs: readonly AnyTensor[] | null;
  /** [L] i64 on the host: received slots per local expert; empty with numWorstTokens. */
  readonly tokensPerExpert: readonly Tensor<"i64">[];
  readonly handle: Handle;
  readonly event: EventOverlap;
}

interface SavedDispatch {
  readonly group: Group;
  readonly handle: Handle;
  readonly options: Required<FusedOptions>;
}

const OWNERS = { dispatch: "FusedDispatch", combine: "FusedCombine" } as const;

export const FusedDispatch = {
  /**
   * Sends each token's row once to every rank that holds one of its experts.
   * x: [tokens, hidden] bf16, fp16, fp32 or fp8e4m3; tokenIndices: [tokens, topk] i64 or i32; tokenProbs: [tokens, topk]
   * fp32; one of each per local rank. Throws InvalidArgument before anything moves.
   */
  async forward(
    ctx: FunctionContext,
    x: readonly AnyTensor[],
    tokenIndices: readonly AnyTensor[],
    tokenProbs: readonly AnyTensor[],
    numExperts: number,
    group: Group,
    options: FusedDispatchOptions = {},
  ): Promise<FusedDispatchOutput> {
    const flags = flagsOf(options);
    await ensureBuffer(group, x);
    const result = await group.dispatch({
      kind: "fused",
      x,
      scales: null,
      routing: { topkIdx: tokenIndices, topkWeights: tokenProbs },
      settings: {
        numExperts,
        expertAlignment: options.expertAlignment ?? 1,
        numWorstTokens: options.numWorstTokens ?? 0,
        padMultiple: 1,
        numPermutedTokens: null,
      },
      previousEvent: options.previousEvent ?? null,
      ...flags,
    });
    if (flags.asyncFinish) await result.event.currentStreamWait();
    ctx.save<SavedDispatch>(OWNERS.dispatch, { group, handle: result.handle, options: flags });
    return {
      recvX: result.x,
      recvTokenIndices: result.topkIdx,
      recvTokenProbs: result.topkWeights,
      tokensPerExpert: options.numWorstTokens
        ? group.localRanks.map(() => tensor("i64", [0]))
        : await tokensPerExpert(result.handle),
      handle: result.handle,
      event: result.event,
    };
  },

  /** A combine of the output gradient and of the float32 gradient of the weights. Gradients in the order of forward's inputs. */
  async backward(
    ctx: FunctionContext,
    gradOutput: readonly AnyTensor[],
    _gradTokenIndices: null = null,
    gradTokenProbs: readonly AnyTensor[] | null = null,
    _gradTokensPerExpert: null = null,
    _gradHandle: null = null,
  ) {
    const { group, handle, options } = ctx.restore<SavedDispatch>(OWNERS.dispatch);
    await ensureBuffer(group, gradOutput);
    const topkWeights = gradTokenProbs && (await toFloat32(gradTokenProbs));
    const result = await group.combine({ handle, x: gradOutput, topkWeights, probs: null, bias: [], ...options });
    if (options.asyncFinish) await result.event.currentStreamWait();
    return {
      gradX: result.x,
      gradTokenIndices: null,
      gradTokenProbs: result.topkWeights,
      gradNumExperts: null,
      gradGroup: null,
      gradAsyncFinish: null,
      gradAllocateOnCommStream: null,
    };
  },
} as const;

export const FusedCombine = {
  /**
   * Sums the rows that came back from a token's destinations in ascending rank order, in float32, rounded once.
   * x: [N, hidden] bf16, fp16 or fp32, one row per recv row of `handle`. Returns [tokens, hidden] of x's dtype.
   */
  async forward(
    ctx: FunctionContext,
    x: readonly AnyTensor[],
    group: Group,
    handle: Handle,
    options: FusedOptions & Pick<StreamOptions, "previousEvent"> = {},
  ): Promise<{ combinedX: readonly AnyTensor[]; combinedTopkWeights: null; event: EventOverlap }> {
    const flags = flagsOf(options);
    await ensureBuffer(group, x);
    const previousEvent = options.previousEvent ?? null;
    const request = { handle, x, topkWeights: null, probs: null, bias: [], previousEvent, ...flags };
    const result = await group.combine(request);
    if (flags.asyncFinish) await result.event.currentStreamWait();
    ctx.save<SavedDispatch>(OWNERS.combine, { group, handle, options: flags });
    return { combinedX: result.x, combinedTopkWeights: null, event: result.event };
  },

  /** A dispatch of the output gradient with the cached handle. */
  async backward(ctx: FunctionContext, gradOutput: readonly AnyTensor[], previousEvent: EventOverlap | null = null) {
    const { group, handle, options } = ctx.restore<SavedDispatch>(OWNERS.combine);
    await ensureBuffer(group, gradOutput);
    const request = { kind: "fused", x: gradOutput, scales: null, handle, previousEvent, ...options } as const;
    const result = await group.dispatch(request);
    if (options.asyncFinish) await result.event.currentStreamWait();
    return {
      gradX: result.x,
      gradGroup: null,
      gradHandle: null,
      gradAsyncFinish: null,
      gradAllocateOnCommStream: null,
    };
  },
} as const;

/** The communication buffer for rows like those of `x`. Throws InvalidArgument when a local rank's tensor is missing. */
export async function ensureBuffer(group: Group, x: readonly AnyTensor[]): Promise<CommBuffer> {
  expectMatrices(group, x);
  return getBuffer(group, getHiddenBytes(x[0]));
}

/** [L] i64 counts of each local rank, from the handle. */
export async function tokensPerExpert(handle: Handle): Promise<Tensor<"i64">[]> {
  const counts = await handle.tokensPerExpert();
  return counts.map((values) => tensor("i64", [values.length], BigInt64Array.from(values, BigInt)));
}

function flagsOf(options: FusedOptions): Required<FusedOptions> {
  return {
    asyncFinish: options.asyncFinish ?? false,
    allocateOnCommStream: options.allocateOnCommStream ?? false,
  };
}
