/**
 * The backend interface. A backend makes groups; a group has `numRanks` ranks of which `localRanks` live in this process,
 * and performs the operations below for all of them at once. Every array argument and result has one entry per local
 * rank, in that order.
 *
 * Contracts every backend keeps (test/conformance runs them):
 * - The caller validated nothing: requests are checked by the group with core's `checkDispatch`/`checkCombine`
 *   (core/functions/validate.ts) before anything runs, so every backend reports the same errors.
 * - Results equal the oracle's bit for bit (design 2.1, 2.11).
 * - Operations of one group run in the order of the calls; a promise resolves when its outputs are complete, or, with
 *   `asyncFinish`, when they are enqueued: `event` then says when they are complete.
 * - A rejected operation leaves the group usable, unless the error is a BackendFailure that says otherwise.
 * - Inputs are not modified and may be reused once the promise (or event) is done.
 */

import type { EventOverlap } from "./event.ts";
import type { Handle, HandleKind } from "./handle/handle.ts";
import type { RankLayout } from "./layout/counts.ts";
import type { AnyTensor, Tensor } from "./tensor.ts";

export type BackendName = "oracle" | "wasm" | "webgpu" | "cuda" | "cuda-emulated";

export interface Backend {
  readonly name: BackendName;
  createGroup(options: GroupOptions): Promise<Group>;
  /** Frees devices and workers. Groups are closed first. */
  close(): Promise<void>;
}

export interface GroupOptions {
  /** Size of the group. */
  readonly numRanks: number;
  /** Ranks per NVLink domain; default numRanks (one node). Must divide numRanks. */
  readonly ranksPerNode?: number;
  /** Ranks that live in this process; default all. Ascending. */
  readonly localRanks?: readonly number[];
}

/** Routing in index form, or in multihot form (design section 1). */
export type RoutingInput =
  | { readonly topkIdx: readonly AnyTensor[]; readonly topkWeights: readonly AnyTensor[] | null }
  | { readonly routingMap: readonly AnyTensor[]; readonly probs: readonly AnyTensor[] | null };

/** Stream arguments (design 2.9); backends without streams honour the order and nothing else. */
export interface StreamOptions {
  readonly previousEvent?: EventOverlap | null;
  readonly asyncFinish?: boolean;
  readonly allocateOnCommStream?: boolean;
  /** Cap on SMs (or workers) of this operation; never changes a result. */
  readonly numSms?: number;
}

/**
 * Rows of a large output as they become ready, for callers that compare and throw away. `bytes` is only valid during the
 * call. Chunks of one (name, rank) ascend and cover every row once; ranks may interleave.
 */
export interface OutputChunk {
  /** "x" or "scales". */
  readonly name: string;
  readonly rank: number;
  readonly firstRow: number;
  readonly numRows: number;
  readonly bytes: Uint8Array;
}

export interface RowOutputs {
  /** Preallocated row outputs to fill and return, one per local rank, exact dtype and shape. */
  readonly out?: readonly Tensor[];
  /** Row outputs go here chunk by chunk instead of into a tensor; the result's `x` (and `scales`) are then empty arrays. */
  readonly consume?: (chunk: OutputChunk) => void;
  /** Called with 0..1 as the work proceeds. */
  readonly progress?: (fraction: number) => void;
}

export interface DispatchSettings {
  readonly numExperts: number;
  readonly expertAlignment: number;
  readonly numWorstTokens: number;
  readonly padMultiple: number;
  readonly numPermutedTokens: number | null;
}

/** Either `routing` + `settings` (a new handle is made) or `handle` (cached: the same movement for new data). */
export interface DispatchRequest extends StreamOptions, RowOutputs {
  readonly kind: HandleKind;
  /** [tokens, hidden] bf16, fp16, fp32, fp8e4m3 or u8. */
  readonly x: readonly AnyTensor[];
  /** [tokens, columns] fp32 that move with their rows; null without. */
  readonly scales: readonly AnyTensor[] | null;
  readonly routing?: RoutingInput;
  readonly settings?: DispatchSettings;
  readonly handle?: Handle;
}

export interface DispatchResult {
  /** [rows, hidden]; padding and tail rows are zero. */
  readonly x: readonly AnyTensor[];
  readonly scales: readonly AnyTensor[] | null;
  /** Fused with routing: [rows, topk] local expert ids in the routing's id dtype, -1 elsewhere and in the tail. */
  readonly topkIdx: readonly AnyTensor[] | null;
  /** Fused with weights: [rows, topk] fp32, 0 for slots of other ranks and the tail. */
  readonly topkWeights: readonly AnyTensor[] | null;
  /** Hybrid-ep with weights: [rows] fp32, 0 on padding. */
  readonly probs: readonly AnyTensor[] | null;
  readonly handle: Handle;
  /** [L] i64 per rank, in the backend's own memory, so that a fixed row budget needs no host synchronisation; absent: see the handle. */
  readonly tokensPerExpert?: readonly AnyTensor<"i64">[];
  readonly event: EventOverlap;
  readonly phases: readonly Phase[];
}

export interface CombineRequest extends StreamOptions, RowOutputs {
  readonly handle: Handle;
  /** [rows, hidden] bf16, fp16 or fp32: one row per row of the handle. */
  readonly x: readonly AnyTensor[];
  /** Fused: [rows, k] fp32, summed over the destinations of each token. */
  readonly topkWeights: readonly AnyTensor[] | null;
  /** Hybrid-ep: [rows] fp32, scattered back to [tokens, experts]. */
  readonly probs: readonly AnyTensor[] | null;
  /** 0, 1 or 2 biases, each [tokens, hidden] of x's dtype per local rank (fused). */
  readonly bias: readonly (readonly AnyTensor[])[];
}

export interface CombineResult {
  /** [tokens, hidden] of x's dtype. */
  readonly x: readonly AnyTensor[];
  /** [tokens, k] fp32, or null when none were given. */
  readonly topkWeights: readonly AnyTensor[] | null;
  /** [tokens, experts] fp32, or null when none were given. */
  readonly probs: readonly AnyTensor[] | null;
  readonly event: EventOverlap;
  readonly phases: readonly Phase[];
}

/** One measured or modelled stretch of time of one rank; rank -1 = all ranks together. */
export interface Phase {
  readonly rank: number;
  readonly name: string;
  readonly startUs: number;
  readonly durationUs: number;
  /** Waiting for others, as opposed to moving data. */
  readonly waiting?: boolean;
  /** The rank whose arrival or data is awaited; absent: none in particular. */
  readonly srcRank?: number;
}

export interface Group {
  readonly backend: BackendName;
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly localRanks: readonly number[];
  /** Counts of each local rank's routing (DeepEP's get_dispatch_layout). */
  layout(routing: RoutingInput, numExperts: number): Promise<readonly RankLayout[]>;
  dispatch(request: DispatchRequest): Promise<DispatchResult>;
  combine(request: CombineRequest): Promise<CombineResult>;
  /** [rows, H] bf16, fp16 or fp32 -> fp8e4m3 [rows, H] and fp32 scales [rows, ceil(H/128)] (design section 6, cast-to-fp8). */
  castToFp8(x: readonly AnyTensor[]): Promise<{ x: readonly AnyTensor[]; scales: readonly AnyTensor[] }>;
  /** fp8e4m3 [rows, H] x fp32 scales [rows, ceil(H/128)] -> bf16 [rows, H]. */
  castBack(x: readonly AnyTensor[], scales: readonly AnyTensor[]): Promise<readonly AnyTensor[]>;
  /** x[row, :] * factor[row], product rule of design 2.11, rounded to x's dtype: the stand-in expert of `run`. */
  scaleRows(
    x: readonly AnyTensor[],
    factors: readonly AnyTensor[],
    options?: RowOutputs,
  ): Promise<readonly AnyTensor[]>;
  /** Caps the SMs (or workers) of later operations (Megatron's set_deepep_num_sms). */
  setNumSms(numSms: number): void;
  /** Reserves `bytes` of communication memory per local rank; the Buffer classes of core/functions call it. */
  allocateBuffer(bytes: number): Promise<BufferMemory>;
  close(): Promise<void>;
}

export interface BufferMemory {
  /** Exactly the bytes asked for, per local rank. */
  readonly bytes: number;
  free(): void;
}
