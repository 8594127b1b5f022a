/**
 * Who kept the others waiting in the middle of an operation: a process that was stopped, or whose computer did something
 * else. An end of a message that waits for longer than the message was under way waits for the other end to come. That one
 * answers for what it came later, counted from the agreement that all leave together, by each process's own clock and
 * without its messages: those are the link's. What it waited itself before is not its own.
 */
import type { Phase } from "../backend.ts";
import { ARRIVAL_PHASE, transfers } from "./messages.ts";

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
      .map((end) => ({ rank: end.rank, us: (entry.get(end) ?? Number.NaN) - (entry.get(step) ?? Number.NaN) }))
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

/** When each rank came to a step, from the end of the agreement before, less the messages since. */
function entries(
  phases: readonly Phase[],
  steps: readonly Step[],
  messageUs: (step: Step) => number,
  numRanks: number,
): Map<Step, number> {
  const leaves = Array.from({ length: numRanks }, () => new Map<number, number>());
  for (const { rank, name, startUs, durationUs } of phases) {
    if (name !== ARRIVAL_PHASE) continue;
    leaves[rank].set(startUs, Math.max(leaves[rank].get(startUs) ?? 0, startUs + durationUs));
  }
  const entry = new Map<Step, number>();
  const spent = new Map<string, number>();
  for (const step of steps) {
    const leftUs = [...leaves[step.rank].values()].filter((us) => us <= step.startUs).sort((a, b) => b - a)[0];
    if (leftUs === undefined) continue;
    const key = `${step.rank} ${leftUs}`;
    entry.set(step, step.startUs - leftUs - (spent.get(key) ?? 0));
    spent.set(key, (spent.get(key) ?? 0) + messageUs(step));
  }
  return entry;
}

/** What is left of a phase without the times that its rank waited alone. */
export function withoutAlone({ rank, startUs, durationUs }: Phase, { alone }: Stalls): number {
  return alone[rank].reduce(
    (rest, { fromUs, toUs }) => rest - Math.max(0, Math.min(toUs, startUs + durationUs) - Math.max(fromUs, startUs)),
    durationUs,
  );
}
