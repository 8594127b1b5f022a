/** The messages of a run over several processes, from the phases of both their ends. */
import type { Phase } from "../backend.ts";

/** The phase in which processes wait for each other's arrival. */
export const ARRIVAL_PHASE = "agree";

export interface Message {
  readonly srcRank: number;
  readonly rank: number;
  readonly us: number;
}

/** Phases that wait for rows of a rank, in their order on each rank. */
export function transfers(phases: readonly Phase[]): (Phase & { srcRank: number })[] {
  return phases
    .filter(
      (phase): phase is Phase & { srcRank: number } => phase.srcRank !== undefined && phase.name !== ARRIVAL_PHASE,
    )
    .sort((a, b) => a.startUs - b.startUs);
}

/**
 * How long each message was under way. Ranks exchange in the steps of a ring: in its n-th phase of a name a rank receives
 * from one and sends to another, and the phase ends when both are done. A slow message keeps both its ends in the step; one
 * that waits alone waits for a rank that came late from the step before. So a message takes what both ends have in common,
 * and the clocks of processes need not agree. Where a step's source is its destination too (the opposite one of an even
 * ring, the other one of two) both directions look alike.
 */
export function messagesOf(phases: readonly Phase[]): Message[] {
  const durations = new Map<string, number>();
  const count = new Map<string, number>();
  const steps = transfers(phases).map(({ rank, name, srcRank, durationUs }) => {
    const n = count.get(`${rank} ${name}`) ?? 0;
    count.set(`${rank} ${name}`, n + 1);
    durations.set(`${rank} ${name} ${n}`, durationUs);
    return { rank, srcRank, durationUs, atSender: `${srcRank} ${name} ${n}` };
  });
  return steps.map(({ rank, srcRank, durationUs, atSender }) => ({
    rank,
    srcRank,
    us: Math.min(durationUs, durations.get(atSender) ?? durationUs),
  }));
}

/** The lower one of two middle values; NaN of none. */
export function lowerMedian(values: readonly number[]): number {
  return values.length === 0 ? Number.NaN : [...values].sort((a, b) => a - b)[(values.length - 1) >> 1];
}
