/**
 * Lateness that a rank answers for. Whoever comes late to an operation because rows came slowly to it in the one before is
 * not late itself: what it spent in transfers there, beyond what the one who waits for it spent, is not counted. A transfer
 * counts by what is usual between its two ranks, so that a process that stands still in the middle of one stays late.
 */
import type { Phase } from "../backend.ts";
import { ARRIVAL_PHASE, lowerMedian, transfers } from "./messages.ts";

/** A transfer of more than so many times the usual is no matter of the link. */
const UNUSUAL = 2;
/** With fewer transfers between two ranks nothing is usual. */
const LEAST_TRANSFERS = 3;

/** [R, R] microseconds: how much later the column's rank came than the row's, over all operations. */
export function latenessUs(phases: readonly Phase[], numRanks: number): Float32Array {
  const late = new Float32Array(numRanks * numRanks);
  const starts = agreementStarts(phases, numRanks);
  const spent = timeInTransfers(phases, starts);
  const agrees = phases.filter(({ name, srcRank }) => name === ARRIVAL_PHASE && srcRank !== undefined);
  const apart = new Set(agrees.map(({ rank, srcRank }) => `${rank} ${srcRank}`));
  const ranks = [...Array(numRanks).keys()];
  // Ranks of one process come together: when the slowest of them is through.
  const spentTogether = ranks.map((rank) => {
    const together = ranks.filter((other) => !apart.has(`${rank} ${other}`));
    return spent[rank].map((_, operation) => Math.max(...together.map((other) => spent[other][operation] ?? 0)));
  });
  for (const { rank, srcRank, startUs, durationUs } of agrees as (Phase & { srcRank: number })[]) {
    const before = starts[rank].indexOf(startUs) - 1;
    const more = before < 0 ? 0 : (spentTogether[srcRank][before] ?? 0) - (spentTogether[rank][before] ?? 0);
    late[rank * numRanks + srcRank] += Math.max(0, durationUs - Math.max(0, more));
  }
  return late;
}

/** When each rank's agreements began, by its own clock, one per operation. */
function agreementStarts(phases: readonly Phase[], numRanks: number): number[][] {
  const starts = Array.from({ length: numRanks }, () => new Set<number>());
  for (const { rank, name, startUs } of phases) if (name === ARRIVAL_PHASE) starts[rank].add(startUs);
  return starts.map((set) => [...set].sort((a, b) => a - b));
}

/** Per rank and operation: how long at least one transfer was under way. */
function timeInTransfers(phases: readonly Phase[], starts: readonly (readonly number[])[]): number[][] {
  const all = transfers(phases).filter(({ rank }) => rank >= 0);
  const durations = new Map<string, number[]>();
  const pair = (phase: Phase) => `${phase.rank} ${phase.srcRank}`;
  for (const phase of all) durations.set(pair(phase), [...(durations.get(pair(phase)) ?? []), phase.durationUs]);
  const most = new Map([...durations].map(([key, of]) => [key, UNUSUAL * lowerMedian(of)]));
  const spent = starts.map((own) => own.map(() => 0));
  const through = starts.map(() => Number.NEGATIVE_INFINITY);
  for (const phase of all) {
    const { rank, startUs, durationUs } = phase;
    const operation = starts[rank].filter((start) => start <= startUs).length - 1;
    if (operation < 0) continue;
    const isUsual = (durations.get(pair(phase))?.length ?? 0) < LEAST_TRANSFERS;
    const endUs = startUs + (isUsual ? durationUs : Math.min(durationUs, most.get(pair(phase)) ?? durationUs));
    spent[rank][operation] += Math.max(0, endUs - Math.max(startUs, through[rank]));
    through[rank] = Math.max(through[rank], endUs);
  }
  return spent;
}
