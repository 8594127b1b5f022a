/**
 * Before the first byte of an operation moves, every process says what it is about to do; process 0 compares and answers.
 * One round trip per operation between hosts, none on one host. It also notices who is late, stopped or gone, so that no
 * hang is without a name.
 */
import { BackendFailure, ContractMismatch, type FusedA2AError, Timeout, type Wait } from "../../../core/errors.ts";
import type { Contract } from "./contract.ts";
import { type Channel, MAX_GATHERED_BYTES, type Message } from "./messages.ts";
import type { Meeting } from "./rendezvous.ts";
import { type Arrival, agreeWait, type ProcessWait, Rounds, type Verdict } from "./rounds.ts";

/** When each process came to an operation, in microseconds after the first (process 0's clock, one-way delay included). */
export type ArrivalsUs = readonly number[];

interface Agreement {
  readonly arrivalsUs: ArrivalsUs;
  readonly values: readonly unknown[];
}

interface Waiter {
  readonly contract: Contract;
  readonly resolve: (agreement: Agreement) => void;
  readonly reject: (error: Error) => void;
  readonly timer: ReturnType<typeof setTimeout> | undefined;
}

export class ControlPlane {
  readonly #processRank: number;
  readonly #channels: ReadonlyMap<number, Channel>;
  readonly #deadlineMs: number;
  readonly #ranksOf: (process: number) => readonly number[];
  /** Process 0 keeps it for all. */
  readonly #rounds: Rounds;
  readonly #waiters = new Map<number, Waiter>();
  readonly #reported: Wait[] = [];
  #isSecondHand = false;
  #sequence = 0;
  #failure: FusedA2AError | null = null;
  #failureListener: ((error: FusedA2AError) => void) | null = null;

  /** `ranksOf`: the ranks that a process drives, for tables of waits. */
  constructor(
    processRank: number,
    numProcesses: number,
    meeting: Meeting,
    deadlineMs: number,
    ranksOf: (process: number) => readonly number[] = (process) => [process],
  ) {
    this.#processRank = processRank;
    this.#channels = meeting.channels;
    this.#deadlineMs = deadlineMs;
    this.#ranksOf = ranksOf;
    const answer = (process: number, sequence: number, verdict: Verdict) => {
      if (process === 0) this.#conclude(sequence, verdict);
      else this.#channels.get(process)?.send({ ...verdict, sequence });
    };
    this.#rounds = new Rounds(numProcesses, deadlineMs, answer, ({ reason, waits }) =>
      this.#tellAll("TIMEOUT", reason, this.#byRank(waits)),
    );
    for (const [process, channel] of meeting.channels) {
      channel.maxLineBytes = MAX_GATHERED_BYTES;
      channel.onMessage = (message) => this.#receive(process, message);
      channel.onClose = (why) => this.#lost(process, why);
    }
  }

  /** Told once when another process is late, stopped or gone, whether or not anybody waits here; at once what came before. */
  set onFailure(listener: ((error: FusedA2AError) => void) | null) {
    this.#failureListener = listener;
    // Messages of the meeting's end are heard while this is made: a process may have given up by then.
    if (this.#failure !== null) listener?.(this.#failure);
  }

  /**
   * Agrees on the next operation. Resolves with the arrivals when every process is about to do the same. Rejects with
   * ContractMismatch (field and value per process, or which process refused, and why), Timeout (who has not come, and what
   * those here wait for) or BackendFailure (who is gone). After a Timeout or BackendFailure every later call rejects the
   * same way.
   */
  async agree(contract: Contract): Promise<ArrivalsUs> {
    return (await this.#come({ contract })).arrivalsUs;
  }

  /** One JSON value of every process, by process; ordered with the operations, and failing like them. */
  async exchange<T>(name: string, value: T): Promise<T[]> {
    const { values } = await this.#come({ contract: { operation: `exchange ${name}` }, value });
    return values as T[];
  }

  /** Takes part in the next operation by refusing it: every other process's call rejects at once, and the group goes on. */
  refuse(operation: string, reason: string): void {
    const sequence = this.#sequence++;
    if (this.#failure === null) this.#announce(sequence, { contract: { operation }, refused: reason });
  }

  /**
   * Ends the group everywhere: this process cannot go on in the middle of an operation. Where it has ended already, process
   * 0 still learns what this process was waiting for.
   */
  giveUp(error: FusedA2AError): void {
    const { code, message, waits = [] } = error;
    const reason = `process ${this.#processRank} gave up: ${message}`;
    // Who gave up over another's end or silence does not explain it; who has no memory left does.
    const gaveUp = code === "BACKEND_FAILURE" || code === "TIMEOUT";
    this.#isSecondHand ||= this.#failure === null && gaveUp;
    this.#channels.get(0)?.send({ type: "failed", gaveUp, code, reason, waits });
    if (this.#processRank === 0) this.#tellAll(code, reason, waits);
    else this.#fail(makeError(code, reason, waits));
  }

  /** True when the group ended because some process gave up waiting, not because one is known to be late, gone or out of means. */
  get isSecondHand(): boolean {
    return this.#isSecondHand;
  }

  /** Process 0: what the others said they were waiting for when the group ended. */
  get reported(): readonly Wait[] {
    return this.#reported;
  }

  /** Number of the last operation, counted from 0; 0 before the first. */
  get sequence(): number {
    return Math.max(0, this.#sequence - 1);
  }

  /** Tells the others that this process ends in order: its closing is then no failure. */
  close(): void {
    for (const channel of this.#channels.values()) channel.end({ type: "bye" });
    this.#fail(new BackendFailure("the group is closed"));
  }

  #come(arrival: Omit<Arrival, "process">): Promise<Agreement> {
    const sequence = this.#sequence++;
    if (this.#failure !== null) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      // Process 0 answers at its deadline; a little later nobody is there to answer.
      const isHost = this.#processRank === 0;
      const silent = () => this.#silent(sequence, arrival.contract);
      const timer = isHost ? undefined : setTimeout(silent, this.#deadlineMs * 1.5);
      this.#waiters.set(sequence, { contract: arrival.contract, resolve, reject, timer });
      this.#announce(sequence, arrival);
    });
  }

  #announce(sequence: number, arrival: Omit<Arrival, "process">): void {
    if (this.#processRank === 0) this.#rounds.arrive(sequence, { ...arrival, process: 0 });
    else this.#channels.get(0)?.send({ type: "operation", sequence, ...arrival });
  }

  #receive(process: number, message: Message): void {
    const sequence = Number(message.sequence);
    if (message.type === "bye") this.#gone(process);
    else if (message.type === "operation")
      this.#rounds.arrive(sequence, { ...(message as unknown as Arrival), process });
    else if (message.type === "agreed" || message.type === "mismatch") {
      this.#conclude(sequence, message as unknown as Verdict);
    } else if (message.type === "failed") {
      const waits = (message.waits ?? []) as readonly Wait[];
      this.#reported.push(...waits);
      this.#isSecondHand ||= this.#failure === null && message.gaveUp === true;
      this.#tellAll(`${message.code}`, `${message.reason}`, waits);
    }
  }

  #silent(sequence: number, contract: Contract): void {
    const within = `${this.#deadlineMs * 1.5} ms`;
    const reason = `operation ${sequence}: process 0 did not answer ${contract.operation} within ${within}; look at process 0: slow or stopped`;
    const wait = agreeWait(this.#processRank, 0, sequence, contract, `nothing within ${within}`);
    this.#fail(new Timeout(reason, { waits: this.#byRank([wait]) }));
  }

  /** An orderly end: only those still waiting for it fail. */
  #gone(process: number): void {
    const channel = this.#channels.get(process);
    if (channel !== undefined) channel.onClose = () => {};
    if (this.#waiters.size > 0 || this.#rounds.isOpen) this.#lost(process, "it closed its group");
    else this.#failure ??= new BackendFailure(`process ${process} closed its group; make a new group on every process`);
  }

  #lost(process: number, why: string): void {
    const own = [...this.#waiters].map(([sequence, { contract }]) =>
      agreeWait(this.#processRank, process, sequence, contract, why),
    );
    // Process 0 knows who else waits, and waits in its own book.
    const waits = this.#byRank(this.#processRank === 0 ? this.#rounds.waitsFor([process], why) : own);
    const reason = `process ${process} is gone: ${why}; look at its log, then start the group again`;
    this.#tellAll("BACKEND_FAILURE", reason, waits);
  }

  /** The end of the group: process 0 tells the others. */
  #tellAll(code: string, reason: string, waits: readonly Wait[]): void {
    if (this.#processRank === 0 && this.#failure === null) {
      for (const channel of this.#channels.values())
        channel.send({ type: "failed", gaveUp: this.#isSecondHand, code, reason, waits });
    }
    this.#fail(makeError(code, reason, waits));
  }

  #byRank(waits: readonly ProcessWait[]): Wait[] {
    return waits.flatMap(({ process, srcProcess, ...rest }) =>
      this.#ranksOf(process).flatMap((rank) =>
        this.#ranksOf(srcProcess).map((srcRank) => ({ rank, srcRank, ...rest })),
      ),
    );
  }

  #conclude(sequence: number, verdict: Verdict): void {
    if (verdict.type === "agreed") this.#settle(sequence, verdict);
    else this.#settle(sequence, new ContractMismatch(`${verdict.reason}${this.#ranksIn(verdict.processes)}`));
  }

  /** Which ranks the processes drive; empty where each drives the rank of its number, and of very many. */
  #ranksIn(processes: readonly number[]): string {
    const several = processes.filter((process) => this.#ranksOf(process).length > 1);
    const ranks = several.map((process) => {
      const own = this.#ranksOf(process);
      return `process ${process} drives ranks ${own[0]}..${own[own.length - 1]}`;
    });
    return ranks.length === 0 || ranks.length > 8 ? "" : ` (${ranks.join(", ")})`;
  }

  #settle(sequence: number, outcome: Agreement | Error): void {
    const waiter = this.#waiters.get(sequence);
    this.#waiters.delete(sequence);
    clearTimeout(waiter?.timer);
    if (outcome instanceof Error) waiter?.reject(outcome);
    else waiter?.resolve(outcome);
  }

  #fail(error: FusedA2AError): void {
    if (this.#failure === null) {
      this.#failure = error;
      this.#failureListener?.(error);
    }
    this.#rounds.clear();
    for (const sequence of [...this.#waiters.keys()]) this.#settle(sequence, this.#failure);
  }
}

function makeError(code: string, reason: string, waits: readonly Wait[]): FusedA2AError {
  return code === "TIMEOUT" ? new Timeout(reason, { waits }) : new BackendFailure(reason, { waits });
}
