import { NO_SELECTION, type ViewState } from "../model/state.ts";
import { compareView } from "../views/compare.ts";
import { type Content, comparison, contentOf, contentSvg } from "../views/content.ts";
import { VIEWS } from "../views/index.ts";
import { chips } from "./chips.ts";
import { fillControls } from "./controls.ts";
import { el } from "./dom.ts";
import { firstFile, secondFile } from "./empty.ts";
import type { Page } from "./page.ts";
import { Panel } from "./panel.ts";
import { titleOf } from "./rail.ts";
import { type Picture, saveTools } from "./save.ts";

const RUN_HELP =
  "A small dispatch and combine, executed in this page on WebGPU where there is one, checked against the oracle.";

/** The middle of the page: the current view with its filters, options and tools, the run form, or a call for a file. */
export class CurrentView implements Picture {
  readonly #page: Page;
  readonly #panel: Panel;
  readonly #chips = el("div", { class: "chips", role: "group", "aria-label": "Active filters" });
  readonly #title = el("h1");
  readonly #help = el("p", { class: "help-line" });
  readonly #notes = el("p", { class: "note" });
  readonly #controls = el("div", { class: "controls", role: "group", "aria-label": "Options of this view" });
  readonly #body = el("div");
  readonly #tools: HTMLElement;
  readonly elements: readonly HTMLElement[];
  #runForm: HTMLElement | null = null;
  #content: Content | null = null;

  constructor(page: Page) {
    this.#page = page;
    this.#panel = new Panel(page);
    this.#tools = saveTools(this, page.fail);
    this.elements = [this.#chips, this.#title, this.#help, this.#notes, this.#controls, this.#body, this.#tools];
  }

  /** Shows the store's state; stops where `isCurrent` says that a newer one overtook it while files were read. */
  async render(isCurrent: () => boolean): Promise<void> {
    const { state, files } = this.#page.store;
    this.#title.textContent = titleOf(state.view);
    if (state.view === "run") await this.#renderRun(isCurrent);
    else if (files.a !== null) await this.#renderView(state, isCurrent);
    else {
      this.#renderNothing("");
      this.#body.replaceChildren(firstFile(this.#page.store));
    }
  }

  async #renderView(state: ViewState, isCurrent: () => boolean): Promise<void> {
    const { store, theme } = this.#page;
    const view = state.view === "compare" || state.view === "run" ? null : VIEWS[state.view];
    const second = view === null || state.compare ? store.files.b : null;
    const datasets = [store.files.a, second].filter((dataset) => dataset !== null);
    const needsChunk = view === null || datasets.some((dataset) => view.needsChunk(state, dataset));
    const [a, b] = await Promise.all([store.frame("a", needsChunk), second && store.frame("b", needsChunk)]);
    if (!isCurrent() || a === null) return;
    this.#help.textContent = (view ?? compareView).help;
    this.#notes.textContent = datasets.map(({ notes }) => notes.join(" ")).join(" ");
    this.#chips.replaceChildren(...chips(store));
    fillControls(this.#controls, store, view?.controls(a, state) ?? [], { a, b });
    this.#tools.hidden = view === null && b === null;
    this.#content = view === null ? b && comparison({ a, b }, state, theme) : contentOf(view, { a, b }, state, theme);
    if (this.#content === null) this.#body.replaceChildren(secondFile(store));
    else {
      if (this.#panel.element.parentElement !== this.#body) this.#body.replaceChildren(this.#panel.element);
      this.#panel.render(this.#content, state, theme);
    }
  }

  async #renderRun(isCurrent: () => boolean): Promise<void> {
    const { store, announce } = this.#page;
    this.#renderNothing(RUN_HELP);
    if (this.#runForm === null) {
      const { runForm } = await import("./run.ts");
      this.#runForm ??= runForm((dataset) => {
        store.show("a", dataset);
        store.dispatch({ ...NO_SELECTION, view: "overview", layer: 0, step: 0, token: null });
      }, announce);
    }
    if (isCurrent() && this.#runForm.parentElement !== this.#body) this.#body.replaceChildren(this.#runForm);
  }

  /** A page without a picture: no filters, no options, nothing to save. */
  #renderNothing(help: string): void {
    this.#help.textContent = help;
    this.#notes.textContent = "";
    this.#chips.replaceChildren();
    this.#controls.replaceChildren();
    this.#tools.hidden = true;
    this.#content = null;
  }

  // ---- what the tools save

  fileName(extension: string): string {
    const { state, files } = this.#page.store;
    return `${state.view}-layer${state.layer}-${(files.a?.name ?? "trace").replace(/[^\w.-]+/g, "_")}.${extension}`;
  }

  async svg(): Promise<string> {
    if (!this.#content) throw new Error("there is no picture to save");
    return contentSvg(this.#content, Math.max(720, Math.min(1400, this.#body.clientWidth)), this.#page.theme);
  }

  csv(): string {
    return this.#panel.csv();
  }
}
