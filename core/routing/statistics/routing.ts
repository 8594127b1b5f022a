import { roundUp } from "../../layout/counts.ts";
import type { RoutingCounts } from "./counts.ts";
import { type LoadStatistics, loadStatistics } from "./load.ts";

/** A layer's load per expert, rank and node, and how its tokens travel. Shares are null when there is nothing to share. */
export interface RoutingStatistics {
  /** Slots per expert. */
  readonly experts: LoadStatistics;
  /** Slots per destination rank: the rows its experts compute. */
  readonly ranks: LoadStatistics;
  /** Rows per destination rank: what it receives. */
  readonly rows: LoadStatistics;
  /** Slots per destination node. */
  readonly nodes: LoadStatistics;
  /** Slots per expert and per rank with every expert's count rounded up to padMultiple; null without padding. */
  readonly padded: { readonly experts: LoadStatistics; readonly ranks: LoadStatistics } | null;
  readonly paddingShare: number | null;
  readonly dedupFactor: number | null;
  readonly nodeDedupFactor: number | null;
  readonly rowsPerToken: number | null;
  readonly remoteShare: number | null;
  readonly remoteNodeShare: number | null;
  readonly droppedShare: number | null;
}

/** What each number of RoutingStatistics is. */
export const ROUTING_FORMULAS: Readonly<Record<keyof RoutingStatistics, string>> = {
  experts: "x = slots (token, k) per expert",
  ranks: "x = slots per destination rank",
  rows: "x = rows per destination rank; a row is a (token, destination rank) pair",
  nodes: "x = slots per destination node",
  padded: "x = ceil(slots / padMultiple) * padMultiple per expert; per rank their sum",
  paddingShare: "(padded slots - slots) / padded slots",
  dedupFactor: "slots / rows: how often a sent row is used",
  nodeDedupFactor: "rows / (token, destination node) pairs",
  rowsPerToken: "rows / tokens: destination ranks per token",
  remoteShare: "rows whose destination is not their source / rows",
  remoteNodeShare: "(token, destination node) pairs that leave the source's node / all of them",
  droppedShare: "slots of -1 / (slots of -1 + slots)",
};

/** Statistics of counted routing; `padMultiple` 0 or 1 = no padding. */
export function routingStatistics(counts: RoutingCounts, padMultiple = 1): RoutingStatistics {
  const { numSlots, numRows, numNodeRows, numTokens, numDroppedSlots } = counts;
  const padded = padMultiple > 1 ? padCounts(counts, padMultiple) : null;
  return {
    experts: loadStatistics(counts.slotsPerExpert),
    ranks: loadStatistics(counts.slotsPerRank),
    rows: loadStatistics(counts.rowsPerRank),
    nodes: loadStatistics(counts.slotsPerNode),
    padded,
    paddingShare: padded && ratio(padded.experts.total - numSlots, padded.experts.total),
    dedupFactor: ratio(numSlots, numRows),
    nodeDedupFactor: ratio(numRows, numNodeRows),
    rowsPerToken: ratio(numRows, numTokens),
    remoteShare: ratio(counts.numRemoteRows, numRows),
    remoteNodeShare: ratio(counts.numRemoteNodeRows, numNodeRows),
    droppedShare: numTokens > 0 ? ratio(numDroppedSlots, numDroppedSlots + numSlots) : null,
  };
}

function padCounts(counts: RoutingCounts, padMultiple: number) {
  const experts = Float64Array.from(counts.slotsPerExpert, (slots) => roundUp(slots, padMultiple));
  const ranks = new Float64Array(counts.slotsPerRank.length);
  const local = experts.length / ranks.length;
  experts.forEach((slots, expert) => {
    ranks[Math.floor(expert / local)] += slots;
  });
  return { experts: loadStatistics(experts), ranks: loadStatistics(ranks) };
}

function ratio(numerator: number, denominator: number): number | null {
  return denominator > 0 ? numerator / denominator : null;
}
