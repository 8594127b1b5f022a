import type { Theme } from "../views/theme.ts";
import { CurrentView } from "./current-view.ts";
import { el } from "./dom.ts";
import { pageHeader } from "./header.ts";
import { helpDialog } from "./help.ts";
import { listenToKeys } from "./keys.ts";
import { alertBox, loadingBox } from "./messages.ts";
import { acceptDrops, acceptMessages, openFromAddress } from "./opening.ts";
import type { Page, Part } from "./page.ts";
import { titleOf, viewRail } from "./rail.ts";
import { Store } from "./store.ts";
import { applyTheme, systemDark, themeOf } from "./theme.ts";

/** The page. It only wires its parts; what is shown is made by model and views. */
export class App implements Page {
  readonly store = new Store(location.hash);
  readonly #live = el("div", { class: "visually-hidden", "aria-live": "polite" });
  readonly #alert = alertBox(this.store);
  readonly #parts: readonly Part[];
  readonly #view: CurrentView;
  #drawn = 0;
  #scheduled = false;

  constructor(root: HTMLElement) {
    const { store } = this;
    const help = helpDialog();
    const header = pageHeader(this, help);
    const loading = loadingBox(store);
    const rail = viewRail(store);
    this.#parts = [header, this.#alert, loading, rail];
    this.#view = new CurrentView(this);
    const main = el("main", { id: "main" }, this.#alert.element, loading.element, ...this.#view.elements, this.#live);
    root.append(header.element, rail.element, main, help);
    store.subscribe(this.#schedule);
    systemDark.addEventListener("change", this.#schedule);
    window.addEventListener("resize", this.#schedule);
    window.addEventListener("hashchange", () => {
      store.readHash(location.hash);
      void openFromAddress(store);
    });
    listenToKeys(this, help, this.#view);
    acceptDrops(store);
    acceptMessages(store);
    void openFromAddress(store);
    // The server of `fused-a2a view` lives as long as a page is connected to it.
    if (new URLSearchParams(location.search).has("served")) new EventSource("./alive");
    this.#schedule();
  }

  get theme(): Theme {
    return themeOf(this.store.state);
  }

  readonly announce = (message: string): void => {
    this.#live.textContent = message;
  };

  readonly fail = (error: unknown): void => {
    this.store.error = error instanceof Error ? error : new Error(String(error));
    this.#alert.render();
  };

  /** Any number of changes before the next frame are drawn once. */
  readonly #schedule = (): void => {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      void this.#render();
    });
  };

  async #render(): Promise<void> {
    const turn = ++this.#drawn;
    const isCurrent = () => turn === this.#drawn;
    const { dataset } = document.documentElement;
    const { state, files } = this.store;
    dataset.ready = "false";
    applyTheme(this.theme);
    for (const part of this.#parts) part.render();
    document.title = `${titleOf(state.view)}${files.a ? `: ${files.a.name}` : ""} - fused-a2a viewer`;
    try {
      await this.#view.render(isCurrent);
    } catch (error) {
      if (isCurrent()) this.fail(error);
    }
    if (isCurrent()) dataset.ready = String(this.store.busy === null);
  }
}
