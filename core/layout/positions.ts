import { InvalidArgument } from "../errors.ts";
import type { HandleData, HandleKind, HandleMeta, Overflow } from "../handle/handle.ts";
import { assembleHandle, plainMeta } from "./assemble.ts";
import { roundUp } from "./counts.ts";
import { type GroupShape, numLocalExperts, type RankRouting } from "./routing.ts";

/** Largest number of rows a destination can have: a row position is an int32. */
export const MAX_ROWS = 2 ** 31 - 1;

/** Collects what did not fit, per destination. */
class OverflowLog {
  readonly #cut: number[][];
  constructor(numRanks: number) {
    this.#cut = Array.from({ length: numRanks }, () => []);
  }
  add(dst: number, srcRank: number, token: number, slot: number, expert: number): void {
    this.#cut[dst].push(srcRank, token, slot, expert);
  }
  of(dst: number): Overflow {
    const cut = Int32Array.from(this.#cut[dst]);
    return { flag: cut.length > 0, numCut: cut.length / 4, cut };
  }
}

interface SourceLists {
  readonly sendRank: Int32Array;
  readonly sendRow: Int32Array;
}

function emptyLists(numTokens: number, width: number): SourceLists {
  return {
    sendRank: new Int32Array(numTokens * width).fill(-1),
    sendRow: new Int32Array(numTokens * width).fill(-1),
  };
}

/** The handle of a new dispatch when all ranks' routing is at hand. */
export function newHandle(
  kind: HandleKind,
  routings: readonly RankRouting[],
  shape: GroupShape,
  settings: { expertAlignment: number; numWorstTokens: number; padMultiple: number; numPermutedTokens: number | null },
): HandleData {
  return kind === "fused" ? fusedHandle(routings, shape, settings) : hybridEpHandle(routings, shape, settings);
}

/**
 * The handle of a fused dispatch when all ranks' routing is at hand: one recv row per (token, destination rank), ordered
 * by (source rank, source token) (design 2.3). Cost: linear in slots, plus R counters per source.
 */
export function fusedHandle(
  routings: readonly RankRouting[],
  shape: GroupShape,
  settings: { expertAlignment: number; numWorstTokens: number },
): HandleData {
  const { numRanks } = shape;
  const expertsPerRank = numLocalExperts(shape);
  const rankOf = ranksOfExperts(shape);
  const topk = widest(routings);
  const width = Math.min(topk, numRanks);
  const budget = settings.numWorstTokens > 0 ? settings.numWorstTokens : Number.POSITIVE_INFINITY;
  const overflow = new OverflowLog(numRanks);
  const nextRow = new Int32Array(numRanks);
  const numReceived = new Int32Array(shape.numExperts);
  const ranksOfToken = new Int32Array(width);
  const lists = routings.map((routing) => {
    const { sendRank, sendRow } = emptyLists(routing.numTokens, width);
    for (let token = 0; token < routing.numTokens; token++) {
      const first = token * routing.topk;
      let count = 0;
      for (let slot = 0; slot < routing.topk; slot++) {
        const expert = routing.topkIdx[first + slot];
        if (expert < 0) continue;
        numReceived[expert]++;
        count = insertSorted(ranksOfToken, count, rankOf[expert]);
      }
      let entry = token * width;
      for (let i = 0; i < count; i++) {
        const dst = ranksOfToken[i];
        const row = nextRow[dst]++;
        if (row >= budget) continue;
        sendRank[entry] = dst;
        sendRow[entry++] = row;
      }
      if (entry === token * width + count) continue;
      for (let slot = 0; slot < routing.topk; slot++) {
        const expert = routing.topkIdx[first + slot];
        if (expert < 0 || nextRow[rankOf[expert]] <= budget) continue;
        overflow.add(rankOf[expert], routing.rank, token, slot, expert);
        numReceived[expert]--;
      }
    }
    return { sendRank, sendRow, sendExpert: null, sendSlot: null };
  });
  const numRows = Array.from(nextRow, (rows) => (settings.numWorstTokens > 0 ? settings.numWorstTokens : rows));
  const meta: HandleMeta = {
    ...plainMeta("fused", routings, shape, topk),
    expertAlignment: Math.max(1, settings.expertAlignment),
    numWorstTokens: settings.numWorstTokens,
  };
  return assembleHandle(meta, routings, lists, width, numRows, (dst) => {
    const counts = numReceived.slice(dst * expertsPerRank, (dst + 1) * expertsPerRank);
    const rounded =
      settings.numWorstTokens > 0 ? new Int32Array(0) : counts.map((n) => roundUp(n, settings.expertAlignment));
    return { numTokensPerExpert: counts, tokensPerExpert: rounded, overflow: overflow.of(dst) };
  });
}

/**
 * The handle of a permuted dispatch when all ranks' routing is at hand: expert-major rows, each expert's block ordered by
 * (source rank, source token) and padded to padMultiple (design 2.5, 2.7).
 */
export function hybridEpHandle(
  routings: readonly RankRouting[],
  shape: GroupShape,
  settings: { padMultiple: number; numPermutedTokens: number | null },
): HandleData {
  const { numRanks, numExperts } = shape;
  const expertsPerRank = numLocalExperts(shape);
  const rankOf = ranksOfExperts(shape);
  const width = widest(routings);
  const budget = settings.numPermutedTokens ?? Number.POSITIVE_INFINITY;
  const wanted = new Int32Array(numExperts);
  for (const { topkIdx } of routings) for (const expert of topkIdx) if (expert >= 0) wanted[expert]++;
  const nextRow = new Int32Array(numExperts);
  const counts = new Int32Array(numExperts);
  const padded = new Int32Array(numExperts);
  const numRows: number[] = [];
  for (let dst = 0; dst < numRanks; dst++) {
    let row = 0;
    for (let expert = dst * expertsPerRank; expert < (dst + 1) * expertsPerRank; expert++) {
      nextRow[expert] = row;
      counts[expert] = Math.min(wanted[expert], Math.max(0, budget - row));
      padded[expert] = roundUp(counts[expert], settings.padMultiple);
      row += roundUp(wanted[expert], settings.padMultiple);
    }
    numRows.push(settings.numPermutedTokens ?? rowCount(dst, row));
  }
  const overflow = new OverflowLog(numRanks);
  const slots = new Int32Array(width);
  const lists = routings.map((routing) => {
    const { sendRank, sendRow } = emptyLists(routing.numTokens, width);
    const sendExpert = sendRank.slice();
    const sendSlot = sendRank.slice();
    for (let token = 0; token < routing.numTokens; token++) {
      const count = slotsByExpert(routing, token, slots);
      let entry = token * width;
      for (let i = 0; i < count; i++) {
        const slot = slots[i];
        const expert = routing.topkIdx[token * routing.topk + slot];
        const dst = rankOf[expert];
        const row = nextRow[expert]++;
        if (row >= budget) {
          overflow.add(dst, routing.rank, token, slot, expert);
          continue;
        }
        sendRank[entry] = dst;
        sendRow[entry] = row;
        sendExpert[entry] = expert;
        sendSlot[entry++] = slot;
      }
    }
    return { sendRank, sendRow, sendExpert, sendSlot };
  });
  const meta: HandleMeta = {
    ...plainMeta("hybrid-ep", routings, shape, width),
    padMultiple: Math.max(1, settings.padMultiple),
    numPermutedTokens: settings.numPermutedTokens,
  };
  return assembleHandle(meta, routings, lists, width, numRows, (dst) => ({
    numTokensPerExpert: counts.slice(dst * expertsPerRank, (dst + 1) * expertsPerRank),
    tokensPerExpert: padded.slice(dst * expertsPerRank, (dst + 1) * expertsPerRank),
    overflow: overflow.of(dst),
  }));
}

/** Rows of a destination; positions are 32-bit, and padding can ask for more than any memory holds. */
function rowCount(dst: number, rows: number): number {
  if (rows <= MAX_ROWS) return rows;
  throw new InvalidArgument({
    name: "padMultiple",
    expected: `at most ${MAX_ROWS} permuted rows on a rank`,
    received: `${rows}`,
    where: { rank: dst },
    remedy: "lower padMultiple or give numPermutedTokens",
  });
}

/** [numExperts] owner of each expert: a load per slot instead of a division. */
function ranksOfExperts(shape: GroupShape): Int32Array {
  const expertsPerRank = numLocalExperts(shape);
  return Int32Array.from({ length: shape.numExperts }, (_, expert) => Math.floor(expert / expertsPerRank));
}

function widest(routings: readonly RankRouting[]): number {
  return routings.reduce((most, routing) => Math.max(most, routing.topk), 1);
}

/** Inserts `value` into the sorted, distinct prefix of `list`; returns the new count. */
function insertSorted(list: Int32Array, count: number, value: number): number {
  let at = count;
  while (at > 0 && list[at - 1] > value) at--;
  if (at > 0 && list[at - 1] === value) return count;
  for (let i = count; i > at; i--) list[i] = list[i - 1];
  list[at] = value;
  return count + 1;
}

/** Writes the token's chosen slots into `slots`, ascending by expert; returns how many. */
function slotsByExpert(routing: RankRouting, token: number, slots: Int32Array): number {
  const { topk, topkIdx } = routing;
  let count = 0;
  for (let slot = 0; slot < topk; slot++) {
    const expert = topkIdx[token * topk + slot];
    if (expert < 0) continue;
    let at = count++;
    while (at > 0 && topkIdx[token * topk + slots[at - 1]] > expert) {
      slots[at] = slots[at - 1];
      at--;
    }
    slots[at] = slot;
  }
  return count;
}
