import type { ByteSource } from "../../core/io/bytes.ts";
import { type Dataset, type Frame, loadFrame } from "../model/dataset.ts";
import { openDataset } from "../model/open.ts";
import { fromHash, type Patch, type Placement, toHash, type ViewState } from "../model/state.ts";

export type Side = "a" | "b";

/** How to get a file again: for another placement of its ranks, and for the URL. */
export interface FileOrigin {
  readonly open: (options: { signal: AbortSignal; progress: (fraction: number) => void }) => Promise<ByteSource>;
  /** "url=..." or "sample=..." for the link; null when only the user has the file. */
  readonly link: string | null;
}

export interface Busy {
  readonly label: string;
  readonly fraction: number;
  readonly cancel: () => void;
}

/** The one mutable thing of the page: state, open files, what is under way, the last error. Everything else is derived. */
export class Store {
  state: ViewState;
  readonly files: { a: Dataset | null; b: Dataset | null } = { a: null, b: null };
  readonly origins: { a: FileOrigin | null; b: FileOrigin | null } = { a: null, b: null };
  busy: Busy | null = null;
  error: Error | null = null;
  readonly #listeners = new Set<() => void>();

  constructor(hash: string) {
    this.state = fromHash(hash);
  }

  subscribe(listener: () => void): void {
    this.#listeners.add(listener);
  }

  changed(): void {
    for (const listener of this.#listeners) listener();
  }

  /** Takes the last error away. */
  dismiss(): void {
    this.error = null;
    this.changed();
  }

  dispatch(patch: Patch): void {
    const before = this.state;
    const view = patch.view ?? before.view;
    this.state = { ...before, ...(view !== before.view && patch.zoom === undefined ? { zoom: null } : {}), ...patch };
    if (patch.placement && JSON.stringify(patch.placement) !== JSON.stringify(before.placement)) {
      void this.#reopen(patch.placement);
    }
    this.#writeHash(view !== before.view);
    this.changed();
  }

  /** Takes the state of the address bar (back and forward buttons). */
  readHash(hash: string): void {
    const before = this.state.placement;
    this.state = fromHash(hash);
    if (JSON.stringify(before) !== JSON.stringify(this.state.placement)) void this.#reopen(this.state.placement);
    this.changed();
  }

  /** The address that shows the same again; the data itself is never in it. */
  link(): string {
    const sources = (["a", "b"] as const).flatMap((side) => {
      const link = this.origins[side]?.link;
      return link ? [side === "a" ? link : link.replace(/^(url|sample)=/, "$12=")] : [];
    });
    return [toHash(this.state), ...sources].filter((part) => part !== "").join("&");
  }

  #writeHash(push: boolean): void {
    const hash = this.link();
    const url = hash === "" ? location.pathname + location.search : `#${hash}`;
    if (push) history.pushState(null, "", url);
    else history.replaceState(null, "", url);
  }

  /** Opens a file beside or instead of what is shown. On failure the old one stays, and the error says why. */
  async open(
    side: Side,
    origin: FileOrigin,
    label: string,
    placement: Placement = this.state.placement,
  ): Promise<boolean> {
    this.busy?.cancel();
    const abort = new AbortController();
    const progress = (fraction: number) => {
      this.busy = { label, fraction, cancel };
      this.changed();
    };
    const cancel = () => abort.abort(new Error("cancelled"));
    progress(0);
    try {
      const source = await origin.open({ signal: abort.signal, progress: (fraction) => progress(fraction * 0.5) });
      const dataset = await openDataset(source, { placement, signal: abort.signal, progress });
      // Reading one frame finds what only shows when tensors are read.
      await loadFrame(dataset, 0, 0, false);
      if (abort.signal.aborted) throw abort.signal.reason;
      this.#replace(side, dataset, origin);
      return true;
    } catch (error) {
      if (!abort.signal.aborted) this.error = error instanceof Error ? error : new Error(String(error));
      return false;
    } finally {
      if (this.busy?.cancel === cancel) this.busy = null;
      this.changed();
    }
  }

  /** Shows a dataset that was made here. */
  show(side: Side, dataset: Dataset): void {
    this.#replace(side, dataset, null);
    this.changed();
  }

  closeB(): void {
    void this.files.b?.close();
    this.files.b = null;
    this.origins.b = null;
    this.dispatch({ compare: false, ...(this.state.view === "compare" ? { view: "overview" as const } : {}) });
  }

  #replace(side: Side, dataset: Dataset, origin: FileOrigin | null): void {
    void this.files[side]?.close();
    this.files[side] = dataset;
    this.origins[side] = origin;
    this.error = null;
    const { numSteps, numLayers } = dataset.header;
    const { step, layer } = this.state;
    this.state = { ...this.state, step: Math.min(step, numSteps - 1), layer: Math.min(layer, numLayers - 1) };
    if (side === "b") this.state = { ...this.state, compare: true };
    this.#writeHash(false);
  }

  async #reopen(placement: Placement): Promise<void> {
    for (const side of ["a", "b"] as const) {
      const [file, origin] = [this.files[side], this.origins[side]];
      if (file?.kind === "routing" && origin) await this.open(side, origin, file.name, placement);
    }
  }

  async frame(side: Side, needsChunk: boolean): Promise<Frame | null> {
    const dataset = this.files[side];
    return dataset && loadFrame(dataset, this.state.step, this.state.layer, needsChunk);
  }
}
