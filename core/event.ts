/**
 * When an operation is done (DeepEP's EventOverlap). On backends without streams it wraps the promise of the work.
 */
export class EventOverlap {
  readonly #done: Promise<void>;
  /** The backend's own event, if it has one. */
  readonly native: unknown;

  constructor(done: Promise<void> = Promise.resolve(), native: unknown = null) {
    this.#done = done;
    this.native = native;
    // A failed operation rejects where it is awaited; an event nobody waits for must not kill the process.
    done.catch(() => {});
  }

  /** Orders the caller after the work: later operations of the group, and the returned promise, come after it. */
  currentStreamWait(): Promise<void> {
    return this.#done;
  }
}
