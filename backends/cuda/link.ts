/** What ties the groups of several processes together: they agree before every operation, and end each other's waits. */
import type { Phase } from "../../core/backend.ts";
import { BackendFailure, InvalidArgument, Timeout } from "../../core/errors.ts";
import type { BundleNotes, FailureBundles } from "./bundle.ts";
import { type ClusterPlace, type Contract, ControlPlane, type Meeting } from "./cluster/index.ts";

export { type ClusterPlace, placeByHand, placeFromEnvironment } from "./cluster/index.ts";

export interface ClusterOptions {
  /** Which process this is: placeFromEnvironment or placeByHand. */
  readonly place: ClusterPlace;
  /** Refuse processes that do not know it. */
  readonly secret?: string;
  /** Address that process 0 listens on; default the rendezvous host. */
  readonly bind?: string;
  /** Longest wait for all processes to come, in milliseconds; default 60 000. */
  readonly timeoutMs?: number;
  /** Longest wait for another process in an operation, in milliseconds; default 60 000. */
  readonly deadlineMs?: number;
  /**
   * Folder for fused-a2a-failure-process{p}.safetensors, written by every living process when a dispatch or combine fails
   * with Timeout, BackendFailure or ContractMismatch, for `fused-a2a verify` (docs/formats.md); default none.
   */
  readonly bundleDir?: string;
  /** What this process knows beyond its own ranks, asked for when a bundle is written. */
  readonly bundleNotes?: () => BundleNotes;
}

export const DEFAULT_TIMEOUT_MS = 60_000;
/** How long a broken connection may be without a name: the other process's end is noticed on two ways. */
const NAME_WITHIN_MS = 300;

/** The ranks of one process: blocks of equal size. Throws InvalidArgument when the group does not divide. */
export function ranksOfProcess({ numProcesses, processRank }: ClusterPlace, numRanks: number): number[] {
  if (numRanks % numProcesses !== 0) {
    throw new InvalidArgument({
      name: "numRanks",
      expected: `a multiple of the ${numProcesses} processes`,
      received: `${numRanks}`,
      remedy: "give every process the same number of ranks",
    });
  }
  const each = numRanks / numProcesses;
  return Array.from({ length: each }, (_, i) => processRank * each + i);
}

export class ClusterLink {
  readonly #place: ClusterPlace;
  readonly #control: ControlPlane;
  #failure: Error | null = null;
  /** Where failed operations are kept, if anywhere. */
  bundles: FailureBundles | null = null;

  /** `abort` is called once when another process is late, stopped or gone: it ends what waits for that process. */
  constructor(place: ClusterPlace, meeting: Meeting, deadlineMs: number, abort: () => void) {
    this.#place = place;
    this.#control = new ControlPlane(place.processRank, place.numProcesses, meeting, deadlineMs);
    this.#control.onFailure = (error) => {
      this.#failure = error;
      abort();
    };
  }

  /**
   * Waits until every process is about to do the same. Throws ContractMismatch (the group stays usable), Timeout or
   * BackendFailure, which name the process. Returns the wait as a phase of each local rank.
   */
  async agree(contract: Contract, localRanks: readonly number[], calledUs: number): Promise<Phase[]> {
    const arrivals = await this.#control.agree(contract);
    const durationUs = Math.max(...arrivals) - arrivals[this.#place.processRank];
    return localRanks.map((rank) => ({ rank, name: "agree", startUs: calledUs, durationUs, waiting: true }));
  }

  /** Number of the operation that was agreed on, or not, last: counted from 0, the same on every process. */
  get sequence(): number {
    return this.#control.sequence;
  }

  /** Runs what may wait for other processes; a failure that the control plane can name gets that name. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof BackendFailure) && !(error instanceof Timeout)) throw error;
      for (let waited = 0; this.#failure === null && waited < NAME_WITHIN_MS; waited += 20) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      if (this.#failure === null) throw error;
      const Class = this.#failure instanceof Timeout ? Timeout : BackendFailure;
      throw new Class(`${this.#failure.message} (${error.message})`, { cause: error });
    }
  }

  close(): void {
    this.#control.onFailure = null;
    this.#control.close();
  }
}
