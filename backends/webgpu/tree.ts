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
    const segments: number[][] = [];
    const merged = new Lists(numTokens, numBiases + width);
    for (let token = 0; token < numTokens; token++) {
      lists.forEachGroup(token, ownersPerGroup, (rows, owner) => {
        if (rows.length > 1) segments.push([nextRow, ...rows]);
        merged.push(token, rows.length > 1 ? nextRow++ : rows[0], owner);
      });
    }
    launches.push(...launchesOf(segments));
    lists = merged;
  };
  if (kind === "hybrid-ep") stage(1);
  if (ranksPerNode < numRanks) stage(ranksPerNode);
  const firstTotal = nextRow;
  const totals: number[][] = [];
  for (let token = 0; token < numTokens; token++) {
    const total = [nextRow++];
    for (let b = 0; b < numBiases; b++) total.push(firstBias + b * numTokens + token);
    totals.push(total.concat(lists.rowsOf(token)));
  }
  launches.push(...launchesOf(totals));
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

  rowsOf(token: number): number[] {
    const first = token * this.#width;
    return Array.from(this.#rows.subarray(first, first + this.#counts[token]));
  }

  /** Neighbours whose owners fall into the same group of `ownersPerGroup`; owners of a token ascend. */
  forEachGroup(token: number, ownersPerGroup: number, visit: (rows: number[], owner: number) => void): void {
    const first = token * this.#width;
    const end = first + this.#counts[token];
    const groupOf = (at: number) => Math.floor(this.#owners[at] / ownersPerGroup);
    for (let at = first; at < end; ) {
      let next = at + 1;
      while (next < end && groupOf(next) === groupOf(at)) next++;
      visit(Array.from(this.#rows.subarray(at, next)), this.#owners[at]);
      at = next;
    }
  }
}

/** Tables by number of entries: exact up to 8 when there are many segments, else the next size that has a kernel. */
function launchesOf(segments: readonly number[][]): SumLaunch[] {
  const most = segments.reduce((longest, { length }) => Math.max(longest, length - 1), 0);
  const classes = new Map<number, number[][]>();
  for (const segment of segments) {
    const count = segments.length >= MANY_SEGMENTS ? segment.length - 1 : most;
    const size = segments.length >= MANY_SEGMENTS && count <= 8 ? Math.max(1, count) : roundedSize(count);
    const list = classes.get(size);
    if (list === undefined) classes.set(size, [segment]);
    else list.push(segment);
  }
  return [...classes].map(([numEntries, list]) => {
    const table = new Uint32Array(list.length * (1 + numEntries));
    list.forEach((segment, i) => {
      table.set(segment, i * (1 + numEntries));
    });
    return { numEntries, numSegments: list.length, table };
  });
}

/** 1, 2, 4, 8, and multiples of 8: few kernels to compile. */
function roundedSize(count: number): number {
  if (count > 8) return Math.ceil(count / 8) * 8;
  return 2 ** Math.ceil(Math.log2(Math.max(1, count)));
}
