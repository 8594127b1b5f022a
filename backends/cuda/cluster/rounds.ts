/** Process 0's book of operations that some processes have come to: it compares, answers, and knows who has not come. */
import type { Wait } from "../../../core/errors.ts";
import { type Contract, describeDisagreements, disagreements, nameProcesses, type Signed } from "./contract.ts";

/** What one process says when it comes to an operation. */
export interface Arrival extends Signed {
  /** Gathered from all, and handed to all. */
  readonly value?: unknown;
  /** Why this process does not take part: its own error. */
  readonly refused?: string;
}

export type Verdict =
  | { readonly type: "agreed"; readonly arrivalsUs: readonly number[]; readonly values: readonly unknown[] }
  | { readonly type: "mismatch"; readonly reason: string; readonly processes: readonly number[] };

/** A row of the table process x awaited process. */
export type ProcessWait = Omit<Wait, "rank" | "srcRank"> & { readonly process: number; readonly srcProcess: number };

export interface Missing {
  readonly reason: string;
  readonly waits: readonly ProcessWait[];
}

interface Round {
  readonly arrivals: (Arrival & { readonly atMs: number })[];
  readonly timer: ReturnType<typeof setTimeout>;
  /** A process refused: the others are told as they come. */
  refusal: { readonly reason: string; readonly process: number } | null;
}

export class Rounds {
  readonly #numProcesses: number;
  readonly #deadlineMs: number;
  readonly #answer: (process: number, sequence: number, verdict: Verdict) => void;
  readonly #late: (missing: Missing) => void;
  readonly #rounds = new Map<number, Round>();

  constructor(
    numProcesses: number,
    deadlineMs: number,
    answer: (process: number, sequence: number, verdict: Verdict) => void,
    late: (missing: Missing) => void,
  ) {
    this.#numProcesses = numProcesses;
    this.#deadlineMs = deadlineMs;
    this.#answer = answer;
    this.#late = late;
  }

  /** True while anybody waits in an operation. */
  get isOpen(): boolean {
    return [...this.#rounds.values()].some(({ refusal }) => refusal === null);
  }

  arrive(sequence: number, arrival: Arrival): void {
    const round = this.#rounds.get(sequence) ?? this.#open(sequence);
    round.arrivals.push({ ...arrival, atMs: performance.now() });
    const isLast = round.arrivals.length === this.#numProcesses;
    if (isLast) {
      clearTimeout(round.timer);
      this.#rounds.delete(sequence);
    }
    if (round.refusal !== null) this.#refuse(sequence, round.refusal, [arrival]);
    else if (arrival.refused !== undefined) {
      clearTimeout(round.timer);
      const { process, contract, refused } = arrival;
      const reason = `operation ${sequence}: process ${process} refused ${contract.operation}: ${refused}`;
      round.refusal = { reason, process };
      this.#refuse(sequence, round.refusal, round.arrivals);
    } else if (isLast) this.#settle(sequence, round);
  }

  /** Who waits for the processes `gone`, as waits for what is not coming any more. */
  waitsFor(gone: readonly number[], received: string): ProcessWait[] {
    return [...this.#rounds].flatMap(([sequence, round]) => waits(sequence, round, gone, received));
  }

  clear(): void {
    for (const { timer } of this.#rounds.values()) clearTimeout(timer);
    this.#rounds.clear();
  }

  #open(sequence: number): Round {
    const round = { arrivals: [], timer: setTimeout(() => this.#expire(sequence), this.#deadlineMs), refusal: null };
    this.#rounds.set(sequence, round);
    return round;
  }

  #refuse(sequence: number, refusal: NonNullable<Round["refusal"]>, arrivals: readonly Arrival[]): void {
    const verdict: Verdict = { type: "mismatch", reason: refusal.reason, processes: [refusal.process] };
    for (const { process, refused } of arrivals) if (refused === undefined) this.#answer(process, sequence, verdict);
  }

  #settle(sequence: number, { arrivals }: Round): void {
    arrivals.sort((a, b) => a.process - b.process);
    const found = disagreements(arrivals);
    const first = Math.min(...arrivals.map(({ atMs }) => atMs));
    const verdict: Verdict =
      found.length > 0
        ? {
            type: "mismatch",
            reason: disagreeing(sequence, describeDisagreements(found)),
            processes: arrivals.map(({ process }) => process),
          }
        : {
            type: "agreed",
            arrivalsUs: arrivals.map(({ atMs }) => Math.round((atMs - first) * 1e3)),
            values: arrivals.map(({ value }) => value ?? null),
          };
    for (const { process } of arrivals) this.#answer(process, sequence, verdict);
  }

  #expire(sequence: number): void {
    const round = this.#rounds.get(sequence);
    if (round === undefined) return;
    const present = round.arrivals.map(({ process }) => process);
    const everybody = Array.from({ length: this.#numProcesses }, (_, process) => process);
    const absent = everybody.filter((process) => !present.includes(process));
    const within = `${this.#deadlineMs} ms`;
    const waiting = round.arrivals.map(({ process, contract }) => `process ${process} waits in ${contract.operation}`);
    this.#late({
      reason: `operation ${sequence}: after ${within} ${nameProcesses(absent)} did not come; ${waiting.join(", ")}; look at ${nameProcesses(absent)}: slow, stopped, or calling something else`,
      waits: waits(sequence, round, absent, `nothing within ${within}`),
    });
  }
}

function waits(sequence: number, round: Round, absent: readonly number[], received: string): ProcessWait[] {
  if (round.refusal !== null) return [];
  return round.arrivals
    .filter(({ process }) => !absent.includes(process))
    .flatMap(({ process, contract }) => absent.map((src) => agreeWait(process, src, sequence, contract, received)));
}

/** `process` is in an operation that `srcProcess` has not come to. */
export function agreeWait(
  process: number,
  srcProcess: number,
  sequence: number,
  contract: Contract,
  received: string,
): ProcessWait {
  const expected = `its call of ${contract.operation} (operation ${sequence})`;
  return { process, srcProcess, phase: "agree", expected, received };
}

function disagreeing(sequence: number, what: string): string {
  return `operation ${sequence}: processes disagree: ${what}; every process must call the same operations in the same order with the same settings`;
}
