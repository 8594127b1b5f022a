/** HybridEPBuffer over a group: dispatch and combine with and without permute (design 2.5, and 2.3 for the dense form). */
import type { Group, RoutingInput } from "../backend.ts";
import { InvalidArgument } from "../errors.ts";
import type { EventOverlap } from "../event.ts";
import type { Handle } from "../handle/handle.ts";
import { toMultihotForm } from "../layout/multihot.ts";
import { numLocalExperts } from "../layout/routing.ts";
import { type AnyTensor, type Tensor, tensor, toHost } from "../tensor.ts";
import {
  type HybridEpNeed,
  type HybridEpOptions,
  hybridEpBufferFor,
  hybridEpBufferOf,
  initHybridEpBuffer,
  rememberHybridEpRun,
} from "./buffers.ts";
import { checkRows, HYBRIDEP_DEFAULTS, hybridEpNeed, paddedCounts } from "./hybridEp.ts";

/** Routing in index form or in multihot form, or a cached handle; exactly one of the three. */
interface HybridEpRouting {
  /** [tokens, topk] i64 or i32. */
  readonly topkIdx?: readonly AnyTensor[] | null;
  /** [tokens, topk] fp32. */
  readonly topkWeights?: readonly AnyTensor[] | null;
  /** [tokens, experts] bool. */
  readonly routingMap?: readonly AnyTensor[] | null;
  /** [tokens, experts] fp32. */
  readonly probs?: readonly AnyTensor[] | null;
  readonly handle?: Handle | null;
}

export interface HybridEpDispatchArguments extends HybridEpRouting {
  /** [tokens, hidden] bf16, fp16, fp32, fp8e4m3 or u8, one per local rank. */
  readonly hidden: readonly AnyTensor[];
  /** [tokens, columns] fp32 that move with their rows. */
  readonly scalingFactor?: readonly AnyTensor[] | null;
  /** Local experts; with routing only. */
  readonly numLocalExperts?: number;
}

export interface DispatchWithPermuteArguments extends HybridEpDispatchArguments {
  readonly numPermutedTokens?: number | null;
  readonly padMultiple?: number | null;
  /** Never synchronise with the host: needs numPermutedTokens. Default: whether that is given. */
  readonly nonBlocking?: boolean;
  /** One kernel for move and permute; never changes a result. */
  readonly fusePermuteDispatch?: boolean;
}

export interface DispatchWithPermuteOutput {
  /** [P, hidden], expert-major. */
  readonly hidden: readonly AnyTensor[];
  /** [P] fp32, or null without weights. */
  readonly probs: readonly AnyTensor[] | null;
  /** [P, columns] fp32, or null. */
  readonly scalingFactor: readonly AnyTensor[] | null;
  /** [L] i64 padded counts. */
  readonly tokensPerExpert: readonly AnyTensor<"i64">[];
  /** Carries the overflow of each rank: `(await handle.data()).ranks[i].overflow`. */
  readonly handle: Handle;
  readonly event: EventOverlap;
}

export interface CombineWithUnpermuteArguments {
  /** [P, hidden] bf16, fp16 or fp32. */
  readonly hidden: readonly AnyTensor[];
  /** [P] fp32. */
  readonly probs?: readonly AnyTensor[] | null;
  readonly handle: Handle;
  readonly padMultiple?: number | null;
  readonly numPermutedTokens?: number | null;
  readonly fuseUnpermuteCombine?: boolean;
}

export interface DenseDispatchOutput {
  /** [N, hidden]: one row per (token, destination rank), by (source rank, source token). */
  readonly hidden: readonly AnyTensor[];
  /** [N, experts] fp32: the whole probs row of each token; null when none were given. */
  readonly probs: readonly AnyTensor[] | null;
  readonly scalingFactor: readonly AnyTensor[] | null;
  /** [N, L] bool: which local experts each row is for; null for a cached dispatch. */
  readonly localExpertRoutingMap: readonly Tensor<"bool">[] | null;
  readonly handle: Handle;
  readonly event: EventOverlap;
}

export interface HybridEpCombineOutput {
  /** [tokens, hidden] of the rows' dtype. */
  readonly hidden: readonly AnyTensor[];
  /** [tokens, experts] fp32, or null. */
  readonly probs: readonly AnyTensor[] | null;
  readonly event: EventOverlap;
}

/** Memory comes from the one hybrid-ep buffer (design 2.8): made on first use or ahead by `allocate`. */
export class HybridEPBuffer {
  readonly group: Group;
  readonly options: HybridEpOptions;

  constructor(group: Group, options: HybridEpOptions = {}) {
    this.group = group;
    this.options = { ...HYBRIDEP_DEFAULTS, ...options };
  }

  /** Allocates for `seqLen` tokens per rank ahead of the first run (initHybridEpBuffer). */
  async allocate({ hiddenDim, seqLen, numLocalExperts: local, fp8Dispatch }: HybridEpNeed): Promise<void> {
    const { numSmsDispatchApi, numSmsCombineApi, ...more } = this.options;
    const sms = [numSmsDispatchApi ?? null, numSmsCombineApi ?? null] as const;
    await initHybridEpBuffer(this.group, hiddenDim, seqLen, local, ...sms, fp8Dispatch, more);
  }

  /** Rows to their experts' ranks, expert-major, each block padded to padMultiple (design 2.5). */
  async dispatchWithPermute(args: DispatchWithPermuteArguments): Promise<DispatchWithPermuteOutput> {
    const { hidden: x, numPermutedTokens = null, padMultiple = null, nonBlocking = false } = args;
    if (nonBlocking && numPermutedTokens === null && !args.handle) {
      throw wrong("numPermutedTokens", "a row budget with nonBlocking", "none", "give one, or let it block");
    }
    const extra = args.handle && (args.probs ? "probs" : args.topkWeights ? "topkWeights" : null);
    if (extra) throw wrong(extra, "none beside a cached handle", "one", "drop it, or drop the handle");
    const { need, source } = await this.#prepare(args);
    const shared = { kind: "hybrid-ep", x, scales: args.scalingFactor ?? null, numSms: this.#dispatchSms() } as const;
    const padding = { padMultiple: padMultiple ?? 1, numPermutedTokens };
    if (source.handle) await checkRows(source.handle, args);
    const result = await this.group.dispatch(
      source.handle
        ? { ...shared, handle: source.handle }
        : { ...shared, routing: source.routing, settings: { ...this.#settings(need), ...padding } },
    );
    if (!source.handle) rememberHybridEpRun(result.handle, { group: this.group, need, options: this.options });
    return {
      hidden: result.x,
      probs: result.probs,
      scalingFactor: result.scales,
      tokensPerExpert: await paddedCounts(result.handle, this.group),
      handle: result.handle,
      event: result.event,
    };
  }

  /** Sums permuted rows back to their tokens; probs are scattered to [tokens, experts]. */
  async combineWithUnpermute(args: CombineWithUnpermuteArguments): Promise<HybridEpCombineOutput> {
    const { hidden: x, probs = null, handle } = args;
    await checkRows(handle, args);
    await hybridEpBufferOf(handle);
    const numSms = this.options.numSmsCombineApi ?? undefined;
    const result = await this.group.combine({ handle, x, topkWeights: null, probs, bias: [], numSms });
    return { hidden: result.x, probs: result.probs, event: result.event };
  }

  /** Without permute: each (token, destination rank) sends its row, and its whole row of probs, once. */
  async dispatch(args: HybridEpDispatchArguments): Promise<DenseDispatchOutput> {
    const { need, source } = await this.#prepare(args);
    const { group } = this;
    const numSms = this.#dispatchSms();
    const shared = { kind: "fused", x: args.hidden, scales: args.scalingFactor ?? null, numSms } as const;
    const result = await group.dispatch(
      source.handle
        ? { ...shared, handle: source.handle }
        : { ...shared, routing: source.routing, settings: this.#settings(need) },
    );
    if (!source.handle) rememberHybridEpRun(result.handle, { group, need, options: this.options });
    // After the dispatch, so that its checks name what is wrong with the routing.
    const dense = source.handle
      ? { routingMap: null, probs: args.probs ?? null }
      : await this.#dense(source.routing, need);
    const again = (x: readonly AnyTensor[]) =>
      group.dispatch({ kind: "fused", x, scales: null, handle: result.handle, numSms });
    const maps = dense.routingMap && (await Promise.all((await again(dense.routingMap)).x.map((map) => toHost(map))));
    return {
      hidden: result.x,
      probs: dense.probs && (await again(dense.probs)).x,
      scalingFactor: result.scales,
      localExpertRoutingMap:
        maps?.map((map, i) => localColumns(map, group.localRanks[i], need.numLocalExperts)) ?? null,
      handle: result.handle,
      event: result.event,
    };
  }

  /** Without permute: sums the rows, and the rows of probs, of each token over its destination ranks (design 2.4). */
  async combine(
    args: Pick<CombineWithUnpermuteArguments, "hidden" | "probs" | "handle">,
  ): Promise<HybridEpCombineOutput> {
    const { hidden: x, handle, probs = null } = args;
    await hybridEpBufferOf(handle);
    const numSms = this.options.numSmsCombineApi ?? undefined;
    const result = await this.group.combine({ handle, x, topkWeights: probs, probs: null, bias: [], numSms });
    return { hidden: result.x, probs: result.topkWeights, event: result.event };
  }

  #dispatchSms(): number | undefined {
    return this.options.numSmsDispatchApi ?? undefined;
  }

  #settings(need: HybridEpNeed) {
    const numExperts = need.numLocalExperts * this.group.numRanks;
    return { numExperts, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null };
  }

  /** Buffer and routing of a dispatch. Throws InvalidArgument unless exactly one source of routing is given. */
  async #prepare(args: HybridEpDispatchArguments): Promise<{ need: HybridEpNeed; source: Source }> {
    const source = sourceOf(args);
    const local = source.handle ? numLocalExperts(source.handle.meta) : args.numLocalExperts;
    if (local === undefined) {
      throw wrong("numLocalExperts", "the local experts of a rank", "none", "pass it beside the routing");
    }
    const need = hybridEpNeed(this.group, args.hidden, local);
    await hybridEpBufferFor(this.group, need, this.options);
    return { need, source };
  }

  /** The multihot form that moves with the rows, as byte and float32 rows. */
  async #dense(
    routing: RoutingInput,
    need: HybridEpNeed,
  ): Promise<{ routingMap: readonly AnyTensor[]; probs: readonly AnyTensor[] | null }> {
    const numExperts = need.numLocalExperts * this.group.numRanks;
    if ("routingMap" in routing) {
      const maps = await Promise.all(routing.routingMap.map((map) => toHost(map)));
      return { routingMap: maps.map((map) => ({ ...map, dtype: "u8" }) as Tensor<"u8">), probs: routing.probs };
    }
    const ids = await Promise.all(routing.topkIdx.map((value) => toHost(value)));
    const weights = routing.topkWeights && (await Promise.all(routing.topkWeights.map((value) => toHost(value))));
    const forms = ids.map((value, i) => toMultihotForm(value, weights?.[i] ?? null, numExperts));
    const maps = forms.map(({ routingMap }) => tensor("u8", routingMap.shape, routingMap.data));
    return { routingMap: maps, probs: weights && forms.map(({ probs }) => probs) };
  }
}

type Source = { readonly handle: Handle } | { readonly handle: null; readonly routing: RoutingInput };

function sourceOf({ topkIdx, topkWeights, routingMap, probs, handle }: HybridEpRouting): Source {
  const given = [topkIdx && "topkIdx", routingMap && "routingMap", handle && "handle"].filter(Boolean);
  if (given.length !== 1) {
    const received = given.length === 0 ? "none" : given.join(" and ");
    throw wrong("routing", "one of topkIdx, routingMap, handle", received, "pass exactly one of them");
  }
  if (topkIdx) return { handle: null, routing: { topkIdx, topkWeights: topkWeights ?? null } };
  if (routingMap) return { handle: null, routing: { routingMap, probs: probs ?? null } };
  return { handle: handle as Handle };
}

/** Columns of this rank's experts, as 0 and 1. */
function localColumns(map: Tensor, rank: number, local: number): Tensor<"bool"> {
  const [rows, numExperts] = map.shape;
  const result = tensor("bool", [rows, local]);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < local; i++) {
      result.data[row * local + i] = map.data[row * numExperts + rank * local + i] ? 1 : 0;
    }
  }
  return result;
}

function wrong(name: string, expected: string, received: string, remedy: string): InvalidArgument {
  return new InvalidArgument({ name, expected, received, remedy });
}
