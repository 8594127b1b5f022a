/**
 * The order of combine's sums as lists of rows (design 2.4, 2.5):
 *   rank row = round(sum of a rank's permuted rows, ascending by expert), or its only row
 *   node row = round(sum of a node's rank rows), where there is more than one node, or its only row
 *   total    = round(bias0 + bias1 + node rows or rank rows)
 * A row alone is its own sum: passing it on unrounded changes nothing, as it has its dtype already and the total flushes
 * and canonicalises it.
 */
import type { HandleData, RankHandle } from "../../core/handle/handle.ts";
import type { GatheredRows } from "./gather.ts";

/** Segments with the same number of entries, short ones filled up with row 0. */
export interface SumLaunch {
  readonly numEntries: number;
  readonly numSegments: number;
  /** [numSegments, 1 + numEntries]: the row to write, then the rows to add. */
  readonly table: Uint32Array;
}

export interface SumTree {
  /** In order: all rank rows, all node rows, all totals. */
  readonly launches: readonly SumLaunch[];
  /** Rows [firstBias, + biases x tokens): bias b of token t at b * tokens + t. */
  readonly firstBias: number;
  /** Rows [firstTotal, + tokens): the result. */
  readonly firstTotal: number;
  readonly numRows: number;
}

/** From here on, one launch per number of entries saves more than it costs to compile. */
const MANY_SEGMENTS = 256;

export function sumTree(
  data: HandleData,
  rank: RankHandle,
  firstToken: number,
  chunk: GatheredRows,
  numBiases: number,
): SumTree {
  const { numRanks, ranksPerNode, kind } = data.meta;
  const width = rank.numEntries;
  const numTokens = chunk.rows.length / width;
  const firstBias = chunk.numRows;
  let nextRow = firstBias + numBiases * numTokens;
  // Per token the rows still to be summed, and the rank each belongs to.
  let lists = new Lists(numTokens, numBiases + width);
  for (let i = 0; i < chunk.rows.length; i++) {
    const owner = rank.sendRank[firstToken * width + i];
    if (chunk.rows[i] >= 0) lists.push(Math.floor(i / width), chunk.rows[i], owner);
  }
  const launches: SumLaunch[] = [];
  const stage = (ownersPerGroup: number) => {
    const segments = new Segments(numTokens * (2 * width + 2));
    const merged = new Lists(numTokens, numBiases + width);
    for (let token = 0; token < numTokens; token++) {
      lists.forEachGroup(token, ownersPerGroup, (rows, owner) => {
        if (rows.length > 1) {
          segments.start(nextRow);
          segments.add(rows);
        }
        merged.push(token, rows.length > 1 ? nextRow++ : rows[0], owner);
      });
    }
    launches.push(...segments.launches());
    lists = merged;
  };
  if (kind === "hybrid-ep") stage(1);
  if (ranksPerNode < numRanks) stage(ranksPerNode);
  const firstTotal = nextRow;
  const totals = new Segments(numTokens * (width + numBiases + 2));
  for (let token = 0; token < numTokens; token++) {
    totals.start(nextRow++);
    for (let b = 0; b < numBiases; b++) totals.add([firstBias + b * numTokens + token]);
    totals.add(lists.rowsOf(token));
  }
  launches.push(...totals.launches());
  return { launches, firstBias, firstTotal, numRows: nextRow };
}

/** One short list of (row, owner) per token. */
class Lists {
  readonly #width: number;
  readonly #counts: Int32Array;
  readonly #rows: Int32Array;
  readonly #owners: Int32Array;

  constructor(numTokens: number, width: number) {
    this.#width = width;
    this.#counts = new Int32Array(numTokens);
    this.#rows = new Int32Array(numTokens * width);
    this.#owners = new Int32Array(numTokens * width);
  }

  push(token: number, row: number, owner: number): void {
    const at = token * this.#width + this.#counts[token]++;
    this.#rows[at] = row;
    this.#owners[at] = owner;
  }

  rowsOf(token: number): Int32Array {
    const first = token * this.#width;
    return this.#rows.subarray(first, first + this.#counts[token]);
  }

  /** Neighbours whose owners fall into the same group of `ownersPerGroup`; owners of a token ascend. */
  forEachGroup(token: number, ownersPerGroup: number, visit: (rows: Int32Array, owner: number) => void): void {
    const first = token * this.#width;
    const end = first + this.#counts[token];
    const groupOf = (at: number) => Math.floor(this.#owners[at] / ownersPerGroup);
    for (let at = first; at < end; ) {
      let next = at + 1;
      while (next < end && groupOf(next) === groupOf(at)) next++;
      visit(this.#rows.subarray(at, next), this.#owners[at]);
      at = next;
    }
  }
}

/** Segments of one stage, one after another: [row to write, number of entries, entries]. */
class Segments {
  readonly #words: Int32Array;
  #end = 0;
  #start = 0;
  #count = 0;

  constructor(maxWords: number) {
    this.#words = new Int32Array(maxWords);
  }

  start(row: number): void {
    this.#start = this.#end;
    this.#words[this.#end] = row;
    this.#words[this.#end + 1] = 0;
    this.#end += 2;
    this.#count++;
  }

  add(rows: ArrayLike<number>): void {
    this.#words.set(rows, this.#end);
    this.#end += rows.length;
    this.#words[this.#start + 1] += rows.length;
  }

  /** Tables by number of entries: exact up to 8 when there are many segments, else the next size that has a kernel. */
  launches(): SumLaunch[] {
    const many = this.#count >= MANY_SEGMENTS;
    let most = 0;
    this.#forEach((_at, numEntries) => {
      most = Math.max(most, numEntries);
    });
    const sizeOf = (numEntries: number) =>
      many && numEntries <= 8 ? Math.max(1, numEntries) : roundedSize(many ? numEntries : most);
    const classes = new Map<number, number>();
    this.#forEach((_at, numEntries) => {
      const size = sizeOf(numEntries);
      classes.set(size, (classes.get(size) ?? 0) + 1);
    });
    const launches = new Map<number, SumLaunch & { filled: number }>();
    for (const [numEntries, numSegments] of classes) {
      const table = new Uint32Array(numSegments * (1 + numEntries));
      launches.set(numEntries, { numEntries, numSegments, table, filled: 0 });
    }
    this.#forEach((at, numEntries) => {
      const launch = launches.get(sizeOf(numEntries)) as SumLaunch & { filled: number };
      const { table } = launch;
      const to = launch.filled++ * (1 + launch.numEntries);
      table[to] = this.#words[at];
      for (let i = 0; i < numEntries; i++) table[to + 1 + i] = this.#words[at + 2 + i];
    });
    return [...launches.values()];
  }

  #forEach(visit: (at: number, numEntries: number) => void): void {
    for (let at = 0; at < this.#end; at += 2 + this.#words[at + 1]) visit(at, this.#words[at + 1]);
  }
}

/** 1, 2, 4, 8, and multiples of 8: few kernels to compile. */
function roundedSize(count: number): number {
  if (count > 8) return Math.ceil(count / 8) * 8;
  return 2 ** Math.ceil(Math.log2(Math.max(1, count)));
}
