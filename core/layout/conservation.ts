import type { HandleData } from "../handle/handle.ts";
import { rankLayout } from "./counts.ts";
import { numLocalExperts, type RankRouting } from "./routing.ts";

/** A law that every run must keep, and whether this one did. */
export interface Law {
  readonly law: string;
  readonly ok: boolean;
  readonly expected: number;
  readonly received: number;
  /** Where a law that must hold at every place is broken first. */
  readonly first?: Place;
}

export interface Place {
  readonly where: string;
  readonly expected: number;
  readonly received: number;
}

/** What the laws need of one rank: small enough to travel between processes. */
export interface RankTally {
  readonly rank: number;
  readonly numSent: number;
  readonly numReceived: number;
  /** Per local expert: rows, and slots that did not fit. */
  readonly numTokensPerExpert: readonly number[];
  readonly numCutPerExpert: readonly number[];
  readonly numCut: number;
}

/** The tallies of the ranks of a handle. */
export function tally({ meta, ranks }: HandleData): RankTally[] {
  const perRank = numLocalExperts(meta);
  return ranks.map(({ rank, sendRank, rowSrcRank, numTokensPerExpert, overflow }) => {
    const numCutPerExpert = new Array<number>(perRank).fill(0);
    for (let i = 3; i < overflow.cut.length; i += 4) numCutPerExpert[overflow.cut[i] - rank * perRank]++;
    return {
      rank,
      numSent: countAtLeast(sendRank, 0),
      numReceived: countAtLeast(rowSrcRank, 0),
      numTokensPerExpert: [...numTokensPerExpert],
      numCutPerExpert,
      numCut: overflow.numCut,
    };
  });
}

/**
 * Conservation over a whole group: rows sent = rows received, every chosen (token, slot) arrives exactly once or is
 * reported cut, and the counts per expert are the bincount of the ids. One tally and one routing per rank of the group.
 */
export function conservationOf(
  tallies: readonly RankTally[],
  routings: readonly RankRouting[],
  shape: Parameters<typeof rankLayout>[1],
): Law[] {
  const total = (pick: (one: RankTally) => number) => sum(tallies.map(pick));
  const chosen = sum(routings.map((routing) => countAtLeast(routing.topkIdx, 0)));
  const layouts = routings.map((routing) => rankLayout(routing, shape));
  const perRank = numLocalExperts(shape);
  const counts = tallies.flatMap(({ rank, numTokensPerExpert, numCutPerExpert }) =>
    numTokensPerExpert.map((count, local) => {
      const expert = rank * perRank + local;
      const expected = sum(layouts.map((layout) => layout.numTokensPerExpert[expert]));
      return { where: `expert ${expert} on rank ${rank}`, expected, received: count + numCutPerExpert[local] };
    }),
  );
  return [
    law(
      "rows sent = rows received",
      total(({ numSent }) => numSent),
      total(({ numReceived }) => numReceived),
    ),
    law(
      "each chosen (token, slot) arrives once, or is cut",
      chosen,
      total(({ numTokensPerExpert, numCut }) => sum(numTokensPerExpert) + numCut),
    ),
    placewise("each expert's count = the bincount of the ids", counts),
  ];
}

/** The laws of a handle that holds all ranks of its group. */
export function conservationLaws(data: HandleData, routings: readonly RankRouting[]): Law[] {
  return conservationOf(tally(data), routings, data.meta);
}

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

function law(name: string, expected: number, received: number): Law {
  return { law: name, ok: expected === received, expected, received };
}

/** A law that must hold at every place; `expected` and `received` are those of all places together. */
export function placewise(name: string, places: readonly Place[]): Law {
  const first = places.find(({ expected, received }) => expected !== received);
  const expected = sum(places.map((place) => place.expected));
  const received = sum(places.map((place) => place.received));
  return { law: name, ok: first === undefined, expected, received, ...(first && { first }) };
}

function countAtLeast(values: Int32Array, least: number): number {
  let count = 0;
  for (const value of values) if (value >= least) count++;
  return count;
}
