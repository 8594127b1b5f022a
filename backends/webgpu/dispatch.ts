/** The host half of dispatch: which source row each output row is, from the handle. */
import type { DispatchRequest, DispatchResult } from "../../core/backend.ts";
import type { HandleData, RankHandle } from "../../core/handle/handle.ts";
import { numLocalExperts, type RankRouting } from "../../core/layout/routing.ts";
import { bytesOf, rowBytes, type Tensor, tensor } from "../../core/tensor.ts";
import type { Context } from "./context.ts";
import { dispatchSlotsKernel } from "./kernels.ts";
import { moveRows } from "./move.ts";
import { RowSink, rankSinks } from "./rows.ts";

/** Moves the rows of `x` (or of `scales`) to every row of the handle; padding and tail are zeros. */
export async function dispatchRows(
  context: Context,
  name: "x" | "scales",
  data: HandleData,
  x: readonly Tensor[],
  request: Pick<DispatchRequest, "out" | "consume" | "progress">,
): Promise<Tensor[]> {
  const { dtype, shape } = x[0];
  const consume = request.consume ?? null;
  const out = consume ? [] : (request.out ?? data.ranks.map(({ numRows }) => tensor(dtype, [numRows, shape[1]])));
  const sinks = rankSinks(data, name, rowBytes(x[0]), out, consume);
  const first = firstTokens(data);
  await moveRows(context, {
    what: `webgpu dispatch of ${name}`,
    sources: x.map(bytesOf),
    rowBytes: rowBytes(x[0]),
    destinations: data.ranks.map((rank, i) => ({ rank: rank.rank, from: sourceRows(rank, first), sink: sinks[i] })),
    // Rows of a fused destination ascend by source; those of a permuted one do so only within an expert.
    bySource: data.meta.kind === "fused",
    progress: request.progress,
  });
  return [...out];
}

/** Fused recv ids and weights: local ids, -1 and 0.0 for slots of other ranks, dropped slots and the tail (design 2.3). */
export async function dispatchSlots(
  context: Context,
  data: HandleData,
  routings: readonly RankRouting[],
  idDtype: "i32" | "i64",
): Promise<Pick<DispatchResult, "topkIdx" | "topkWeights">> {
  const { topk } = routings[0];
  const expertsPerRank = numLocalExperts(data.meta);
  const first = firstTokens(data);
  const ids = data.ranks.map(({ numRows }) => tensor(idDtype, [numRows, topk]));
  const weights = data.ranks.map(({ numRows }) => tensor("fp32", [numRows, topk]));
  await moveRows(context, {
    what: "webgpu dispatch of slots",
    sources: routings.map((routing) => slotRows(routing)),
    rowBytes: 8 * topk,
    destinations: data.ranks.map((rank, i) => ({
      rank: rank.rank,
      from: sourceRows(rank, first),
      sink: new RowSink("slots", rank.rank, 8 * topk, null, ({ firstRow, numRows, bytes }) => {
        splitSlots(bytes, topk, firstRow, numRows, ids[i], weights[i]);
      }),
    })),
    bySource: true,
    after: {
      kernel: dispatchSlotsKernel(context.device, topk),
      launch: (rank, numRows) => ({
        params: [numRows, topk, rank * expertsPerRank, (rank + 1) * expertsPerRank],
        numItems: numRows,
      }),
    },
  });
  const weighted = routings.every((routing) => routing.topkWeights !== null);
  return { topkIdx: ids, topkWeights: weighted ? weights : null };
}

/** Hybrid-ep probs: the weight of each permuted row, 0 on padding (design 2.5). Null when the routing has no weights. */
export async function dispatchProbs(
  context: Context,
  data: HandleData,
  routings: readonly RankRouting[],
): Promise<Tensor<"fp32">[] | null> {
  if (routings.some((routing) => routing.topkWeights === null)) return null;
  const probs = data.ranks.map(({ numRows }) => tensor("fp32", [numRows]));
  const sinks = rankSinks(data, "probs", 4, probs, null);
  const from = data.ranks.map(({ numRows }) => new Int32Array(numRows).fill(-1));
  let firstSlot = 0;
  data.ranks.forEach((rank, i) => {
    const { topk } = routings[i];
    for (let entry = 0; entry < rank.sendRank.length; entry++) {
      if (rank.sendRank[entry] < 0) continue;
      const token = Math.floor(entry / rank.numEntries);
      from[rank.sendRank[entry]][rank.sendRow[entry]] = firstSlot + token * topk + (rank.sendSlot?.[entry] ?? 0);
    }
    firstSlot += rank.numTokens * topk;
  });
  await moveRows(context, {
    what: "webgpu dispatch of probs",
    sources: routings.map(({ topkWeights }) => bytesOfArray(topkWeights as Float32Array)),
    rowBytes: 4,
    destinations: data.ranks.map((rank, i) => ({ rank: rank.rank, from: from[i], sink: sinks[i] })),
    bySource: false,
  });
  return probs;
}

/** Number of tokens of the ranks before each rank. */
function firstTokens(data: HandleData): Int32Array {
  const first = new Int32Array(data.ranks.length);
  for (let i = 1; i < first.length; i++) first[i] = first[i - 1] + data.ranks[i - 1].numTokens;
  return first;
}

/** For every row of a destination its source row in the numbering of all ranks' tokens; -1 = padding or tail. */
function sourceRows(rank: RankHandle, first: Int32Array): Int32Array {
  const { rowSrcRank, rowSrcToken } = rank;
  const rows = new Int32Array(rank.numRows);
  for (let row = 0; row < rows.length; row++) {
    rows[row] = rowSrcRank[row] < 0 ? -1 : first[rowSrcRank[row]] + rowSrcToken[row];
  }
  return rows;
}

/** Per token one row [topk ids | topk weights], so that both move together; weights keep their bits. */
function slotRows({ topkIdx, topkWeights, topk, numTokens }: RankRouting): Uint8Array {
  const rows = new Uint32Array(numTokens * 2 * topk);
  const bits = topkWeights && new Uint32Array(topkWeights.buffer, topkWeights.byteOffset, topkWeights.length);
  for (let token = 0; token < numTokens; token++) {
    const at = token * topk;
    rows.set(topkIdx.subarray(at, at + topk), 2 * at);
    if (bits) rows.set(bits.subarray(at, at + topk), 2 * at + topk);
  }
  return bytesOfArray(rows);
}

function splitSlots(
  bytes: Uint8Array,
  topk: number,
  firstRow: number,
  numRows: number,
  ids: Tensor,
  weights: Tensor<"fp32">,
): void {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, numRows * 2 * topk);
  const idWords = new Int32Array(ids.data.buffer, ids.data.byteOffset, ids.data.byteLength / 4);
  const weightBits = new Int32Array(weights.data.buffer, weights.data.byteOffset, weights.data.length);
  const wide = ids.dtype === "i64";
  for (let row = 0; row < numRows; row++) {
    const from = row * 2 * topk;
    const to = (firstRow + row) * topk;
    for (let slot = 0; slot < topk; slot++) {
      const id = words[from + slot];
      if (wide) {
        idWords[2 * (to + slot)] = id;
        idWords[2 * (to + slot) + 1] = id >> 31;
      } else {
        idWords[to + slot] = id;
      }
      weightBits[to + slot] = words[from + topk + slot];
    }
  }
}

function bytesOfArray(array: Float32Array | Uint32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
