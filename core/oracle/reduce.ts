/**
 * The one order of every sum (design 2.4, 2.5). A token's entries ascend by destination rank:
 *
 *   total = bias0 + bias1, or +0
 *   one node:   for each rank:  total += row of the rank
 *   more nodes: for each node:  total += round(sum of its ranks' rows)
 *   row of a rank = its only row, or round(sum of its permuted rows, ascending by expert)
 *
 * Float32 throughout; round = to the dtype of the rows, nearest even. Every partial sum obeys the flush rule of 2.11.
 */
import type { ArrayOf, SumDType } from "../dtype/dtype.ts";
import { arrayConstructor } from "../dtype/dtype.ts";
import { addRow, roundRow } from "../dtype/rows.ts";
import type { RankHandle } from "../handle/handle.ts";

/** Where the rows of each rank are: data and elements per row. */
export interface RowSource {
  readonly dtype: SumDType;
  readonly width: number;
  row(rank: number): ArrayOf<SumDType>;
}

export class TokenReducer {
  readonly #source: RowSource;
  readonly #ranksPerNode: number;
  readonly #oneNode: boolean;
  readonly #total: Float32Array;
  readonly #node: Float32Array;
  readonly #rank: Float32Array;
  readonly #rounded: ArrayOf<SumDType>;

  constructor(source: RowSource, ranksPerNode: number, numRanks: number) {
    this.#source = source;
    this.#ranksPerNode = ranksPerNode;
    this.#oneNode = ranksPerNode === numRanks;
    this.#total = new Float32Array(source.width);
    this.#node = new Float32Array(source.width);
    this.#rank = new Float32Array(source.width);
    this.#rounded = new (arrayConstructor(source.dtype) as unknown as new (n: number) => ArrayOf<SumDType>)(
      source.width,
    );
  }

  /** Sums the entries of one token and rounds the total into `out` at `offset`. */
  reduce(rank: RankHandle, token: number, bias: readonly ArrayOf<SumDType>[], out: ArrayOf<SumDType>, offset: number) {
    const { dtype, width } = this.#source;
    const total = this.#total.fill(0);
    for (const values of bias) addRow(dtype, values, token * width, total, width);
    const end = (token + 1) * rank.numEntries;
    let entry = token * rank.numEntries;
    while (entry < end && rank.sendRank[entry] >= 0) {
      if (this.#oneNode) {
        entry = this.#addRank(rank, entry, end, total);
        continue;
      }
      const node = this.#node.fill(0);
      const lastRank = (Math.floor(rank.sendRank[entry] / this.#ranksPerNode) + 1) * this.#ranksPerNode;
      while (entry < end && rank.sendRank[entry] >= 0 && rank.sendRank[entry] < lastRank) {
        entry = this.#addRank(rank, entry, end, node);
      }
      this.#addRounded(node, total);
    }
    roundRow(dtype, total, out, offset, width);
  }

  /** Adds the row of the rank at `entry` to `sums`; returns the first entry of the next rank. */
  #addRank(rank: RankHandle, entry: number, end: number, sums: Float32Array): number {
    const { dtype, width } = this.#source;
    const dst = rank.sendRank[entry];
    const rows = this.#source.row(dst);
    let next = entry + 1;
    while (next < end && rank.sendRank[next] === dst) next++;
    if (next === entry + 1) {
      addRow(dtype, rows, rank.sendRow[entry] * width, sums, width);
      return next;
    }
    const own = this.#rank.fill(0);
    for (let i = entry; i < next; i++) addRow(dtype, rows, rank.sendRow[i] * width, own, width);
    this.#addRounded(own, sums);
    return next;
  }

  #addRounded(partial: Float32Array, sums: Float32Array): void {
    const { dtype, width } = this.#source;
    roundRow(dtype, partial, this.#rounded, 0, width);
    addRow(dtype, this.#rounded, 0, sums, width);
  }
}
