/** Puts the device's positions together into the handle's arrays. */
import type { DispatchSettings } from "../../core/backend.ts";
import type { HandleData, HandleMeta, Overflow } from "../../core/handle/handle.ts";
import { assembleHandle, plainMeta } from "../../core/layout/assemble.ts";
import { roundUp } from "../../core/layout/counts.ts";
import { type GroupShape, numLocalExperts, type RankRouting } from "../../core/layout/routing.ts";

export interface Sizes {
  readonly topk: number;
  /** Entries per token. */
  readonly width: number;
  /** Ranks (fused) or experts (hybrid-ep) that rows are counted for. */
  readonly numKeys: number;
  /** Experts per key. */
  readonly divisor: number;
  readonly budget: number;
  /** First token of each rank in the numbering, and the total. */
  readonly firstToken: readonly number[];
  readonly numTokens: number;
}

/** What the device found, on the host. */
export interface Positions {
  readonly keys: Int32Array;
  readonly slots: Int32Array;
  readonly rows: Int32Array;
  readonly cut: Uint32Array;
  /** Per key: rows it would have without the budget (fused). */
  readonly wanted: Uint32Array;
  /** Per expert: slots received, and (hybrid-ep) those padded. */
  readonly received: Uint32Array;
  readonly padded: Uint32Array;
  /** Per rank: rows without the budget (hybrid-ep). */
  readonly numRows: Uint32Array;
}

export function fusedData(
  routings: readonly RankRouting[],
  shape: GroupShape,
  settings: DispatchSettings,
  sizes: Sizes,
  positions: Positions,
): HandleData {
  const meta: HandleMeta = {
    ...plainMeta("fused", routings, shape, sizes.topk),
    expertAlignment: Math.max(1, settings.expertAlignment),
    numWorstTokens: settings.numWorstTokens,
  };
  const fixed = settings.numWorstTokens > 0;
  const numRows = routings.map(({ rank }) => (fixed ? settings.numWorstTokens : positions.wanted[rank]));
  const lists = listsOf(meta, routings, sizes, positions);
  const overflow = overflows(meta, routings, sizes, positions);
  return assembleHandle(meta, routings, lists, sizes.width, numRows, (rank) => {
    const counts = expertsOf(positions.received, rank, shape);
    return {
      numTokensPerExpert: counts,
      tokensPerExpert: fixed ? new Int32Array(0) : counts.map((count) => roundUp(count, settings.expertAlignment)),
      overflow: overflow[rank],
    };
  });
}

export function hybridEpData(
  routings: readonly RankRouting[],
  shape: GroupShape,
  settings: DispatchSettings,
  sizes: Sizes,
  positions: Positions,
): HandleData {
  const meta: HandleMeta = {
    ...plainMeta("hybrid-ep", routings, shape, sizes.topk),
    padMultiple: Math.max(1, settings.padMultiple),
    numPermutedTokens: settings.numPermutedTokens,
  };
  const numRows = routings.map(({ rank }) => settings.numPermutedTokens ?? positions.numRows[rank]);
  const lists = listsOf(meta, routings, sizes, positions);
  const overflow = overflows(meta, routings, sizes, positions);
  return assembleHandle(meta, routings, lists, sizes.width, numRows, (rank) => ({
    numTokensPerExpert: expertsOf(positions.received, rank, shape),
    tokensPerExpert: expertsOf(positions.padded, rank, shape),
    overflow: overflow[rank],
  }));
}

function expertsOf(values: Uint32Array, rank: number, shape: GroupShape): Int32Array {
  const count = numLocalExperts(shape);
  return Int32Array.from(values.subarray(rank * count, (rank + 1) * count));
}

/** Where each source's entries go. */
function listsOf(
  meta: HandleMeta,
  routings: readonly RankRouting[],
  { width, firstToken }: Sizes,
  positions: Positions,
) {
  const permuted = meta.kind === "hybrid-ep";
  const expertsPerRank = numLocalExperts(meta);
  return routings.map((_, i) => {
    const [from, to] = [firstToken[i] * width, firstToken[i + 1] * width];
    const keys = positions.keys.slice(from, to);
    return {
      sendRank: permuted ? keys.map((key) => (key < 0 ? -1 : Math.floor(key / expertsPerRank))) : keys,
      sendRow: positions.rows.slice(from, to),
      sendExpert: permuted ? keys : null,
      sendSlot: permuted ? positions.slots.slice(from, to) : null,
    };
  });
}

/** What was cut per destination: by source token, then by slot (fused) or by expert (hybrid-ep). */
function overflows(
  meta: HandleMeta,
  routings: readonly RankRouting[],
  sizes: Sizes,
  positions: Positions,
): readonly Overflow[] {
  const lists: number[][] = routings.map(() => []);
  const { topk, firstToken } = sizes;
  const expertsPerRank = numLocalExperts(meta);
  routings.forEach((routing, i) => {
    for (let token = 0; token < routing.numTokens; token++) {
      const first = (firstToken[i] + token) * topk;
      const slots: number[] = [];
      for (let slot = 0; slot < routing.topk; slot++) if (positions.cut[first + slot] !== 0) slots.push(slot);
      if (slots.length === 0) continue;
      const expert = (slot: number) => routing.topkIdx[token * routing.topk + slot];
      if (meta.kind === "hybrid-ep") slots.sort((a, b) => expert(a) - expert(b));
      for (const slot of slots) {
        lists[Math.floor(expert(slot) / expertsPerRank)].push(routing.rank, token, slot, expert(slot));
      }
    }
  });
  return lists.map((list) => ({ flag: list.length > 0, numCut: list.length / 4, cut: Int32Array.from(list) }));
}
