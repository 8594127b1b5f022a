import { InvalidArgument } from "../errors.ts";

/**
 * What forward leaves for backward (torch.autograd.Function's ctx). One context belongs to one forward call; a backward
 * with the context of another function, or with an empty one, is an InvalidArgument.
 */
export class FunctionContext {
  #owner: string | null = null;
  #saved: unknown = null;

  save<T>(owner: string, saved: T): void {
    this.#owner = owner;
    this.#saved = saved;
  }

  restore<T>(owner: string): T {
    if (this.#owner === owner) return this.#saved as T;
    throw new InvalidArgument({
      name: "ctx",
      expected: `the context that ${owner}.forward filled`,
      received: this.#owner === null ? "an empty context" : `one filled by ${this.#owner}.forward`,
      remedy: "pass each forward its own FunctionContext and the same one to its backward",
    });
  }
}
