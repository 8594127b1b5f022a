import { InvalidArgument, type Place } from "../errors.ts";
import { checkShape } from "../layout/routing.ts";
import type { HandleData, RankHandle } from "./handle.ts";

/**
 * The invariants of a handle, checked wherever one comes from outside: array lengths, ranges, ascending lists, and that
 * sources and destinations agree row by row. A handle that passes cannot make any backend read or write out of bounds.
 * Throws InvalidArgument naming rank, token and slot (entry) or row.
 */
export function checkHandleData(data: HandleData): void {
  checkShape(data.meta);
  const byRank = new Map(data.ranks.map((rank) => [rank.rank, rank]));
  for (const rank of data.ranks) {
    checkLengths(data, rank);
    checkEntries(data, rank, byRank);
    checkRows(data, rank, byRank);
  }
}

function checkLengths(data: HandleData, rank: RankHandle): void {
  const entries = rank.numTokens * rank.numEntries;
  const sizes: [string, number, number][] = [
    ["send_rank", rank.sendRank.length, entries],
    ["send_row", rank.sendRow.length, entries],
    ["row_src_rank", rank.rowSrcRank.length, rank.numRows],
    ["row_src_token", rank.rowSrcToken.length, rank.numRows],
    ["num_tokens_per_expert", rank.numTokensPerExpert.length, data.meta.numExperts / data.meta.numRanks],
  ];
  if (rank.sendExpert !== null) sizes.push(["send_expert", rank.sendExpert.length, entries]);
  if (rank.sendSlot !== null) sizes.push(["send_slot", rank.sendSlot.length, entries]);
  for (const [name, received, expected] of sizes) {
    if (received !== expected) throw bad(`handle.${name}`, `${expected} elements`, `${received}`, { rank: rank.rank });
  }
}

function checkEntries(data: HandleData, rank: RankHandle, byRank: Map<number, RankHandle>): void {
  const expertsPerRank = data.meta.numExperts / data.meta.numRanks;
  for (let token = 0; token < rank.numTokens; token++) {
    const first = token * rank.numEntries;
    let before = -1;
    let ended = false;
    for (let entry = first; entry < first + rank.numEntries; entry++) {
      const dst = rank.sendRank[entry];
      const where = { rank: rank.rank, token, slot: entry - first };
      if (dst === -1) {
        ended = true;
        continue;
      }
      const key = rank.sendExpert === null ? dst : rank.sendExpert[entry];
      const ascending = !ended && key > before && dst >= 0 && dst < data.meta.numRanks;
      const owned = rank.sendExpert === null || Math.floor(key / expertsPerRank) === dst;
      if (!ascending || !owned) throw bad("handle.send_rank", "entries ascending, then -1", `${dst}`, where);
      before = key;
      const row = rank.sendRow[entry];
      const target = byRank.get(dst);
      if (row < 0 || (target !== undefined && row >= target.numRows)) {
        throw bad("handle.send_row", `0..${(target?.numRows ?? 0) - 1}`, `${row}`, where);
      }
      if (target !== undefined && (target.rowSrcRank[row] !== rank.rank || target.rowSrcToken[row] !== token)) {
        const received = `rank ${target.rowSrcRank[row]}, token ${target.rowSrcToken[row]}`;
        throw bad("handle.row_src_rank", `row ${row} of rank ${dst} to name this token`, received, where);
      }
    }
  }
}

/** Every row that names a source must be one the source sends: otherwise a row would be read that nobody promised. */
function checkRows(data: HandleData, rank: RankHandle, byRank: Map<number, RankHandle>): void {
  for (let row = 0; row < rank.numRows; row++) {
    const src = rank.rowSrcRank[row];
    const token = rank.rowSrcToken[row];
    const where = { rank: rank.rank, row };
    if (src === -1 && token === -1) continue;
    if (src < 0 || src >= data.meta.numRanks) {
      throw bad("handle.row_src_rank", `-1..${data.meta.numRanks - 1}`, `${src}`, where);
    }
    const source = byRank.get(src);
    if (source === undefined) continue;
    if (token < 0 || token >= source.numTokens) {
      throw bad("handle.row_src_token", `0..${source.numTokens - 1}`, `${token}`, where);
    }
    const first = token * source.numEntries;
    let sent = false;
    for (let entry = first; entry < first + source.numEntries && !sent; entry++) {
      sent = source.sendRank[entry] === rank.rank && source.sendRow[entry] === row;
    }
    if (!sent) throw bad("handle.row_src_token", `a token that is sent to row ${row}`, `token ${token}`, where);
  }
}

function bad(name: string, expected: string, received: string, where: Place): InvalidArgument {
  return new InvalidArgument({
    name,
    expected,
    received,
    where,
    remedy: "use the handle tensors of one dispatch, unchanged",
  });
}
