/**
 * Who kept the others waiting in the middle of an operation: a process that was stopped, or whose computer did something
 * else. An end of a message that waits for longer than the message was under way waits for the other end to come. That one
 * answers for what it came later, without its own messages and collectives: those are the link's. What it waited itself
 * before is not its own. Clocks of two processes are compared twice,
 * by when they left the agreement and by when most of their common steps ended; what both allow counts.
 */
import type { Phase } from "../backend.ts";
import { ARRIVAL_PHASE, lowerMedian, transfers } from "./messages.ts";

interface Step {
  readonly rank: number;
  readonly key: string;
  readonly srcRank: number;
  readonly startUs: number;
  readonly durationUs: number;
}

export interface Stalls {
  /** [R]: how long each rank kept another one waiting. */
  readonly keptUs: Float64Array;
  /** Of each rank: when it waited alone, in the middle of a transfer. */
  readonly alone: readonly (readonly { readonly fromUs: number; readonly toUs: number }[])[];
}

export function stalls(phases: readonly Phase[], numRanks: number): Stalls {
  const steps = stepsOf(phases);
  const at = new Map(steps.map((step) => [`${step.rank} ${step.key}`, step]));
  const destination = new Map(steps.map((step) => [`${step.srcRank} ${step.key}`, step]));
  const messageUs = (step: Step) => {
    const sender = at.get(`${step.srcRank} ${step.key}`);
    const receiver = destination.get(`${step.rank} ${step.key}`);
    const [received, sent] = [sender, receiver].map((end) => Math.min(step.durationUs, end?.durationUs ?? 0));
    return Math.max(received, sent);
  };
  const entry = entries(phases, steps, messageUs, numRanks);
  const ahead = clocksAhead(steps, at);
  const kept = new Float64Array(numRanks * numRanks);
  const waited = new Float64Array(numRanks);
  const alone = Array.from({ length: numRanks }, () => [] as { fromUs: number; toUs: number }[]);
  for (const step of steps) {
    const aloneUs = step.durationUs - messageUs(step);
    if (aloneUs <= 0) continue;
    const endUs = step.startUs + step.durationUs;
    alone[step.rank].push({ fromUs: endUs - aloneUs, toUs: endUs });
    const ends = [at.get(`${step.srcRank} ${step.key}`), destination.get(`${step.rank} ${step.key}`)];
    const later = ends
      .filter((end) => end !== undefined)
      .map((end) => {
        const [there, here] = [entry.get(end), entry.get(step)];
        if (there === undefined || here === undefined) return { rank: end.rank, us: 0 };
        const aheadUs = Math.max(there.leftUs - here.leftUs, ahead(end.rank, step.rank));
        return { rank: end.rank, us: there.us - here.us - aheadUs };
      })
      .filter(({ us }) => us > 0)
      .sort((a, b) => b.us - a.us)[0];
    if (later === undefined) continue;
    kept[step.rank * numRanks + later.rank] += Math.min(aloneUs, later.us);
    waited[step.rank] += Math.min(aloneUs, later.us);
  }
  const keptUs = Float64Array.from({ length: numRanks }, (_, rank) => {
    const longest = Math.max(...Array.from({ length: numRanks }, (_, other) => kept[other * numRanks + rank]));
    return Math.max(0, longest - waited[rank]);
  });
  return { keptUs, alone };
}

function stepsOf(phases: readonly Phase[]): Step[] {
  const count = new Map<string, number>();
  return transfers(phases)
    .filter(({ rank }) => rank >= 0)
    .map(({ rank, name, srcRank, startUs, durationUs }) => {
      const n = count.get(`${rank} ${name}`) ?? 0;
      count.set(`${rank} ${name}`, n + 1);
      return { rank, key: `${name} ${n}`, srcRank, startUs, durationUs };
    });
}

interface Entry {
  /** When the rank came to the step, less its messages and collectives since the agreement before. */
  readonly us: number;
  /** When it left that agreement. */
  readonly leftUs: number;
}

function entries(
  phases: readonly Phase[],
  steps: readonly Step[],
  messageUs: (step: Step) => number,
  numRanks: number,
): Map<Step, Entry> {
  const leaves = Array.from({ length: numRanks }, () => new Map<number, number>());
  for (const { rank, name, startUs, durationUs } of phases) {
    if (name !== ARRIVAL_PHASE) continue;
    leaves[rank].set(startUs, Math.max(leaves[rank].get(startUs) ?? 0, startUs + durationUs));
  }
  const collective = phases.filter(({ name, waiting, rank }) => waiting && rank >= 0 && name !== ARRIVAL_PHASE);
  const entry = new Map<Step, Entry>();
  const spent = new Map<string, number>();
  for (const step of steps) {
    const { rank, startUs } = step;
    const agreedUs = Math.max(...[...leaves[rank].keys()].filter((us) => us <= startUs));
    const leftUs = leaves[rank].get(agreedUs);
    if (leftUs === undefined) continue;
    const key = `${rank} ${agreedUs}`;
    const waitedUs = collective
      .filter((phase) => phase.rank === rank && phase.startUs >= agreedUs && phase.startUs < startUs)
      .reduce((sum, { durationUs }) => sum + durationUs, 0);
    entry.set(step, { us: startUs - waitedUs - (spent.get(key) ?? 0), leftUs });
    spent.set(key, (spent.get(key) ?? 0) + messageUs(step));
  }
  return entry;
}

/** How far one rank's clock is ahead of another's with which it shares messages. */
function clocksAhead(steps: readonly Step[], at: ReadonlyMap<string, Step>): (rank: number, other: number) => number {
  const differences = new Map<string, number[]>();
  for (const step of steps) {
    const sender = at.get(`${step.srcRank} ${step.key}`);
    if (sender === undefined) continue;
    const aheadUs = step.startUs + step.durationUs - sender.startUs - sender.durationUs;
    for (const [key, us] of [
      [`${step.rank} ${step.srcRank}`, aheadUs],
      [`${step.srcRank} ${step.rank}`, -aheadUs],
    ] as const) {
      differences.set(key, [...(differences.get(key) ?? []), us]);
    }
  }
  const ahead = new Map([...differences].map(([key, values]) => [key, lowerMedian(values)]));
  return (rank, other) => ahead.get(`${rank} ${other}`) ?? Number.NaN;
}

/** What is left of a phase without the times that its rank waited alone. */
export function withoutAlone({ rank, startUs, durationUs }: Phase, { alone }: Stalls): number {
  return alone[rank].reduce(
    (rest, { fromUs, toUs }) => rest - Math.max(0, Math.min(toUs, startUs + durationUs) - Math.max(fromUs, startUs)),
    durationUs,
  );
}
