import { InvalidArgument, type Place } from "../errors.ts";
import { roundUp } from "../layout/counts.ts";
import { checkShape } from "../layout/routing.ts";
import { checkMeta, HANDLE_REMEDY } from "./checkMeta.ts";
import type { HandleData, RankHandle } from "./handle.ts";

/**
 * The invariants of a handle (docs/handle.md), checked wherever one comes from outside: sizes, ranges, the order of
 * entries and rows, and that sources and destinations agree row by row. A handle that passes cannot make any backend
 * read or write out of bounds. Throws InvalidArgument naming rank, token and slot (entry) or row.
 */
export function checkHandleData(data: HandleData): void {
  checkShape(data.meta);
  checkMeta(data);
  const byRank = new Map(data.ranks.map((rank) => [rank.rank, rank]));
  for (const rank of data.ranks) checkCounts(data, rank);
  const blocks = new Map(data.ranks.map((rank) => [rank.rank, blockOffsets(rank)]));
  for (const rank of data.ranks) checkEntries(data, rank, byRank, blocks);
  for (const rank of data.ranks) {
    checkRowOrder(data, rank);
    checkRowSources(rank, byRank);
    checkCut(data, rank, byRank);
  }
}

/** Counts per local expert: what is rounded or padded follows from what was received. */
function checkCounts({ meta }: HandleData, rank: RankHandle): void {
  const multiple = meta.kind === "fused" ? meta.expertAlignment : meta.padMultiple;
  const where = { rank: rank.rank };
  let most = 0;
  rank.numTokensPerExpert.forEach((count, expert) => {
    if (count < 0 || count > rank.numRows) {
      throw bad("handle.num_tokens_per_expert", `0..${rank.numRows} for local expert ${expert}`, `${count}`, where);
    }
    const rounded = roundUp(count, multiple);
    most += rounded;
    if (rank.tokensPerExpert.length === 0 || rank.tokensPerExpert[expert] === rounded) return;
    const expected = `${rounded} for local expert ${expert}`;
    throw bad("handle.tokens_per_expert", expected, `${rank.tokensPerExpert[expert]}`, where);
  });
  const exact = meta.numPermutedTokens === null;
  if (meta.kind === "hybrid-ep" && (exact ? most !== rank.numRows : most > rank.numRows)) {
    throw bad("handle.tokens_per_expert", `a sum of ${exact ? "" : "at most "}${rank.numRows}`, `${most}`, where);
  }
}

function checkEntries(
  data: HandleData,
  rank: RankHandle,
  byRank: Map<number, RankHandle>,
  blocks: Map<number, Int32Array>,
): void {
  const expertsPerRank = data.meta.numExperts / data.meta.numRanks;
  const tokenOfSlot = new Int32Array(data.meta.topk).fill(-1);
  for (let token = 0; token < rank.numTokens; token++) {
    const first = token * rank.numEntries;
    let before = -1;
    let ended = false;
    for (let entry = first; entry < first + rank.numEntries; entry++) {
      const dst = rank.sendRank[entry];
      const row = rank.sendRow[entry];
      const slot = rank.sendSlot?.[entry] ?? -1;
      const expert = rank.sendExpert?.[entry] ?? -1;
      const where = { rank: rank.rank, token, slot: entry - first };
      if (dst === -1) {
        ended = true;
        if (row === -1 && slot === -1 && expert === -1) continue;
        throw bad("handle.send_row", "-1 in an unused entry", `row ${row}, expert ${expert}, slot ${slot}`, where);
      }
      const key = rank.sendExpert === null ? dst : expert;
      const ascending = !ended && key > before && dst >= 0 && dst < data.meta.numRanks;
      const owned = rank.sendExpert === null || Math.floor(key / expertsPerRank) === dst;
      if (!ascending || !owned) throw bad("handle.send_rank", "entries ascending, then -1", `${dst}`, where);
      before = key;
      if (rank.sendSlot !== null) {
        const known = slot >= 0 && slot < tokenOfSlot.length && tokenOfSlot[slot] !== token;
        if (!known) throw bad("handle.send_slot", `each of 0..${tokenOfSlot.length - 1} once`, `${slot}`, where);
        tokenOfSlot[slot] = token;
      }
      const target = byRank.get(dst);
      if (row < 0 || (target !== undefined && row >= target.numRows)) {
        throw bad("handle.send_row", `0..${(target?.numRows ?? 0) - 1}`, `${row}`, where);
      }
      if (target === undefined) continue;
      if (target.rowSrcRank[row] !== rank.rank || target.rowSrcToken[row] !== token) {
        const received = `rank ${target.rowSrcRank[row]}, token ${target.rowSrcToken[row]}`;
        throw bad("handle.row_src_rank", `row ${row} of rank ${dst} to name this token`, received, where);
      }
      if (rank.sendExpert === null) continue;
      const local = expert - dst * expertsPerRank;
      const start = blocks.get(dst)?.[local] ?? 0;
      const end = start + target.numTokensPerExpert[local];
      if (row < start || row >= end) {
        throw bad("handle.send_row", `${start}..${end - 1}, the rows of expert ${expert}`, `${row}`, where);
      }
    }
  }
}

/** [L] first row of each local expert's block (hybrid-ep). */
function blockOffsets(rank: RankHandle): Int32Array {
  let row = 0;
  return rank.tokensPerExpert.map((count) => {
    row += count;
    return row - count;
  });
}

/** Rows of a block ascend by (source rank, source token); padding and the tail are -1. Fused: all rows are one block. */
function checkRowOrder({ meta }: HandleData, rank: RankHandle): void {
  const hybrid = meta.kind === "hybrid-ep";
  const real = rank.rowSrcRank.indexOf(-1);
  const fusedRows = real < 0 ? rank.numRows : real;
  const counts = hybrid ? rank.numTokensPerExpert : [fusedRows];
  const sizes = hybrid ? rank.tokensPerExpert : [rank.numRows];
  let row = 0;
  counts.forEach((count, block) => {
    for (let i = 0; i < count; i++, row++) {
      const [src, token] = [rank.rowSrcRank[row], rank.rowSrcToken[row]];
      const ascends =
        i === 0 ||
        src > rank.rowSrcRank[row - 1] ||
        (src === rank.rowSrcRank[row - 1] && token > rank.rowSrcToken[row - 1]);
      const named = src >= 0 && src < meta.numRanks && token >= 0;
      if (ascends && named) continue;
      const where = { rank: rank.rank, row };
      throw bad("handle.row_src_rank", "rows ascending by source rank and token", `rank ${src}, token ${token}`, where);
    }
    row = expectEmpty(rank, row, row + sizes[block] - count);
  });
  expectEmpty(rank, row, rank.numRows);
  if (!hybrid && meta.numWorstTokens === 0 && fusedRows !== rank.numRows) {
    throw bad("handle.row_src_rank", "a source for every row", "-1", { rank: rank.rank, row: fusedRows });
  }
}

function expectEmpty(rank: RankHandle, from: number, to: number): number {
  for (let row = from; row < to; row++) {
    const [src, token] = [rank.rowSrcRank[row], rank.rowSrcToken[row]];
    if (src === -1 && token === -1) continue;
    throw bad("handle.row_src_rank", "-1 in padding and tail", `rank ${src}, token ${token}`, { rank: rank.rank, row });
  }
  return to;
}

/** Every row that names a source must be one the source sends: otherwise a row would be read that nobody promised. */
function checkRowSources(rank: RankHandle, byRank: Map<number, RankHandle>): void {
  for (let row = 0; row < rank.numRows; row++) {
    const source = byRank.get(rank.rowSrcRank[row]);
    if (source === undefined) continue;
    const token = rank.rowSrcToken[row];
    const where = { rank: rank.rank, row };
    if (token >= source.numTokens) throw bad("handle.row_src_token", `0..${source.numTokens - 1}`, `${token}`, where);
    const first = token * source.numEntries;
    let sent = false;
    for (let entry = first; entry < first + source.numEntries && !sent; entry++) {
      sent = source.sendRank[entry] === rank.rank && source.sendRow[entry] === row;
    }
    if (!sent) throw bad("handle.row_src_token", `a token that is sent to row ${row}`, `token ${token}`, where);
  }
}

function checkCut({ meta }: HandleData, rank: RankHandle, byRank: Map<number, RankHandle>): void {
  const { cut, numCut, flag } = rank.overflow;
  const where = { rank: rank.rank };
  const budget = meta.kind === "fused" ? meta.numWorstTokens > 0 : meta.numPermutedTokens !== null;
  if (numCut > 0 && !budget) throw bad("handle.overflow_cut", "none without a row budget", `${numCut}`, where);
  if (cut.length !== numCut * 4 || flag !== numCut > 0) {
    throw bad("handle.overflow_cut", `[${numCut}, 4] and its flag`, `${cut.length} elements, flag ${flag}`, where);
  }
  const expertsPerRank = meta.numExperts / meta.numRanks;
  for (let i = 0; i < cut.length; i += 4) {
    const [src, token, slot, expert] = cut.subarray(i, i + 4);
    const numTokens = byRank.get(src)?.numTokens ?? Number.POSITIVE_INFINITY;
    const named = src >= 0 && src < meta.numRanks && token >= 0 && token < numTokens && slot >= 0 && slot < meta.topk;
    const ordered = i === 0 || src > cut[i - 4] || (src === cut[i - 4] && token >= cut[i - 3]);
    if (named && ordered && Math.floor(expert / expertsPerRank) === rank.rank) continue;
    const received = `rank ${src}, token ${token}, slot ${slot}, expert ${expert}`;
    throw bad("handle.overflow_cut", "slots of this rank's experts in order of source", received, where);
  }
}

function bad(name: string, expected: string, received: string, where: Place): InvalidArgument {
  return new InvalidArgument({ name, expected, received, where, remedy: HANDLE_REMEDY });
}
