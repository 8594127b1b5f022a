/**
 * The handle: what dispatch learned and combine needs. Pure data, backend-neutral, serialisable (encode.ts).
 *
 * One representation serves both styles. Per source token a list of entries, ascending by destination rank:
 *   fused      one entry per (token, destination rank); row = recv row
 *   hybrid-ep  one entry per (token, expert), ascending by expert; row = permuted row
 * Dispatch copies the token's row to every entry. Combine walks the entries in order: consecutive entries of one rank
 * are summed first (one row crosses the link), then the ranks of a node, then the nodes (design 2.4, 2.5).
 */
export type HandleKind = "fused" | "hybrid-ep";

/** Settings and sizes, known without touching the arrays. */
export interface HandleMeta {
  readonly kind: HandleKind;
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly numExperts: number;
  /** Slots per token of the routing (hybrid-ep: columns of the index form). */
  readonly topk: number;
  /** Ranks whose arrays this handle holds, ascending. */
  readonly localRanks: readonly number[];
  /** Rounds the fused per-expert counts; 1 = none. */
  readonly expertAlignment: number;
  /** Fixed number of recv rows (fused); 0 = exact. */
  readonly numWorstTokens: number;
  /** Pads each expert's block (hybrid-ep); 1 = none. */
  readonly padMultiple: number;
  /** Fixed number of permuted rows (hybrid-ep); null = exact. */
  readonly numPermutedTokens: number | null;
}

/** What one rank knows, as a source and as a destination. W = entries per token: min(topk, R) fused, topk hybrid-ep. */
export interface RankHandle {
  readonly rank: number;
  readonly numTokens: number;
  readonly numEntries: number;
  /** [numTokens, W] destination rank of each entry, ascending; -1 fills the end. */
  readonly sendRank: Int32Array;
  /** [numTokens, W] row on that destination; -1 fills the end. */
  readonly sendRow: Int32Array;
  /** [numTokens, W] global expert of each entry (hybrid-ep), else null. */
  readonly sendExpert: Int32Array | null;
  /** [numTokens, W] slot of the routing that each entry came from (hybrid-ep), else null. */
  readonly sendSlot: Int32Array | null;
  /** Rows of this rank's output as a destination: recv rows or permuted rows, padding and tail included. */
  readonly numRows: number;
  /** [numRows] source rank of each row; -1 = padding or tail. */
  readonly rowSrcRank: Int32Array;
  /** [numRows] token on that source rank; -1 = padding or tail. */
  readonly rowSrcToken: Int32Array;
  /** [L] rows per local expert: fused received slots rounded to expertAlignment (empty with numWorstTokens); hybrid-ep padded counts. */
  readonly tokensPerExpert: Int32Array;
  /** [L] the same before rounding or padding, after trimming. */
  readonly numTokensPerExpert: Int32Array;
  /** What did not fit into this destination's row budget. */
  readonly overflow: Overflow;
}

/** Design 2.7. `cut` lists [numCut, 4]: source rank, token, slot, global expert. */
export interface Overflow {
  readonly flag: boolean;
  readonly numCut: number;
  readonly cut: Int32Array;
}

export interface HandleData {
  readonly meta: HandleMeta;
  /** One entry per local rank, in the order of meta.localRanks. */
  readonly ranks: readonly RankHandle[];
}

/**
 * A handle as the functions pass it around. A backend may keep the arrays in its own memory and bring them to the host
 * only when `data()` is called; `native` is that backend's own business and keeps alive what the handle needs (design 2.9).
 */
export class Handle {
  readonly meta: HandleMeta;
  readonly native: unknown;
  #source: HandleData | (() => Promise<HandleData>);
  #loading: Promise<HandleData> | null = null;
  readonly #counts: (() => Promise<readonly Int32Array[]>) | null;

  /** `counts` brings tokensPerExpert alone to the host, for backends where all of `source` is much more. */
  constructor(
    meta: HandleMeta,
    source: HandleData | (() => Promise<HandleData>),
    native: unknown = null,
    counts: (() => Promise<readonly Int32Array[]>) | null = null,
  ) {
    this.meta = meta;
    this.native = native;
    this.#source = source;
    this.#counts = counts;
  }

  static of(data: HandleData, native: unknown = null): Handle {
    return new Handle(data.meta, data, native);
  }

  /** Whether `data()` is at hand, without a copy from a device. */
  get isOnHost(): boolean {
    return typeof this.#source !== "function";
  }

  /** RankHandle.tokensPerExpert of each local rank, without the other arrays where that is less. */
  async tokensPerExpert(): Promise<readonly Int32Array[]> {
    if (!this.isOnHost && this.#counts !== null) return this.#counts();
    return (await this.data()).ranks.map((rank) => rank.tokensPerExpert);
  }

  /** The arrays, brought to the host once however many ask at the same time. */
  async data(): Promise<HandleData> {
    if (typeof this.#source !== "function") return this.#source;
    this.#loading ??= this.#source().finally(() => {
      this.#loading = null;
    });
    this.#source = await this.#loading;
    return this.#source;
  }
}

export const NO_OVERFLOW: Overflow = { flag: false, numCut: 0, cut: new Int32Array(0) };
