/**
 * Before the first byte of an operation moves, every process says what it is about to do; process 0 compares and answers.
 * One round trip per operation between hosts, none on one host. It also notices who is late, stopped or gone, so that no
 * hang is without a name.
 */
import { BackendFailure, ContractMismatch, type FusedA2AError, Timeout } from "../../../core/errors.ts";
import { type Contract, describeDisagreements, disagreements, nameProcesses, type Signed } from "./contract.ts";
import type { Channel, Message } from "./messages.ts";
import type { Meeting } from "./rendezvous.ts";

/** When each process came to an operation, in microseconds after the first (process 0's clock, one-way delay included). */
export type ArrivalsUs = readonly number[];

interface Round {
  readonly signed: (Signed & { readonly atMs: number })[];
  readonly timer: ReturnType<typeof setTimeout>;
}

interface Waiter {
  readonly resolve: (arrivalsUs: ArrivalsUs) => void;
  readonly reject: (error: Error) => void;
  readonly timer: ReturnType<typeof setTimeout> | undefined;
}

export class ControlPlane {
  readonly #processRank: number;
  readonly #numProcesses: number;
  readonly #channels: ReadonlyMap<number, Channel>;
  readonly #deadlineMs: number;
  /** Process 0: operations some processes have come to. */
  readonly #rounds = new Map<number, Round>();
  readonly #waiters = new Map<number, Waiter>();
  #sequence = 0;
  #failure: FusedA2AError | null = null;
  /** Told once when another process is late, stopped or gone, whether or not anybody waits here. */
  onFailure: ((error: FusedA2AError) => void) | null = null;

  constructor(processRank: number, numProcesses: number, meeting: Meeting, deadlineMs: number) {
    this.#processRank = processRank;
    this.#numProcesses = numProcesses;
    this.#channels = meeting.channels;
    this.#deadlineMs = deadlineMs;
    for (const [process, channel] of meeting.channels) {
      channel.onMessage = (message) => this.#receive(process, message);
      channel.onClose = (why) => this.#lost(process, why);
    }
  }

  /**
   * Agrees on the next operation. Resolves with the arrivals when every process is about to do the same. Rejects with
   * ContractMismatch (field and value per process), Timeout (who has not come, and what those here wait for) or
   * BackendFailure (who is gone). After a Timeout or BackendFailure every later call rejects the same way.
   */
  agree(contract: Contract): Promise<ArrivalsUs> {
    const sequence = this.#sequence++;
    if (this.#failure !== null) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      // Process 0 answers at its deadline; a little later nobody is there to answer.
      const late =
        this.#processRank === 0
          ? undefined
          : setTimeout(() => this.#silent(sequence, contract), this.#deadlineMs * 1.5);
      this.#waiters.set(sequence, { resolve, reject, timer: late });
      if (this.#processRank === 0) this.#arrive(sequence, { process: 0, contract });
      else this.#channels.get(0)?.send({ type: "operation", sequence, contract });
    });
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

  #receive(process: number, message: Message): void {
    const sequence = Number(message.sequence);
    if (message.type === "bye") this.#gone(process);
    else if (message.type === "operation") this.#arrive(sequence, { process, contract: message.contract as Contract });
    else if (message.type === "agreed") this.#settle(sequence, message.arrivalsUs as ArrivalsUs);
    else if (message.type === "mismatch") this.#settle(sequence, new ContractMismatch(`${message.reason}`));
    else if (message.type === "failed") this.#fail(asError(message));
  }

  #arrive(sequence: number, one: Signed): void {
    let round = this.#rounds.get(sequence);
    if (round === undefined) {
      round = { signed: [], timer: setTimeout(() => this.#expire(sequence), this.#deadlineMs) };
      this.#rounds.set(sequence, round);
    }
    round.signed.push({ ...one, atMs: performance.now() });
    if (round.signed.length < this.#numProcesses) return;
    clearTimeout(round.timer);
    this.#rounds.delete(sequence);
    const signed = round.signed.sort((a, b) => a.process - b.process);
    const found = disagreements(signed);
    if (found.length > 0) {
      const reason = `operation ${sequence}: processes disagree: ${describeDisagreements(found)}; every process must call the same operations in the same order with the same settings`;
      this.#broadcast({ type: "mismatch", sequence, reason });
      this.#settle(sequence, new ContractMismatch(reason));
      return;
    }
    const first = Math.min(...signed.map(({ atMs }) => atMs));
    const arrivalsUs = signed.map(({ atMs }) => Math.round((atMs - first) * 1e3));
    this.#broadcast({ type: "agreed", sequence, arrivalsUs });
    this.#settle(sequence, arrivalsUs);
  }

  #expire(sequence: number): void {
    const here = this.#rounds.get(sequence)?.signed ?? [];
    const present = here.map(({ process }) => process);
    const absent = Array.from({ length: this.#numProcesses }, (_, process) => process).filter(
      (p) => !present.includes(p),
    );
    const waiting = here.map(
      ({ process, contract }) => `process ${process} waits in ${contract.operation ?? "an operation"}`,
    );
    const reason = `operation ${sequence}: after ${this.#deadlineMs} ms ${nameProcesses(absent)} did not come; ${waiting.join(", ")}; look at ${nameProcesses(absent)}: slow, stopped, or calling something else`;
    this.#broadcast({ type: "failed", code: "TIMEOUT", reason });
    this.#fail(new Timeout(reason));
  }

  #silent(sequence: number, contract: Contract): void {
    const what = contract.operation ?? "an operation";
    this.#fail(
      new Timeout(
        `operation ${sequence}: process 0 did not answer ${what} within ${this.#deadlineMs * 1.5} ms; look at process 0: slow or stopped`,
      ),
    );
  }

  /** An orderly end: only those still waiting for it fail. */
  #gone(process: number): void {
    const channel = this.#channels.get(process);
    if (channel !== undefined) channel.onClose = () => {};
    if (this.#waiters.size > 0 || this.#rounds.size > 0) this.#lost(process, "it closed its group");
    else this.#failure ??= new BackendFailure(`process ${process} closed its group; make a new group on every process`);
  }

  #lost(process: number, why: string): void {
    const reason = `process ${process} is gone: ${why}; look at its log, then start the group again`;
    this.#broadcast({ type: "failed", code: "BACKEND_FAILURE", reason });
    this.#fail(new BackendFailure(reason));
  }

  #broadcast(message: Message): void {
    if (this.#processRank === 0) for (const channel of this.#channels.values()) channel.send(message);
  }

  #settle(sequence: number, outcome: ArrivalsUs | Error): void {
    const waiter = this.#waiters.get(sequence);
    this.#waiters.delete(sequence);
    clearTimeout(waiter?.timer);
    if (outcome instanceof Error) waiter?.reject(outcome);
    else waiter?.resolve(outcome);
  }

  #fail(error: FusedA2AError): void {
    if (this.#failure === null) {
      this.#failure = error;
      this.onFailure?.(error);
    }
    for (const round of this.#rounds.values()) clearTimeout(round.timer);
    this.#rounds.clear();
    for (const sequence of [...this.#waiters.keys()]) this.#settle(sequence, this.#failure);
  }
}

function asError(message: Message): FusedA2AError {
  const reason = `${message.reason}`;
  return message.code === "TIMEOUT" ? new Timeout(reason) : new BackendFailure(reason);
}
