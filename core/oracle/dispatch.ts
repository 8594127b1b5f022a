import type { DispatchResult, OutputChunk } from "../backend.ts";
import { copyBits } from "../dtype/float32.ts";
import type { HandleData, RankHandle } from "../handle/handle.ts";
import { numLocalExperts, type RankRouting } from "../layout/routing.ts";
import { bytesOf, rowBytes, type Tensor, tensor } from "../tensor.ts";

/**
 * Moves rows as bytes: row n of a destination is the row of (rowSrcRank[n], rowSrcToken[n]), or zeros. No bit changes.
 * `out` tensors are filled when given; with `consume` one rank's rows at a time are made, shown and thrown away.
 */
export function dispatchRows(
  name: "x" | "scales",
  data: HandleData,
  x: readonly Tensor[],
  out: readonly Tensor[] | undefined,
  consume: ((chunk: OutputChunk) => void) | undefined,
): Tensor[] {
  const bytes = rowBytes(x[0]);
  const sources = new Map(data.ranks.map((rank, i) => [rank.rank, bytesOf(x[i])]));
  const results: Tensor[] = [];
  data.ranks.forEach((rank, i) => {
    const result = out?.[i] ?? tensor(x[0].dtype, [rank.numRows, x[0].shape[1]]);
    const target = bytesOf(result);
    for (let row = 0; row < rank.numRows; row++) {
      const source = sources.get(rank.rowSrcRank[row]);
      const from = rank.rowSrcToken[row] * bytes;
      if (source === undefined) target.fill(0, row * bytes, (row + 1) * bytes);
      else target.set(source.subarray(from, from + bytes), row * bytes);
    }
    if (consume === undefined) results.push(result);
    else consume({ name, rank: rank.rank, firstRow: 0, numRows: rank.numRows, bytes: target });
  });
  return results;
}

/** Fused recv ids and weights: local ids, -1 and 0.0 for slots of other ranks, dropped slots and the tail (design 2.3). */
export function dispatchSlots(
  data: HandleData,
  routings: readonly RankRouting[],
  idDtype: "i32" | "i64",
): Pick<DispatchResult, "topkIdx" | "topkWeights"> {
  const expertsPerRank = numLocalExperts(data.meta);
  const { topk } = routings[0];
  const weighted = routings.every((routing) => routing.topkWeights !== null);
  const byRank = new Map(routings.map((routing) => [routing.rank, routing]));
  const topkIdx: Tensor[] = [];
  const topkWeights: Tensor[] = [];
  for (const rank of data.ranks) {
    const ids = new Int32Array(rank.numRows * topk).fill(-1);
    const weights = new Float32Array(rank.numRows * topk);
    const first = rank.rank * expertsPerRank;
    for (let row = 0; row < rank.numRows; row++) {
      const source = byRank.get(rank.rowSrcRank[row]);
      if (source === undefined) continue;
      for (let slot = 0; slot < topk; slot++) {
        const from = rank.rowSrcToken[row] * topk + slot;
        const expert = source.topkIdx[from] - first;
        if (expert < 0 || expert >= expertsPerRank) continue;
        ids[row * topk + slot] = expert;
        if (source.topkWeights !== null) copyBits(source.topkWeights, from, weights, row * topk + slot);
      }
    }
    const shape = [rank.numRows, topk];
    topkIdx.push(idDtype === "i32" ? tensor("i32", shape, ids) : tensor("i64", shape, BigInt64Array.from(ids, BigInt)));
    topkWeights.push(tensor("fp32", shape, weights));
  }
  return { topkIdx, topkWeights: weighted ? topkWeights : null };
}

/** Hybrid-ep probs: the weight of each permuted row, 0 on padding (design 2.5). Null when the routing has no weights. */
export function dispatchProbs(data: HandleData, routings: readonly RankRouting[]): Tensor<"fp32">[] | null {
  if (routings.some((routing) => routing.topkWeights === null)) return null;
  const probs = data.ranks.map((rank) => tensor("fp32", [rank.numRows]));
  const byRank = new Map(data.ranks.map((rank, i) => [rank.rank, probs[i]]));
  data.ranks.forEach((rank, i) => {
    const { topk, topkWeights } = routings[i];
    forEachEntry(rank, (token, entry) => {
      const target = byRank.get(rank.sendRank[entry]);
      const slot = rank.sendSlot?.[entry] ?? 0;
      if (target && topkWeights) copyBits(topkWeights, token * topk + slot, target.data, rank.sendRow[entry]);
    });
  });
  return probs;
}

/** Calls `visit(token, index into the send lists)` for every entry of a rank, in order. */
export function forEachEntry(rank: RankHandle, visit: (token: number, entry: number) => void): void {
  for (let token = 0; token < rank.numTokens; token++) {
    const first = token * rank.numEntries;
    for (let entry = first; entry < first + rank.numEntries && rank.sendRank[entry] >= 0; entry++) visit(token, entry);
  }
}
