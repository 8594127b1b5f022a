/**
 * Runs native calls of one group one after the other, in the order of the JavaScript calls, whatever becomes of the one
 * before: the library enqueues work in the order in which it gets calls, and worker threads would mix them.
 */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  take<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }
}
