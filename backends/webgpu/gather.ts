/** Which rows a chunk of tokens needs: combine uploads these and no others. */
import type { HandleData, RankHandle } from "../../core/handle/handle.ts";

/**
 * [first, count] of at most `maxTokens` tokens that take at most `maxRows` rows, where a token with n entries takes
 * cost(n); always at least one token.
 */
export function* tokenChunks(
  rank: RankHandle,
  maxTokens: number,
  maxRows: number,
  cost: (numEntries: number) => number = (numEntries) => numEntries,
): Generator<[number, number]> {
  const width = rank.numEntries;
  for (let first = 0; first < rank.numTokens; ) {
    let end = first;
    let rows = 0;
    while (end < rank.numTokens && end - first < maxTokens) {
      let own = 0;
      while (own < width && rank.sendRank[end * width + own] >= 0) own++;
      if (rows + cost(own) > maxRows && end > first) break;
      rows += cost(own);
      end++;
    }
    yield [first, end - first];
    first = end;
  }
}

export interface Run {
  /** Index of the destination in data.ranks. */
  readonly dst: number;
  readonly firstRow: number;
  readonly numRows: number;
  /** Row of the chunk where the run starts. */
  readonly local: number;
}

export interface GatheredRows {
  readonly runs: readonly Run[];
  /** For every entry of the chunk its row in the chunk, -1 for none. */
  readonly rows: Int32Array;
  /** Rows of the chunk, those before the first one included. */
  readonly numRows: number;
}

/** The rows a chunk of tokens needs, as runs of neighbours, and for every entry its row in the chunk (-1 for none). */
export function gatherEntries(
  data: HandleData,
  rank: RankHandle,
  firstToken: number,
  numTokens: number,
  firstLocal: number,
): GatheredRows {
  const width = rank.numEntries;
  const first = firstToken * width;
  const count = numTokens * width;
  const perRank = new Int32Array(data.meta.numRanks + 1);
  for (let i = first; i < first + count; i++) if (rank.sendRank[i] >= 0) perRank[rank.sendRank[i] + 1]++;
  for (let dst = 0; dst < data.meta.numRanks; dst++) perRank[dst + 1] += perRank[dst];
  const wanted = new Int32Array(perRank[data.meta.numRanks]);
  const next = perRank.slice();
  for (let i = first; i < first + count; i++) {
    const dst = rank.sendRank[i];
    if (dst >= 0) wanted[next[dst]++] = rank.sendRow[i];
  }
  const runs: Run[] = [];
  for (let dst = 0; dst < data.meta.numRanks; dst++) {
    const rows = wanted.subarray(perRank[dst], perRank[dst + 1]).sort();
    for (let i = 0; i < rows.length; ) {
      let end = i + 1;
      while (end < rows.length && rows[end] === rows[i] + end - i) end++;
      runs.push({ dst, firstRow: rows[i], numRows: end - i, local: firstLocal + perRank[dst] + i });
      i = end;
    }
  }
  const local = new Int32Array(count).fill(-1);
  for (let i = 0; i < count; i++) {
    const dst = rank.sendRank[first + i];
    if (dst < 0) continue;
    const row = rank.sendRow[first + i];
    let low = perRank[dst];
    let high = perRank[dst + 1] - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (wanted[middle] < row) low = middle + 1;
      else high = middle;
    }
    local[i] = firstLocal + low;
  }
  return { runs, rows: local, numRows: firstLocal + wanted.length };
}
