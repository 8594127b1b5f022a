import type { RowOutputs } from "../backend.ts";
import type { ArrayOf, SumDType } from "../dtype/dtype.ts";
import { copyBits } from "../dtype/float32.ts";
import type { CheckedCombine } from "../functions/validate.ts";
import type { HandleData } from "../handle/handle.ts";
import { bytesOf, type Tensor, tensor } from "../tensor.ts";
import { forEachEntry } from "./dispatch.ts";
import { type RowSource, TokenReducer } from "./reduce.ts";

/** Sums rows back to their tokens in the order of reduce.ts (design 2.4, 2.5). */
export function combineRows(checked: CheckedCombine, outputs: RowOutputs): Tensor[] {
  const { data, x, bias } = checked;
  const { numRanks, ranksPerNode } = data.meta;
  const reducer = new TokenReducer(rowSource(data, x), ranksPerNode, numRanks);
  const hidden = x[0].shape[1];
  const results: Tensor[] = [];
  data.ranks.forEach((rank, i) => {
    const result = outputs.out?.[i] ?? tensor(x[0].dtype, [rank.numTokens, hidden]);
    const biases = bias.map((values) => values[i].data as ArrayOf<SumDType>);
    for (let token = 0; token < rank.numTokens; token++) {
      reducer.reduce(rank, token, biases, result.data as ArrayOf<SumDType>, token * hidden);
    }
    outputs.progress?.((i + 1) / data.ranks.length);
    if (outputs.consume === undefined) results.push(result);
    else {
      const chunk = { name: "x", rank: rank.rank, firstRow: 0, numRows: rank.numTokens, bytes: bytesOf(result) };
      outputs.consume(chunk);
    }
  });
  return results;
}

/** Fused: float32 sums of every slot's weight over the token's destinations, in the same tree (nothing is masked). */
export function combineWeights(data: HandleData, weights: readonly Tensor<"fp32">[]): Tensor<"fp32">[] {
  const { numRanks, ranksPerNode } = data.meta;
  const reducer = new TokenReducer(rowSource(data, weights), ranksPerNode, numRanks);
  return data.ranks.map((rank) => {
    const width = weights[0].shape[1];
    const result = tensor("fp32", [rank.numTokens, width]);
    for (let token = 0; token < rank.numTokens; token++) reducer.reduce(rank, token, [], result.data, token * width);
    return result;
  });
}

/** Hybrid-ep: every permuted row's prob goes back to [token, global expert], bits unchanged; 0 elsewhere. */
export function combineProbs(data: HandleData, probs: readonly Tensor<"fp32">[]): Tensor<"fp32">[] {
  const byRank = new Map(data.ranks.map((rank, i) => [rank.rank, probs[i].data]));
  return data.ranks.map((rank) => {
    const result = tensor("fp32", [rank.numTokens, data.meta.numExperts]);
    forEachEntry(rank, (token, entry) => {
      const source = byRank.get(rank.sendRank[entry]);
      const expert = rank.sendExpert?.[entry] ?? 0;
      if (source) copyBits(source, rank.sendRow[entry], result.data, token * data.meta.numExperts + expert);
    });
    return result;
  });
}

function rowSource(data: HandleData, x: readonly Tensor[]): RowSource {
  const byRank = new Map(data.ranks.map((rank, i) => [rank.rank, x[i].data as ArrayOf<SumDType>]));
  return {
    dtype: x[0].dtype as SumDType,
    width: x[0].shape[1],
    row: (rank) => byRank.get(rank) as ArrayOf<SumDType>,
  };
}
