import type { Dataset, Frame } from "../model/dataset.ts";
import type { ViewId, ViewState } from "../model/state.ts";
import type { Table } from "../model/table.ts";
import type { Scene } from "./scene.ts";
import type { Theme } from "./theme.ts";

export interface DrawContext {
  readonly width: number;
  readonly theme: Theme;
  readonly state: ViewState;
  /** Small version on the overview: no labels, no zoom. */
  readonly mini?: boolean;
  /** Top of the scale, when two pictures share it. */
  readonly max?: number;
}

/** A choice the reader has in a view. */
export type Control =
  | {
      readonly kind: "select";
      readonly key: keyof ViewState;
      readonly label: string;
      /** Value, label, and why it cannot be chosen ("" = it can). */
      readonly options: readonly (readonly [value: string, label: string, why?: string])[];
    }
  | { readonly kind: "check"; readonly key: keyof ViewState; readonly label: string; readonly why?: string };

/** One view: what it computes from a frame, how that is drawn, listed and said. Used by the page and by `export`. */
export interface ViewDef<M> {
  readonly id: ViewId;
  readonly title: string;
  /** One sentence on how to read it. */
  readonly help: string;
  needsChunk(state: ViewState, dataset: Dataset): boolean;
  model(frame: Frame, state: ViewState): M;
  draw(model: M, context: DrawContext): Scene;
  table(model: M): Table;
  describe(model: M): string;
  controls(frame: Frame, state: ViewState): readonly Control[];
  /** The largest value its scale must hold. */
  max(model: M): number;
  /** Column of the table whose difference is drawn. */
  readonly compared: number;
  /** B - A; without it the largest changes of the table are drawn as bars. */
  difference?(a: M, b: M, context: DrawContext): Scene | null;
}
