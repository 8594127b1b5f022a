/** The handle from where the sources' rows go: the same whether the host or a device found the positions. */
import type { HandleData, HandleKind, HandleMeta, RankHandle } from "../handle/handle.ts";
import { tensor } from "../tensor.ts";
import type { GroupShape, RankRouting } from "./routing.ts";

/** Settings that change nothing; each style puts its own in their place. */
export function plainMeta(
  kind: HandleKind,
  routings: readonly RankRouting[],
  { numRanks, ranksPerNode, numExperts }: GroupShape,
  topk: number,
): HandleMeta {
  return {
    kind,
    numRanks,
    ranksPerNode,
    numExperts,
    topk,
    localRanks: routings.map(({ rank }) => rank),
    expertAlignment: 1,
    numWorstTokens: 0,
    padMultiple: 1,
    numPermutedTokens: null,
  };
}

/**
 * Adds the destinations' view (which source row lies in each row) to the sources' lists. `width`: entries per token;
 * `numRows` and `counts` by destination.
 */
export function assembleHandle(
  meta: HandleMeta,
  routings: readonly RankRouting[],
  lists: readonly Pick<RankHandle, "sendRank" | "sendRow" | "sendExpert" | "sendSlot">[],
  width: number,
  numRows: readonly number[],
  counts: (dst: number) => Pick<RankHandle, "numTokensPerExpert" | "tokensPerExpert" | "overflow">,
): HandleData {
  const rowSrcRank = numRows.map((rows) => tensor("i32", [rows]).data.fill(-1));
  const rowSrcToken = numRows.map((rows) => tensor("i32", [rows]).data.fill(-1));
  routings.forEach((routing, s) => {
    const { sendRank, sendRow } = lists[s];
    for (let token = 0; token < routing.numTokens; token++) {
      for (let entry = token * width; entry < (token + 1) * width && sendRank[entry] >= 0; entry++) {
        const dst = sendRank[entry];
        rowSrcRank[dst][sendRow[entry]] = routing.rank;
        rowSrcToken[dst][sendRow[entry]] = token;
      }
    }
  });
  return {
    meta,
    ranks: routings.map((routing, s) => ({
      rank: routing.rank,
      numTokens: routing.numTokens,
      numEntries: width,
      ...lists[s],
      numRows: numRows[routing.rank],
      rowSrcRank: rowSrcRank[routing.rank],
      rowSrcToken: rowSrcToken[routing.rank],
      ...counts(routing.rank),
    })),
  };
}
