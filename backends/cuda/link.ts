/** What ties the groups of several processes together: they agree before every operation, and end each other's waits. */
import type { Phase } from "../../core/backend.ts";
import { BackendFailure, FusedA2AError, InvalidArgument, Timeout, type Wait } from "../../core/errors.ts";
import { type ClusterPlace, type Contract, ControlPlane, type Meeting, ranksOfProcess } from "./cluster/index.ts";

/** How long a broken connection may be without a name: the other process's end is noticed on two ways. */
const NAME_WITHIN_MS = 300;

/** What a link needs of the group it ties to the others. */
export interface Linked {
  readonly numRanks: number;
  /** Called once when another process is late, stopped or gone: it ends what waits for that process; `why` is for later calls. */
  readonly abort: (why: string) => void;
  /** What was outstanding when the last operation failed. */
  readonly waits: () => Promise<readonly Wait[]>;
}

export class ClusterLink {
  readonly #place: ClusterPlace;
  readonly #group: Linked;
  readonly #control: ControlPlane;
  /** The number of the operation that made each handle: the same everywhere. */
  readonly #made = new WeakMap<object, number>();
  #failure: FusedA2AError | null = null;
  /** The operation that this process is on its way to: the others wait for it. */
  #coming: string | null = null;

  constructor(place: ClusterPlace, meeting: Meeting, deadlineMs: number, group: Linked) {
    this.#place = place;
    this.#group = group;
    const { processRank, numProcesses } = place;
    this.#control = new ControlPlane(processRank, numProcesses, meeting, deadlineMs, (p) => this.#ranksOf(p));
    this.#control.onFailure = (error) => {
      this.#failure = error;
      group.abort(error.message);
    };
  }

  /** Throws what has ended the group, if anything has: `abort` may have come too early to find it. */
  throwFailure(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  /**
   * One call that every process makes. What ends it before it has agreed is known to this process alone: the others are
   * told at once, reject theirs with ContractMismatch, and the group goes on.
   */
  async collective<T>(operation: string, work: () => Promise<T>): Promise<T> {
    this.#coming = operation;
    try {
      return await work();
    } catch (error) {
      if (this.#coming !== null) this.#control.refuse(operation, (error as Error).message);
      throw error;
    } finally {
      this.#coming = null;
    }
  }

  /**
   * Waits until every process is about to do the same. Throws ContractMismatch (the group stays usable), Timeout or
   * BackendFailure, which name the process. Returns the wait for each rank elsewhere as a phase of each local rank.
   * `step`: a part of the present call, which agrees once more.
   */
  async agree(contract: Contract, calledUs: number, step = false): Promise<Phase[]> {
    const arrivals = await this.#agreed(step, () => this.#control.agree(contract));
    const { processRank, numProcesses } = this.#place;
    const phases: Phase[] = [];
    for (const rank of this.#ranksOf(processRank)) {
      for (let process = 0; process < numProcesses; process++) {
        if (process === processRank) continue;
        const durationUs = Math.max(0, arrivals[process] - arrivals[processRank]);
        for (const srcRank of this.#ranksOf(process)) {
          phases.push({ rank, name: "agree", startUs: calledUs, durationUs, waiting: true, srcRank });
        }
      }
    }
    return phases;
  }

  /** One JSON value of every process, by process. Every process must call it, in the order of the operations. */
  exchange<T>(name: string, value: T, step = false): Promise<T[]> {
    return this.#agreed(step, () => this.#control.exchange(name, value));
  }

  /** A handle that the operation agreed upon last has made. */
  made(handle: object): void {
    this.#made.set(handle, this.sequence);
  }

  /** Which operation made a handle, for contracts. */
  origin(handle: object): string {
    const sequence = this.#made.get(handle);
    return sequence === undefined ? "made elsewhere" : `of operation ${sequence}`;
  }

  /** Number of the operation that was agreed upon last, or tried to. */
  get sequence(): number {
    return this.#control.sequence;
  }

  /**
   * Runs what may wait for other processes. A failure gets the name that the control plane has for it and the table of
   * what was outstanding; one that only this process knows of ends the group everywhere, instead of at the others' deadline.
   */
  async run<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof FusedA2AError) || isKnownToAll(error)) throw error;
      if (!(error instanceof BackendFailure) && !(error instanceof Timeout)) {
        this.#control.giveUp(error);
        throw error;
      }
      const isFirst = this.#failure === null;
      const named = await this.#nameOf();
      // That another gave up at the same time explains nothing: this error says what happened here.
      const isOwn = named === null || (isFirst && this.#control.isSecondHand);
      const own = [...(named?.waits ?? []), ...(await this.#group.waits().catch(() => []))];
      const Class = (isOwn ? error : named) instanceof Timeout ? Timeout : BackendFailure;
      const message = isOwn
        ? error.message
        : `${named.message} (${error.message.replace(named.message, "ended by that")})`;
      this.#control.giveUp(new Class(message, { waits: own }));
      throw new Class(message, { cause: error, waits: await this.#tableOfAll(own) });
    }
  }

  close(): void {
    this.#control.onFailure = null;
    this.#control.close();
  }

  async #agreed<T>(step: boolean, ask: () => Promise<T>): Promise<T> {
    const coming = this.#coming;
    // Whatever the answer: this process came, nobody waits for it.
    this.#coming = null;
    const answer = await ask();
    if (step) this.#coming = coming;
    return answer;
  }

  async #nameOf(): Promise<FusedA2AError | null> {
    for (let waited = 0; this.#failure === null && waited < NAME_WITHIN_MS; waited += 20) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return this.#failure;
  }

  /** Process 0 waits a moment for what the others were waiting for: one table of all ranks. */
  async #tableOfAll(own: readonly Wait[]): Promise<Wait[]> {
    if (this.#place.processRank === 0) await new Promise((resolve) => setTimeout(resolve, NAME_WITHIN_MS));
    const rows = new Map([...own, ...this.#control.reported].map((wait) => [JSON.stringify(wait), wait]));
    return [...rows.values()].sort((a, b) => a.rank - b.rank || a.srcRank - b.srcRank);
  }

  #ranksOf(processRank: number): number[] {
    return ranksOfProcess({ ...this.#place, processRank }, this.#group.numRanks);
  }
}

/** Expert ids on a device are looked at there, by every process at once. */
function isKnownToAll(error: FusedA2AError): boolean {
  return error instanceof InvalidArgument && error.problem?.name === "topkIdx";
}
