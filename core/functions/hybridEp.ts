/** HybridEPDispatch and HybridEPCombine: Megatron-Core's expert-major autograd functions (fused_a2a.py; design 2.5, 2.6). */
import type { Group } from "../backend.ts";
import { elementBytes } from "../dtype/dtype.ts";
import { InvalidArgument } from "../errors.ts";
import type { EventOverlap } from "../event.ts";
import type { Handle } from "../handle/handle.ts";
import type { AnyTensor } from "../tensor.ts";
import {
  type HybridEpNeed,
  type HybridEpOptions,
  hybridEpBufferFor,
  hybridEpBufferOf,
  rememberHybridEpRun,
} from "./buffers.ts";
import type { FunctionContext } from "./context.ts";
import { tokensPerExpert } from "./fused.ts";
import { toFloat32 } from "./gradients.ts";
import { expectMatrices } from "./validate.ts";

/** Upstream pads uneven inputs to this many tokens; here uneven inputs just work and nothing is padded to it. */
export const HYBRIDEP_TOKEN_ALIGNMENT = 64;

export interface HybridEpDispatchOptions extends HybridEpOptions {
  /** Exactly that many output rows and no host synchronisation; null = exact, at the cost of one. */
  readonly numPermutedTokens?: number | null;
  /** Pads each expert's block to a multiple; null, 0 and 1 mean no padding. */
  readonly padMultiple?: number | null;
  /** One kernel for move and permute; never changes a result. */
  readonly fused?: boolean;
  /** [tokens, columns] fp32 scales that move with fp8 or u8 rows. */
  readonly scalingFactor?: readonly AnyTensor[] | null;
}

/** Arrays have one entry per local rank. P = permuted rows of the rank, padding included; L = local experts. */
export interface HybridEpDispatchOutput {
  /** [P, hidden], expert-major; padding rows are zero. */
  readonly dispatchedHidden: readonly AnyTensor[];
  /** [P] fp32, 0 on padding. */
  readonly dispatchedProbs: readonly AnyTensor[] | null;
  /** [P, columns] fp32, or null without scales. */
  readonly dispatchedScalingFactor: readonly AnyTensor[] | null;
  /** [L] i64 padded counts; with numPermutedTokens they may stay on the device. */
  readonly tokensPerExpert: readonly AnyTensor<"i64">[];
  readonly handle: Handle;
  readonly event: EventOverlap;
}

interface Saved {
  readonly group: Group;
  readonly handle: Handle;
}

const OWNERS = { dispatch: "HybridEPDispatch", combine: "HybridEPCombine" } as const;

export const HybridEPDispatch = {
  /**
   * Sends tokens to their experts' ranks and lays the rows out expert-major.
   * x: [tokens, hidden]; routingMap: [tokens, experts] bool; probs: [tokens, experts] fp32; one of each per local rank.
   * The buffer is made on first use from x's shape. Throws InvalidArgument before anything moves.
   */
  async forward(
    ctx: FunctionContext,
    x: readonly AnyTensor[],
    routingMap: readonly AnyTensor[],
    probs: readonly AnyTensor[] | null,
    group: Group,
    numLocalExperts: number,
    options: HybridEpDispatchOptions = {},
  ): Promise<HybridEpDispatchOutput> {
    const need = hybridEpNeed(group, x, numLocalExperts);
    const numExperts = numLocalExperts * group.numRanks;
    const sms = { ...HYBRIDEP_DEFAULTS, ...options };
    await hybridEpBufferFor(group, need, sms);
    const result = await group.dispatch({
      kind: "hybrid-ep",
      x,
      scales: options.scalingFactor ?? null,
      routing: { routingMap, probs },
      settings: {
        numExperts,
        expertAlignment: 1,
        numWorstTokens: 0,
        padMultiple: options.padMultiple ?? 1,
        numPermutedTokens: options.numPermutedTokens ?? null,
      },
      numSms: sms.numSmsDispatchApi ?? undefined,
    });
    rememberHybridEpRun(result.handle, { group, need, options: sms });
    ctx.save<Saved>(OWNERS.dispatch, { group, handle: result.handle });
    return {
      dispatchedHidden: result.x,
      dispatchedProbs: result.probs,
      dispatchedScalingFactor: result.scales,
      tokensPerExpert: result.tokensPerExpert ?? (await tokensPerExpert(result.handle)),
      handle: result.handle,
      event: result.event,
    };
  },

  /** Combine with unpermute of both gradients: hidden [tokens, hidden] and probs [tokens, experts] fp32. */
  async backward(
    ctx: FunctionContext,
    gradX: readonly AnyTensor[],
    gradProbs: readonly AnyTensor[] | null = null,
    _gradScalingFactor: null = null,
    _gradTokensPerExpert: null = null,
    _gradHandle: null = null,
  ) {
    const { group, handle } = ctx.restore<Saved>(OWNERS.dispatch);
    const { options } = await hybridEpBufferOf(handle);
    const probs = gradProbs && (await toFloat32(gradProbs));
    const numSms = options.numSmsCombineApi ?? undefined;
    const result = await group.combine({ handle, x: gradX, topkWeights: null, probs, bias: [], numSms });
    return {
      gradX: result.x,
      gradRoutingMap: null,
      gradProbs: result.probs,
      gradGroup: null,
      gradNumLocalExperts: null,
      gradNumSmsDispatchApi: null,
      gradNumSmsCombineApi: null,
      gradNumPermutedTokens: null,
      gradPadMultiple: null,
      gradNumBlocksPermute: null,
      gradNumBlocksUnpermute: null,
      gradFused: null,
      gradNumSmsPreprocessingApi: null,
    };
  },
} as const;

export const HybridEPCombine = {
  /**
   * Sums a token's permuted rows on each rank (ascending by expert, rounded to x's dtype), then over the ranks.
   * x: [P, hidden] bf16, fp16 or fp32. The group is the one whose dispatch made the handle; for a handle from a file, the
   * one of the hybrid-ep buffer, as upstream.
   */
  async forward(
    ctx: FunctionContext,
    x: readonly AnyTensor[],
    handle: Handle,
    options: Pick<HybridEpDispatchOptions, "numPermutedTokens" | "padMultiple" | "fused"> = {},
  ): Promise<{ combinedHidden: readonly AnyTensor[]; event: EventOverlap }> {
    await checkRows(handle, options);
    const { group, options: sms } = await hybridEpBufferOf(handle);
    const numSms = sms.numSmsCombineApi ?? undefined;
    const result = await group.combine({ handle, x, topkWeights: null, probs: null, bias: [], numSms });
    ctx.save<Saved>(OWNERS.combine, { group, handle });
    return { combinedHidden: result.x, event: result.event };
  },

  /** Dispatch with permute and the cached handle; padding rows are 0. */
  async backward(ctx: FunctionContext, gradX: readonly AnyTensor[]) {
    const { group, handle } = ctx.restore<Saved>(OWNERS.combine);
    const { options } = await hybridEpBufferOf(handle);
    const numSms = options.numSmsDispatchApi ?? undefined;
    const result = await group.dispatch({ kind: "hybrid-ep", x: gradX, scales: null, handle, numSms });
    return { gradX: result.x, gradHandle: null, gradNumPermutedTokens: null, gradPadMultiple: null, gradFused: null };
  },
} as const;

/** SMs of each stage when the caller names none (Megatron's defaults). */
export const HYBRIDEP_DEFAULTS: HybridEpOptions = {
  numSmsDispatchApi: 24,
  numSmsCombineApi: 24,
  numSmsPreprocessingApi: 108,
};

/** What a dispatch of `x` needs of the buffer. Throws InvalidArgument when x is no list of matrices. */
export function hybridEpNeed(group: Group, x: readonly AnyTensor[], numLocalExperts: number): HybridEpNeed {
  const [, hidden] = expectMatrices(group, x);
  const seqLen = x.reduce((most, value) => Math.max(most, value.shape[0]), 0);
  const bytes = elementBytes(x[0].dtype);
  // The size formula counts 2-byte columns: an fp32 row is as wide as a bf16 row of twice the columns.
  return { hiddenDim: (hidden * Math.max(bytes, 2)) / 2, seqLen, numLocalExperts, fp8Dispatch: bytes === 1 };
}

/** [L] padded counts of each local rank; with a fixed row budget they stay where they are until someone asks. */
export async function paddedCounts(handle: Handle, group: Group): Promise<AnyTensor<"i64">[]> {
  const { meta } = handle;
  if (handle.isOnHost || meta.numPermutedTokens === null) return tokensPerExpert(handle);
  return meta.localRanks.map((_, i) => ({
    dtype: "i64",
    shape: [meta.numExperts / meta.numRanks],
    backend: group.backend,
    download: async () => (await tokensPerExpert(handle))[i],
    free: () => {},
  }));
}

/** The settings given to combine are the handle's own, or absent: anything else would be silently wrong rows. */
export async function checkRows(
  handle: Handle,
  options: Pick<HybridEpDispatchOptions, "numPermutedTokens" | "padMultiple">,
): Promise<void> {
  const { padMultiple, numPermutedTokens: fixed } = handle.meta;
  const padGiven = Math.max(1, options.padMultiple ?? padMultiple);
  if (padGiven !== padMultiple) throw differs("padMultiple", `${padMultiple}`, `${padGiven}`);
  const given = options.numPermutedTokens ?? fixed;
  if (given === fixed) return;
  if (fixed !== null) throw differs("numPermutedTokens", `${fixed}`, `${given}`);
  // After an exact dispatch Megatron passes the size it learned, which differs from rank to rank.
  const { ranks } = await handle.data();
  if (ranks.some((rank) => rank.numRows === given)) return;
  throw differs("numPermutedTokens", ranks.map((rank) => rank.numRows).join(" or "), `${given}`);
}

function differs(name: string, expected: string, received: string): InvalidArgument {
  return new InvalidArgument({
    name,
    expected: `${expected} as the handle's dispatch`,
    received,
    remedy: "pass the value the dispatch was given, or none",
  });
}
