import type { Theme } from "../views/theme.ts";
import type { Store } from "./store.ts";

/** What the parts of the page share: the store, and what only the page as a whole can do. */
export interface Page {
  readonly store: Store;
  readonly theme: Theme;
  /** Says something to screen readers. */
  readonly announce: (message: string) => void;
  /** Shows what went wrong. */
  readonly fail: (error: unknown) => void;
}

/** A piece of the page that shows the store's state each time it is asked to. */
export interface Part {
  readonly element: HTMLElement;
  render(): void;
}
