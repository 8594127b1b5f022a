/** DeepEP's Buffer over a group: what FusedDispatch and FusedCombine stand on, with every argument of its own. */
import type { Group, StreamOptions } from "../backend.ts";
import { InvalidArgument } from "../errors.ts";
import { EventOverlap } from "../event.ts";
import type { Handle } from "../handle/handle.ts";
import { type AnyTensor, type Tensor, tensor } from "../tensor.ts";
import { type BufferConfig, configBytes, getCombineConfig, getDispatchConfig } from "./bufferSize.ts";
import { getHiddenBytes, getNumSms, setNumSms } from "./buffers.ts";
import { ensureBuffer, tokensPerExpert } from "./fused.ts";

/** What getDispatchLayout returns; arrays have one entry per local rank (design 2.2). */
export interface DispatchLayout {
  /** [numRanks] i32: tokens with at least one slot on that rank. */
  readonly numTokensPerRank: readonly Tensor<"i32">[];
  /** [numNodes] i32, or null when there is one node (DeepEP's num_tokens_per_rdma_rank). */
  readonly numTokensPerNode: readonly Tensor<"i32">[] | null;
  /** [numExperts] i32: slots per expert. */
  readonly numTokensPerExpert: readonly Tensor<"i32">[];
  /** [tokens, numRanks] bool; made when asked for, because it is dense. */
  readonly isTokenInRank: () => readonly Tensor<"bool">[];
  /** The routing it was counted from. */
  readonly topkIdx: readonly AnyTensor[];
  readonly numExperts: number;
  readonly event: EventOverlap;
}

type Stream = Omit<StreamOptions, "numSms">;

export interface LayoutArguments extends Stream {
  /** [tokens, topk] i64 or i32 global expert ids, -1 = no choice. */
  readonly topkIdx: readonly AnyTensor[];
  readonly numExperts: number;
}

export interface BufferDispatchArguments extends Stream {
  /** [tokens, hidden] bf16, fp16, fp32, fp8e4m3 or u8. */
  readonly x: readonly AnyTensor[];
  /** [tokens, ceil(hidden/128)] fp32 that move with fp8 rows. */
  readonly scales?: readonly AnyTensor[] | null;
  /** Repeats the movement of an earlier dispatch; then no routing is given. */
  readonly handle?: Handle | null;
  /** Names the routing and the experts; or give topkIdx and numExperts. */
  readonly layout?: DispatchLayout | null;
  readonly topkIdx?: readonly AnyTensor[] | null;
  readonly numExperts?: number;
  /** [tokens, topk] fp32. */
  readonly topkWeights?: readonly AnyTensor[] | null;
  /** Rounds the counts per local expert up. Default 1. */
  readonly expertAlignment?: number;
  /** Fixed number of recv rows; 0 = exact. Default 0. */
  readonly numWorstTokens?: number;
  readonly config?: BufferConfig;
}

export interface BufferDispatchOutput {
  readonly recvX: readonly AnyTensor[];
  readonly recvXScales: readonly AnyTensor[] | null;
  /** Null for a cached dispatch. */
  readonly recvTopkIdx: readonly AnyTensor[] | null;
  readonly recvTopkWeights: readonly AnyTensor[] | null;
  /** [L] i64 rounded counts; empty with numWorstTokens, null for a cached dispatch. */
  readonly tokensPerExpert: readonly Tensor<"i64">[] | null;
  readonly handle: Handle;
  readonly event: EventOverlap;
}

export interface BufferCombineArguments extends Stream {
  /** [N, hidden] bf16, fp16 or fp32: one row per recv row. */
  readonly x: readonly AnyTensor[];
  readonly handle: Handle;
  /** [N, topk] fp32, summed like the rows. */
  readonly topkWeights?: readonly AnyTensor[] | null;
  /** 0, 1 or 2 biases, each [tokens, hidden] of x's dtype per local rank. */
  readonly bias?: readonly (readonly AnyTensor[])[];
  readonly config?: BufferConfig;
}

export interface BufferCombineOutput {
  readonly combinedX: readonly AnyTensor[];
  readonly combinedTopkWeights: readonly AnyTensor[] | null;
  readonly event: EventOverlap;
}

/** Memory comes from getBuffer (design 2.8): made on first use and grown when a run needs more. */
export class Buffer {
  readonly group: Group;
  #last: Promise<unknown> = Promise.resolve();

  constructor(group: Group) {
    this.group = group;
  }

  /** SMs of later operations (set_num_sms). Throws InvalidArgument below 1. */
  static setNumSms(numSms: number): void {
    setNumSms(numSms);
  }

  /** Tokens in flight of a dispatch in a group of `numRanks` (get_dispatch_config). */
  static getDispatchConfig(numRanks: number): BufferConfig {
    return getDispatchConfig(numRanks, getNumSms());
  }

  static getCombineConfig(numRanks: number): BufferConfig {
    return getCombineConfig(numRanks, getNumSms());
  }

  /** An event after everything this buffer was asked to do so far: pass it as previousEvent. */
  capture(): EventOverlap {
    return new EventOverlap(this.#last.then(() => {}));
  }

  /** Counts of the routing before any data moves. */
  getDispatchLayout(args: LayoutArguments): Promise<DispatchLayout> {
    return this.#track(this.#layout(args));
  }

  /** Sends each token's row once to every rank that holds one of its experts (design 2.3). */
  dispatch(args: BufferDispatchArguments): Promise<BufferDispatchOutput> {
    return this.#track(this.#dispatch(args));
  }

  /** Sums the rows of each token over its destination ranks, after the biases (design 2.4). */
  combine(args: BufferCombineArguments): Promise<BufferCombineOutput> {
    return this.#track(this.#combine(args));
  }

  async #layout({ topkIdx, numExperts, previousEvent }: LayoutArguments): Promise<DispatchLayout> {
    await previousEvent?.currentStreamWait();
    const layouts = await this.group.layout({ topkIdx, topkWeights: null }, numExperts);
    const { numRanks } = this.group;
    const counts = (values: Int32Array) => tensor("i32", [values.length], values);
    const perNode = layouts.flatMap((layout) => (layout.numTokensPerNode ? [counts(layout.numTokensPerNode)] : []));
    return {
      numTokensPerRank: layouts.map((layout) => counts(layout.numTokensPerRank)),
      numTokensPerNode: perNode.length > 0 ? perNode : null,
      numTokensPerExpert: layouts.map((layout) => counts(layout.numTokensPerExpert)),
      isTokenInRank: () => layouts.map((one) => tensor("bool", [one.numTokens, numRanks], one.isTokenInRank())),
      topkIdx,
      numExperts,
      event: new EventOverlap(),
    };
  }

  async #dispatch(args: BufferDispatchArguments): Promise<BufferDispatchOutput> {
    const { x, topkWeights = null, expertAlignment = 1, numWorstTokens = 0 } = args;
    const routing = routingOf(args);
    await this.#prepare(x, args.config);
    const scales = args.scales ?? null;
    const shared = { kind: "fused", x, scales, ...streamOf(args), numSms: args.config?.numSms } as const;
    if (routing === null) {
      const result = await this.group.dispatch({ ...shared, handle: args.handle ?? undefined });
      const none = { recvTopkIdx: null, recvTopkWeights: null, tokensPerExpert: null };
      return { recvX: result.x, recvXScales: result.scales, ...none, handle: result.handle, event: result.event };
    }
    const { topkIdx, numExperts } = routing;
    const settings = { numExperts, expertAlignment, numWorstTokens, padMultiple: 1, numPermutedTokens: null };
    const result = await this.group.dispatch({ ...shared, routing: { topkIdx, topkWeights }, settings });
    return {
      recvX: result.x,
      recvXScales: result.scales,
      recvTopkIdx: result.topkIdx,
      recvTopkWeights: result.topkWeights,
      tokensPerExpert: numWorstTokens > 0 ? x.map(() => tensor("i64", [0])) : await tokensPerExpert(result.handle),
      handle: result.handle,
      event: result.event,
    };
  }

  async #combine(args: BufferCombineArguments): Promise<BufferCombineOutput> {
    const { x, handle, topkWeights = null, bias = [], config } = args;
    await this.#prepare(x, config);
    const request = { handle, x, topkWeights, probs: null, bias, ...streamOf(args), numSms: config?.numSms };
    const result = await this.group.combine(request);
    return { combinedX: result.x, combinedTopkWeights: result.topkWeights, event: result.event };
  }

  async #prepare(x: readonly AnyTensor[], config: BufferConfig | undefined): Promise<void> {
    const buffer = await ensureBuffer(this.group, x);
    if (config === undefined) return;
    const needed = configBytes(config, this.group, getHiddenBytes(x[0]));
    const fits = needed.numNvlBytes <= buffer.numNvlBytes && needed.numRdmaBytes <= buffer.numRdmaBytes;
    if (fits && Number.isSafeInteger(config.numSms) && config.numSms >= 1) return;
    throw new InvalidArgument({
      name: "config",
      expected: `at least 1 SM and at most ${buffer.numNvlBytes} + ${buffer.numRdmaBytes} bytes (NVLink + network)`,
      received: `${config.numSms} SMs, ${needed.numNvlBytes} + ${needed.numRdmaBytes} bytes`,
      remedy: "lower numChunkTokens",
    });
  }

  #track<T extends { readonly event: EventOverlap }>(work: Promise<T>): Promise<T> {
    this.#last = Promise.allSettled([this.#last, work.then(({ event }) => event.currentStreamWait())]);
    return work;
  }
}

/** The routing of a new dispatch, or null for a cached one. Throws InvalidArgument when neither or both are given. */
function routingOf(args: BufferDispatchArguments): { topkIdx: readonly AnyTensor[]; numExperts: number } | null {
  const { layout, handle } = args;
  const topkIdx = args.topkIdx ?? layout?.topkIdx;
  const numExperts = args.numExperts ?? layout?.numExperts;
  if (handle) {
    const extra = (["layout", "topkIdx", "topkWeights", "numExperts"] as const).find((name) => args[name] != null);
    for (const name of ["expertAlignment", "numWorstTokens"] as const) {
      const own = handle.meta[name];
      if (args[name] === undefined || args[name] === own) continue;
      throw wrong(name, `${own} as the handle's dispatch`, `${args[name]}`, "pass that value, or none");
    }
    if (extra === undefined) return null;
    throw wrong(extra, "none beside a cached handle", "one", "drop it, or drop the handle");
  }
  if (topkIdx === undefined || numExperts === undefined) {
    throw wrong("layout", "a layout, topkIdx and numExperts, or a handle", "none", "call getDispatchLayout first");
  }
  const same = !layout || (topkIdx === layout.topkIdx && numExperts === layout.numExperts);
  if (same) return { topkIdx, numExperts };
  throw wrong("layout", "the layout of this topkIdx and numExperts", "another one", "pass one of the two");
}

function wrong(name: string, expected: string, received: string, remedy: string): InvalidArgument {
  return new InvalidArgument({ name, expected, received, remedy });
}

function streamOf({ previousEvent, asyncFinish, allocateOnCommStream }: Stream): Stream {
  return {
    previousEvent: previousEvent ?? null,
    asyncFinish: asyncFinish ?? false,
    allocateOnCommStream: allocateOnCommStream ?? false,
  };
}
