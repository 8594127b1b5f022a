import type { HandleData } from "../handle/handle.ts";
import { rankLayout } from "./counts.ts";
import { numLocalExperts, type RankRouting } from "./routing.ts";

/** A law that every run must keep, and whether this one did. */
export interface Law {
  readonly law: string;
  readonly ok: boolean;
  readonly expected: number;
  readonly received: number;
}

/**
 * Conservation over a whole group (all ranks local): rows sent = rows received, every chosen (token, slot) arrives exactly
 * once or is reported cut, and the counts per expert are the bincount of the ids.
 */
export function conservationLaws(data: HandleData, routings: readonly RankRouting[]): Law[] {
  const { meta } = data;
  const sum = (values: Iterable<number>) => [...values].reduce((total, value) => total + value, 0);
  const sent = sum(data.ranks.map((rank) => countAtLeast(rank.sendRank, 0)));
  const received = sum(data.ranks.map((rank) => countAtLeast(rank.rowSrcRank, 0)));
  const chosen = sum(routings.map((routing) => countAtLeast(routing.topkIdx, 0)));
  const arrived = sum(data.ranks.map((rank) => sum(rank.numTokensPerExpert)));
  const cut = sum(data.ranks.map((rank) => rank.overflow.numCut));
  const layouts = routings.map((routing) => rankLayout(routing, meta));
  const perRank = numLocalExperts(meta);
  let wrongCounts = 0;
  data.ranks.forEach((rank) => {
    const cutOf = new Map<number, number>();
    for (let i = 3; i < rank.overflow.cut.length; i += 4) {
      cutOf.set(rank.overflow.cut[i], (cutOf.get(rank.overflow.cut[i]) ?? 0) + 1);
    }
    rank.numTokensPerExpert.forEach((count, local) => {
      const expert = rank.rank * perRank + local;
      const wanted = sum(layouts.map((layout) => layout.numTokensPerExpert[expert]));
      if (count + (cutOf.get(expert) ?? 0) !== wanted) wrongCounts++;
    });
  });
  return [
    law("rows sent = rows received", sent, received),
    law("each chosen (token, slot) arrives once, or is cut", chosen, arrived + cut),
    law("experts whose count is not the bincount of the ids", 0, wrongCounts),
  ];
}

function law(name: string, expected: number, received: number): Law {
  return { law: name, ok: expected === received, expected, received };
}

function countAtLeast(values: Int32Array, least: number): number {
  let count = 0;
  for (const value of values) if (value >= least) count++;
  return count;
}
