/** The small outputs that go with the rows: ids, weights and probs. Floats move as int32, so that no bit changes. */
import type { HandleData } from "../../core/handle/handle.ts";
import { numLocalExperts, type RankRouting } from "../../core/layout/routing.ts";
import { type Tensor, tensor } from "../../core/tensor.ts";

function bits(values: Float32Array): Int32Array {
  return new Int32Array(values.buffer, values.byteOffset, values.length);
}

/** Fused recv ids and weights: local ids, -1 and 0.0 for slots of other ranks, dropped slots and the tail (design 2.3). */
export function dispatchSlots(
  data: HandleData,
  routings: readonly RankRouting[],
  idDtype: "i32" | "i64",
): { topkIdx: Tensor[]; topkWeights: Tensor<"fp32">[] | null } {
  const expertsPerRank = numLocalExperts(data.meta);
  const { topk } = routings[0];
  const weighted = routings.every((routing) => routing.topkWeights !== null);
  const sources: { topkIdx: Int32Array; weights: Int32Array | null }[] = [];
  for (const { rank, topkIdx, topkWeights } of routings) {
    sources[rank] = { topkIdx, weights: weighted && topkWeights ? bits(topkWeights) : null };
  }
  const topkIdx: Tensor[] = [];
  const topkWeights: Tensor<"fp32">[] = [];
  for (const { rank, numRows, rowSrcRank, rowSrcToken } of data.ranks) {
    const shape = [numRows, topk];
    const ids = idDtype === "i32" ? tensor("i32", shape) : tensor("i64", shape);
    // An int64 is written as its two halves: BigInt arithmetic would take longer than moving the rows.
    const words = new Int32Array(ids.data.buffer).fill(-1);
    const wide = idDtype === "i64" ? 2 : 1;
    const weights = weighted ? tensor("fp32", shape) : null;
    const weightBits = weights && bits(weights.data);
    const first = rank * expertsPerRank;
    for (let row = 0; row < numRows; row++) {
      if (rowSrcRank[row] < 0) continue;
      const source = sources[rowSrcRank[row]];
      const from = rowSrcToken[row] * topk;
      const to = row * topk;
      for (let slot = 0; slot < topk; slot++) {
        const local = source.topkIdx[from + slot] - first;
        if (local < 0 || local >= expertsPerRank) continue;
        words[(to + slot) * wide] = local;
        if (wide === 2) words[(to + slot) * 2 + 1] = 0;
        if (weightBits !== null && source.weights !== null) weightBits[to + slot] = source.weights[from + slot];
      }
    }
    topkIdx.push(ids);
    if (weights) topkWeights.push(weights);
  }
  return { topkIdx, topkWeights: weighted ? topkWeights : null };
}

/** Hybrid-ep probs: the weight of each permuted row, 0 on padding (design 2.5). Null when the routing has no weights. */
export function dispatchProbs(data: HandleData, routings: readonly RankRouting[]): Tensor<"fp32">[] | null {
  if (routings.some((routing) => routing.topkWeights === null)) return null;
  const probs = data.ranks.map((rank) => tensor("fp32", [rank.numRows]));
  const targets: Int32Array[] = [];
  data.ranks.forEach((rank, i) => {
    targets[rank.rank] = bits(probs[i].data);
  });
  data.ranks.forEach(({ numTokens, numEntries, sendRank, sendRow, sendSlot }, i) => {
    const { topk, topkWeights } = routings[i];
    if (topkWeights === null || sendSlot === null) return;
    const weights = bits(topkWeights);
    for (let token = 0, entry = 0; token < numTokens; token++) {
      for (const end = entry + numEntries; entry < end; entry++) {
        if (sendRank[entry] >= 0) targets[sendRank[entry]][sendRow[entry]] = weights[token * topk + sendSlot[entry]];
      }
    }
  });
  return probs;
}

/** Hybrid-ep: every permuted row's prob goes back to [token, global expert], bits unchanged; 0 elsewhere. */
export function combineProbs(data: HandleData, probs: readonly Tensor<"fp32">[]): Tensor<"fp32">[] {
  const sources: Int32Array[] = [];
  data.ranks.forEach((rank, i) => {
    sources[rank.rank] = bits(probs[i].data);
  });
  const { numExperts } = data.meta;
  return data.ranks.map(({ numTokens, numEntries, sendRank, sendRow, sendExpert }) => {
    const result = tensor("fp32", [numTokens, numExperts]);
    const target = bits(result.data);
    for (let token = 0, entry = 0; token < numTokens; token++) {
      for (const end = entry + numEntries; entry < end; entry++) {
        if (sendRank[entry] < 0 || sendExpert === null) continue;
        target[token * numExperts + sendExpert[entry]] = sources[sendRank[entry]][sendRow[entry]];
      }
    }
    return result;
  });
}
