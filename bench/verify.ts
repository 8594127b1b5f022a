/** What a benchmark computed is checked after it was timed; a wrong result is a BackendFailure, not a number. */

import type { ArrayOf, SumDType } from "../core/dtype/dtype.ts";
import { arrayConstructor } from "../core/dtype/dtype.ts";
import { BackendFailure } from "../core/errors.ts";
import type { HandleData } from "../core/handle/handle.ts";
import { TokenReducer } from "../core/oracle/reduce.ts";
import { bytesOf, rowBytes, type Tensor } from "../core/tensor.ts";

/** Rows that are compared byte by byte; of the others the stamped beginning. */
const WHOLE_ROWS_EVERY = 61;
const STAMP_BYTES = 2;
const TOKENS_PER_RANK = 24;

export function checkDispatched(data: HandleData, x: readonly Tensor[], out: readonly Tensor[]): void {
  const bytes = rowBytes(x[0]);
  const sources = x.map(bytesOf);
  data.ranks.forEach(({ rank, numRows, rowSrcRank, rowSrcToken }, i) => {
    const target = bytesOf(out[i]);
    for (let row = 0; row < numRows; row++) {
      if (rowSrcRank[row] < 0) continue;
      const source = sources[data.meta.localRanks.indexOf(rowSrcRank[row])];
      const count = row % WHOLE_ROWS_EVERY === 0 ? bytes : Math.min(STAMP_BYTES, bytes);
      for (let column = 0; column < count; column++) {
        if (target[row * bytes + column] === source[rowSrcToken[row] * bytes + column]) continue;
        throw new BackendFailure(`dispatch is wrong at rank ${rank}, row ${row}, byte ${column}: nothing was measured`);
      }
    }
  });
}

/** Compares a sample of tokens with the oracle's sums. */
export function checkCombined(data: HandleData, x: readonly Tensor[], y: readonly Tensor[]): void {
  const [, width] = x[0].shape;
  const dtype = x[0].dtype as SumDType;
  const { numRanks, ranksPerNode, localRanks } = data.meta;
  const row = (rank: number) => x[localRanks.indexOf(rank)].data as ArrayOf<SumDType>;
  const reducer = new TokenReducer({ dtype, width, row }, ranksPerNode, numRanks);
  const Constructor = arrayConstructor(dtype) as unknown as new (length: number) => ArrayOf<SumDType>;
  const want = new Constructor(width);
  data.ranks.forEach((rank, i) => {
    const step = Math.max(1, Math.floor(rank.numTokens / TOKENS_PER_RANK));
    for (let token = 0; token < rank.numTokens; token += step) {
      reducer.reduce(rank, token, [], want, 0);
      for (let column = 0; column < width; column++) {
        if (want[column] === y[i].data[token * width + column]) continue;
        throw new BackendFailure(
          `combine is wrong at rank ${rank.rank}, token ${token}, column ${column}: nothing was measured`,
        );
      }
    }
  });
}
