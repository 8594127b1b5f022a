/** Puts the device's positions together into the handle's arrays. */
import type { DispatchSettings } from "../../core/backend.ts";
import type { HandleData, HandleMeta, Overflow, RankHandle } from "../../core/handle/handle.ts";
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

type Received = Pick<RankHandle, "numRows" | "numTokensPerExpert" | "tokensPerExpert">;

export function fusedData(
  routings: readonly RankRouting[],
  shape: GroupShape,
  settings: DispatchSettings,
  sizes: Sizes,
  positions: Positions,
): HandleData {
  const meta: HandleMeta = {
    ...sharedMeta("fused", routings, shape, sizes),
    expertAlignment: Math.max(1, settings.expertAlignment),
    numWorstTokens: settings.numWorstTokens,
    padMultiple: 1,
    numPermutedTokens: null,
  };
  const fixed = settings.numWorstTokens > 0;
  return assemble(meta, routings, sizes, positions, (rank) => {
    const counts = expertsOf(positions.received, rank, shape);
    return {
      numRows: fixed ? settings.numWorstTokens : positions.wanted[rank],
      numTokensPerExpert: counts,
      tokensPerExpert: fixed ? new Int32Array(0) : counts.map((count) => roundUp(count, settings.expertAlignment)),
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
    ...sharedMeta("hybrid-ep", routings, shape, sizes),
    expertAlignment: 1,
    numWorstTokens: 0,
    padMultiple: Math.max(1, settings.padMultiple),
    numPermutedTokens: settings.numPermutedTokens,
  };
  return assemble(meta, routings, sizes, positions, (rank) => ({
    numRows: settings.numPermutedTokens ?? positions.numRows[rank],
    numTokensPerExpert: expertsOf(positions.received, rank, shape),
    tokensPerExpert: expertsOf(positions.padded, rank, shape),
  }));
}

function sharedMeta(kind: HandleMeta["kind"], routings: readonly RankRouting[], shape: GroupShape, sizes: Sizes) {
  return {
    kind,
    numRanks: shape.numRanks,
    ranksPerNode: shape.ranksPerNode,
    numExperts: shape.numExperts,
    topk: sizes.topk,
    localRanks: routings.map(({ rank }) => rank),
  };
}

function expertsOf(values: Uint32Array, rank: number, shape: GroupShape): Int32Array {
  const count = numLocalExperts(shape);
  return Int32Array.from(values.subarray(rank * count, (rank + 1) * count));
}

function assemble(
  meta: HandleMeta,
  routings: readonly RankRouting[],
  sizes: Sizes,
  positions: Positions,
  received: (rank: number) => Received,
): HandleData {
  const { width, firstToken } = sizes;
  const permuted = meta.kind === "hybrid-ep";
  const expertsPerRank = numLocalExperts(meta);
  const destinations = routings.map(({ rank }) => received(rank));
  const rowSrcRank = destinations.map(({ numRows }) => new Int32Array(numRows).fill(-1));
  const rowSrcToken = destinations.map(({ numRows }) => new Int32Array(numRows).fill(-1));
  const lists = routings.map(({ rank }, i) => {
    const from = firstToken[i] * width;
    const to = firstToken[i + 1] * width;
    const keys = positions.keys.slice(from, to);
    const sendRow = positions.rows.slice(from, to);
    const sendRank = permuted ? keys.map((key) => (key < 0 ? -1 : Math.floor(key / expertsPerRank))) : keys;
    for (let entry = 0; entry < sendRow.length; entry++) {
      const dst = sendRank[entry];
      if (dst < 0) continue;
      rowSrcRank[dst][sendRow[entry]] = rank;
      rowSrcToken[dst][sendRow[entry]] = Math.floor(entry / width);
    }
    return {
      sendRank,
      sendRow,
      sendExpert: permuted ? keys : null,
      sendSlot: permuted ? positions.slots.slice(from, to) : null,
    };
  });
  const overflow = overflows(meta, routings, sizes, positions);
  return {
    meta,
    ranks: routings.map((routing, i) => ({
      rank: routing.rank,
      numTokens: routing.numTokens,
      numEntries: width,
      ...lists[i],
      ...destinations[i],
      rowSrcRank: rowSrcRank[i],
      rowSrcToken: rowSrcToken[i],
      overflow: overflow[i],
    })),
  };
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
