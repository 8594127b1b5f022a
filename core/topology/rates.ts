/**
 * How fast the network was, in absolute figures, to be held against what the hardware can do: a path that is slow both ways,
 * or everywhere, is slow beside nothing. A message takes the time that both its ends were at it (messages.ts).
 */
import type { Phase } from "../backend.ts";
import { lowerMedian, messagesOf } from "./messages.ts";

interface Shape {
  readonly numRanks: number;
  readonly ranksPerNode: number;
}

export interface PairRate {
  readonly srcRank: number;
  readonly rank: number;
  /** They send to each other in one step: the bytes are those of the fuller direction, and either one may be the slow one. */
  readonly orBack: boolean;
  readonly bytes: number;
  readonly us: number;
  readonly GBps: number;
}

export interface NetworkRate {
  /** All that crossed, and what a message of the pairs below had of it on average. */
  readonly bytes: number;
  readonly messageBytes: number;
  /** What each rank received of the pairs below, over the time of that; the lower one of two middle NICs. */
  readonly nics: readonly { readonly rank: number; readonly GBps: number }[];
  readonly nicGBps: number;
  readonly pairGBps: number;
  readonly slowest: PairRate;
}

/**
 * From the phases of one name, of all ranks; `bytes`: what `rank` received of `srcRank` in them all. Null where nothing
 * crossed, or the phases name no ranks.
 */
export function networkRate(
  phases: readonly Phase[],
  name: string,
  shape: Shape,
  bytes: (rank: number, srcRank: number) => number,
): NetworkRate | null {
  const messages = messagesOf(phases.filter((phase) => phase.name === name));
  const all = new Map<string, { rank: number; srcRank: number; us: number; numMessages: number }>();
  for (const { rank, srcRank, us } of messages) {
    const key = `${rank} ${srcRank}`;
    const before = all.get(key) ?? { rank, srcRank, us: 0, numMessages: 0 };
    all.set(key, { ...before, us: before.us + us, numMessages: before.numMessages + 1 });
  }
  const counted = [...all.values()].filter((one) => one.us > 0 && isItsOwn(one, shape, bytes));
  if (counted.length === 0) return null;
  const pairs = counted.map(({ rank, srcRank, us }): PairRate => {
    const own = bytes(rank, srcRank);
    return { srcRank, rank, orBack: isShared(rank, srcRank, shape), bytes: own, us, GBps: own / us / 1e3 };
  });
  const nics = nicRates(pairs);
  return {
    bytes: sum([...all.values()].map(({ rank, srcRank }) => bytes(rank, srcRank))),
    messageBytes: sum(pairs.map((one) => one.bytes)) / sum(counted.map(({ numMessages }) => numMessages)),
    nics,
    nicGBps: lowerMedian(nics.map(({ GBps }) => GBps)),
    pairGBps: lowerMedian(pairs.map(({ GBps }) => GBps)),
    slowest: pairs.reduce((slowest, pair) => (pair.GBps < slowest.GBps ? pair : slowest)),
  };
}

/** The opposite one of an even ring, the other one of two: source and destination of the same step. */
function isShared(rank: number, srcRank: number, { numRanks }: Shape): boolean {
  return 2 * Math.abs(rank - srcRank) === numRanks;
}

/**
 * Whether the time of a pair's messages is theirs. A step of a rank ends when both what it receives and what it sends is
 * through: where both ends had more to move with others, those made the time.
 */
function isItsOwn(
  { rank, srcRank }: { readonly rank: number; readonly srcRank: number },
  shape: Shape,
  bytes: (rank: number, srcRank: number) => number,
): boolean {
  const { numRanks } = shape;
  const own = bytes(rank, srcRank);
  const [next, previous] = [2 * rank - srcRank, 2 * srcRank - rank].map((one) => (one + numRanks) % numRanks);
  const others = Math.min(bytes(next, rank), bytes(srcRank, previous));
  // Equal both ways, one of the two speaks for both.
  if (own === others && isShared(rank, srcRank, shape)) return own > 0 && rank < srcRank;
  return own > 0 && own >= others;
}

function nicRates(pairs: readonly PairRate[]): NetworkRate["nics"] {
  const ranks = new Set(pairs.flatMap(({ rank, srcRank, orBack }) => (orBack ? [rank, srcRank] : [rank])));
  return [...ranks]
    .sort((a, b) => a - b)
    .map((rank) => {
      const own = pairs.filter((pair) => pair.rank === rank || (pair.orBack && pair.srcRank === rank));
      return { rank, GBps: sum(own.map(({ bytes }) => bytes)) / sum(own.map(({ us }) => us)) / 1e3 };
    });
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
