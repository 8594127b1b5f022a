/**
 * When an operation is done (DeepEP's EventOverlap). A backend with streams passes a function that orders the caller's
 * stream after the work; others pass the promise of the work.
 */
export class EventOverlap {
  readonly #wait: () => Promise<void>;
  /** The backend's own event, if it has one. */
  readonly native: unknown;

  constructor(done: Promise<void> | (() => Promise<void>) = Promise.resolve(), native: unknown = null) {
    this.#wait = typeof done === "function" ? done : () => done;
    this.native = native;
    // A failed operation rejects where it is awaited; an event nobody waits for must not kill the process.
    if (typeof done !== "function") done.catch(() => {});
  }

  /**
   * Orders the caller after the work: later operations of the group, and reads of its outputs, come after it. The promise
   * resolves when that holds: where outputs stay on a device with streams at once, else when the work is done.
   */
  currentStreamWait(): Promise<void> {
    return this.#wait();
  }
}
