/** When the operations of a group run: one after the other, in the order of the calls, until the group is closed. */
import type { StreamOptions } from "./backend.ts";
import { InvalidArgument } from "./errors.ts";

/** Runs one thing after the other, whatever becomes of the one before. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  take<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    const done = () => {};
    // The value is the caller's: kept here it would live until the next turn.
    this.#last = result.then(done, done);
    return result;
  }
}

/** An operation that is about to move its rows. */
export interface Prepared<T> {
  /** Ends when the outputs are complete. */
  readonly work: () => Promise<void>;
  readonly result: (done: Promise<void>) => T;
}

export class Operations {
  readonly turns: Turns;
  readonly #groups: Set<Operations>;
  readonly #free: () => Promise<void>;
  #closing: Promise<void> | null = null;

  /**
   * `groups`: those of the backend that are open. `turns`: shared where groups share what runs them. `free` runs once, after
   * everything that was called before the group was closed.
   */
  constructor(groups: Set<Operations>, turns = new Turns(), free = async () => {}) {
    this.turns = turns;
    this.#groups = groups;
    this.#free = free;
    groups.add(this);
  }

  /** Throws InvalidArgument when the group is closed: the one error of every backend for it. */
  expectOpen(): void {
    if (this.#closing === null) return;
    throw new InvalidArgument({
      name: "group",
      expected: "an open group",
      received: "a closed one",
      remedy: "create a group and use it before closing it",
    });
  }

  /** Runs `work` in its turn, after `previousEvent`. */
  async run<T>(work: () => Promise<T>, { previousEvent }: StreamOptions = {}): Promise<T> {
    this.expectOpen();
    return this.turns.take(async () => {
      await previousEvent?.currentStreamWait();
      return work();
    });
  }

  /** Like `run`; with `asyncFinish` the caller goes on while the rows move. */
  start<T>(prepare: () => Promise<Prepared<T>>, options: StreamOptions = {}): Promise<T> {
    return new Promise((resolve, reject) => {
      const turn = this.run(async () => {
        const { work, result } = await prepare();
        const done = work();
        // Awaited below; a caller that took the early result may never look at it.
        done.catch(() => {});
        if (options.asyncFinish !== true) await done;
        resolve(result(done));
        await done;
      }, options);
      turn.catch(reject);
    });
  }

  close(): Promise<void> {
    this.#closing ??= this.turns.take(this.#free).finally(() => this.#groups.delete(this));
    return this.#closing;
  }
}

/** Closes every group of a backend that is still open. */
export async function closeAll(groups: ReadonlySet<Operations>): Promise<void> {
  await Promise.all([...groups].map((group) => group.close()));
}
