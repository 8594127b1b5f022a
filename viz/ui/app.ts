import { memorySource } from "../../core/io/bytes.ts";
import type { Dataset } from "../model/dataset.ts";
import { micros, text } from "../model/numbers.ts";
import { SAMPLES, type SampleName } from "../model/sample-names.ts";
import { type Hit, search } from "../model/search.ts";
import {
  formatIds,
  isSelecting,
  NO_SELECTION,
  type Patch,
  selectsSlots,
  VIEW_IDS,
  type ViewId,
  type ViewState,
} from "../model/state.ts";
import { compareView } from "../views/compare.ts";
import { type Content, comparison, contentOf, contentSvg, type Frames } from "../views/content.ts";
import { VIEWS } from "../views/index.ts";
import { DARK, LIGHT, type Theme } from "../views/theme.ts";
import type { Control } from "../views/view.ts";
import { download, el } from "./dom.ts";
import { KEYS } from "./keys.ts";
import { Panel } from "./panel.ts";
import { blobSource, urlSource } from "./sources.ts";
import { type Side, Store } from "./store.ts";

const TITLES: Readonly<Record<ViewId, string>> = {
  overview: "Overview",
  traffic: "Traffic",
  load: "Load",
  buffers: "Buffers",
  token: "Token",
  timeline: "Timeline",
  compare: "Compare",
  run: "Run",
};

/** The page: header, rail, chips, the current view, dialogs. It only wires; what is shown is made by model and views. */
export class App {
  readonly #store: Store;
  readonly #panel: Panel;
  readonly #systemDark = matchMedia("(prefers-color-scheme: dark)");
  readonly #header = el("header");
  readonly #nav = el("nav", { "aria-label": "Views" });
  readonly #main = el("main", { id: "main" });
  readonly #live = el("div", { class: "visually-hidden", "aria-live": "polite" });
  readonly #alert = el("div");
  readonly #loading = el("div");
  readonly #chips = el("div", { class: "chips", role: "group", "aria-label": "Active filters" });
  readonly #title = el("h1");
  readonly #help = el("p", { class: "help-line" });
  readonly #notes = el("p", { class: "note" });
  readonly #controls = el("div", { class: "controls", role: "group", "aria-label": "Options of this view" });
  readonly #body = el("div");
  readonly #tools = el("div", { class: "tools", role: "group", "aria-label": "Save" });
  readonly #helpDialog = helpDialog();
  #runForm: HTMLElement | null = null;
  #content: Content | null = null;
  #drawn = 0;
  #scheduled = false;

  constructor(root: HTMLElement) {
    this.#store = new Store(location.hash);
    this.#panel = new Panel({
      dispatch: (patch) => this.#store.dispatch(patch),
      announce: (message) => this.#announce(message),
    });
    this.#main.append(
      this.#alert,
      this.#loading,
      this.#chips,
      this.#title,
      this.#help,
      this.#notes,
      this.#controls,
      this.#body,
      this.#tools,
      this.#live,
    );
    root.append(this.#header, this.#nav, this.#main, this.#helpDialog);
    this.#buildHeader();
    this.#buildNav();
    this.#buildTools();
    this.#store.subscribe(() => this.#schedule());
    this.#systemDark.addEventListener("change", () => this.#schedule());
    window.addEventListener("hashchange", () => {
      this.#store.readHash(location.hash);
      void this.#openFromAddress();
    });
    window.addEventListener("resize", () => this.#schedule());
    window.addEventListener("keydown", (event) => this.#key(event));
    this.#acceptDrops();
    this.#acceptMessages();
    void this.#openFromAddress();
    // The server of `fused-a2a view` lives as long as a page is connected to it.
    if (new URLSearchParams(location.search).has("served")) new EventSource("./alive");
    this.#schedule();
  }

  get theme(): Theme {
    const { theme } = this.#store.state;
    return theme === "dark" || (theme === "auto" && this.#systemDark.matches) ? DARK : LIGHT;
  }

  // ---- opening

  async #openFromAddress(): Promise<void> {
    const params = new URLSearchParams(location.hash.slice(1));
    const sides = [
      ["a", "url", "sample"],
      ["b", "url2", "sample2"],
    ] as const;
    for (const [side, url, sample] of sides) {
      const address = params.get(url);
      const name = params.get(sample);
      const open = this.#store.origins[side]?.link ?? null;
      if (open === `url=${encodeURIComponent(address ?? "")}` || open === `sample=${name}`) continue;
      if (address !== null) await this.openUrl(side, address);
      else if (name !== null && name in SAMPLES) await this.openSample(side, name as SampleName);
    }
  }

  openUrl(side: Side, url: string): Promise<boolean> {
    const open = (options: Parameters<typeof urlSource>[1]) => urlSource(url, options);
    return this.#store.open(side, { open, link: `url=${encodeURIComponent(url)}` }, `Reading ${url}`);
  }

  openSample(side: Side, name: SampleName): Promise<boolean> {
    const open = async () => {
      const { sampleTrace } = await import("../model/sample.ts");
      return memorySource(await sampleTrace(name), `sample ${name}`);
    };
    return this.#store.open(side, { open, link: `sample=${name}` }, "Making the sample");
  }

  async openFiles(files: readonly File[], side: Side = "a"): Promise<void> {
    const sides: Side[] = [side, "b"];
    for (const [i, file] of files.slice(0, side === "a" ? 2 : 1).entries()) {
      await this.#store.open(
        sides[i],
        { open: async () => blobSource(file, file.name), link: null },
        `Reading ${file.name}`,
      );
    }
  }

  #chooseFile(side: Side): void {
    const input = el("input", { type: "file", multiple: side === "a" });
    input.addEventListener("change", () => void this.openFiles([...(input.files ?? [])], side));
    input.click();
  }

  #acceptDrops(): void {
    const { documentElement } = document;
    const drop = (event: DragEvent, over: boolean) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      documentElement.classList.toggle("dropping", over);
    };
    window.addEventListener("dragover", (event) => drop(event, true));
    window.addEventListener("dragleave", (event) => drop(event, false));
    window.addEventListener("drop", (event) => {
      drop(event, false);
      const files = [...(event.dataTransfer?.files ?? [])];
      // With Shift the file is put beside the open one.
      if (files.length > 0) void this.openFiles(files, event.shiftKey && this.#store.files.a ? "b" : "a");
    });
  }

  /** For pages that embed the viewer: PING is answered, {open: ArrayBuffer, name} from the embedding page is opened. */
  #acceptMessages(): void {
    window.addEventListener("message", (event) => {
      if (event.source === null || event.source !== window.parent || window.parent === window) return;
      if (event.data === "PING") window.parent.postMessage("PONG", event.origin);
      const { open, name = "embedded file" } = (event.data ?? {}) as { open?: unknown; name?: string };
      if (open instanceof ArrayBuffer) {
        const source = async () => memorySource(new Uint8Array(open), String(name));
        void this.#store.open("a", { open: source, link: null }, `Reading ${name}`);
      }
    });
  }

  // ---- drawing

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      void this.#render();
    });
  }

  async #render(): Promise<void> {
    const turn = ++this.#drawn;
    document.documentElement.dataset.ready = "false";
    const { state, files } = this.#store;
    applyTheme(this.theme);
    this.#renderHeader();
    this.#renderMessages();
    for (const button of this.#nav.querySelectorAll("button")) {
      const current = button.dataset.view === state.view;
      button.toggleAttribute("aria-current", current);
      if (current) button.setAttribute("aria-current", "page");
    }
    this.#title.textContent = TITLES[state.view];
    document.title = `${TITLES[state.view]}${files.a ? `: ${files.a.name}` : ""} - fused-a2a viewer`;
    try {
      if (state.view === "run") await this.#renderRun(turn);
      else if (files.a === null) this.#renderEmpty();
      else await this.#renderView(state, turn);
    } catch (error) {
      if (turn === this.#drawn) this.#fail(error);
    }
    if (turn === this.#drawn) document.documentElement.dataset.ready = String(this.#store.busy === null);
  }

  async #renderView(state: ViewState, turn: number): Promise<void> {
    const { files } = this.#store;
    if (files.a === null) return;
    const paired = files.b !== null && (state.compare || state.view === "compare");
    const view = state.view === "compare" || state.view === "run" ? null : VIEWS[state.view];
    const needsChunk =
      view === null ||
      view.needsChunk(state, files.a) ||
      (paired && files.b !== null && view.needsChunk(state, files.b));
    const [a, b] = await Promise.all([
      this.#store.frame("a", needsChunk),
      paired ? this.#store.frame("b", needsChunk) : null,
    ]);
    // A newer state overtook this one while the file was read.
    if (turn !== this.#drawn || a === null) return;
    const frames: Frames = { a, b };
    this.#help.textContent = view?.help ?? compareView.help;
    this.#notes.textContent = [files.a, ...(paired && files.b ? [files.b] : [])].map(notesOf).join(" ");
    this.#renderChips();
    this.#renderControls(view?.controls(a, state) ?? [], frames);
    this.#tools.hidden = false;
    if (view === null && b === null) {
      this.#content = null;
      this.#tools.hidden = true;
      this.#body.replaceChildren(this.#needSecond());
      return;
    }
    this.#content = view ? contentOf(view, frames, state, this.theme) : comparison({ a, b: b ?? a }, state, this.theme);
    if (this.#panel.element.parentElement !== this.#body) this.#body.replaceChildren(this.#panel.element);
    this.#panel.render(this.#content, state, this.theme);
  }

  async #renderRun(turn: number): Promise<void> {
    this.#help.textContent =
      "A small dispatch and combine, executed in this page on WebGPU where there is one, checked against the oracle.";
    this.#notes.textContent = "";
    this.#chips.replaceChildren();
    this.#controls.replaceChildren();
    this.#tools.hidden = true;
    this.#content = null;
    if (this.#runForm === null) {
      const { runForm } = await import("./run.ts");
      this.#runForm ??= runForm(
        (dataset) => {
          this.#store.show("a", dataset);
          this.#store.dispatch({ ...NO_SELECTION, view: "overview", layer: 0, step: 0, token: null });
        },
        (message) => this.#announce(message),
      );
    }
    if (turn === this.#drawn && this.#runForm.parentElement !== this.#body) this.#body.replaceChildren(this.#runForm);
  }

  #renderEmpty(): void {
    this.#help.textContent = "";
    this.#notes.textContent = "";
    this.#chips.replaceChildren();
    this.#controls.replaceChildren();
    this.#tools.hidden = true;
    this.#content = null;
    const samples = Object.entries(SAMPLES).map(([name, about]) =>
      el(
        "button",
        { type: "button", onclick: () => void this.openSample("a", name as SampleName) },
        `Sample: ${about}`,
      ),
    );
    this.#body.replaceChildren(
      el(
        "div",
        { class: "empty" },
        el("p", {}, "Drop a trace, routing or handle file here. It stays on this machine."),
        el(
          "div",
          { class: "tools", style: "justify-content:center" },
          el("button", { type: "button", onclick: () => this.#chooseFile("a") }, "Open a file"),
          ...samples,
        ),
        el(
          "p",
          { class: "note" },
          "fused-a2a run --trace t.safetensors writes a trace; fused-a2a view t.safetensors opens it here.",
        ),
      ),
    );
  }

  #needSecond(): HTMLElement {
    return el(
      "div",
      { class: "empty" },
      el("p", {}, "Comparing needs a second file: open it here, or drop it with Shift held."),
      el(
        "div",
        { class: "tools", style: "justify-content:center" },
        el("button", { type: "button", onclick: () => this.#chooseFile("b") }, "Open file B"),
        el("button", { type: "button", onclick: () => void this.openSample("b", "balanced") }, "Use a sample as B"),
      ),
    );
  }

  #renderMessages(): void {
    const { error, busy } = this.#store;
    if (error) {
      const kept = this.#store.files.a ? ` ${this.#store.files.a.name} stays open.` : "";
      const diagnostics = () =>
        void navigator.clipboard?.writeText(
          `${error.name}: ${error.message}\n${error.stack ?? ""}\n${navigator.userAgent}\n${location.href}`,
        );
      this.#alert.replaceChildren(
        el(
          "div",
          { class: "alert", role: "alert" },
          el("p", {}, `${error.message}.${kept}`),
          el("button", { type: "button", onclick: diagnostics }, "Copy diagnostics"),
          el("button", { type: "button", onclick: () => this.#clearError() }, "Dismiss"),
        ),
      );
    } else this.#alert.replaceChildren();
    if (busy) {
      const percent = Math.round(busy.fraction * 100);
      this.#loading.replaceChildren(
        el(
          "div",
          { class: "loading", role: "status" },
          el("progress", { max: "100", value: percent, "aria-label": busy.label }),
          el("span", {}, `${busy.label} (${percent} %)`),
          el("button", { type: "button", onclick: busy.cancel }, "Cancel"),
        ),
      );
    } else this.#loading.replaceChildren();
  }

  #fail(error: unknown): void {
    this.#store.error = error instanceof Error ? error : new Error(String(error));
    this.#renderMessages();
  }

  #clearError(): void {
    this.#store.error = null;
    this.#store.changed();
  }

  #announce(message: string): void {
    this.#live.textContent = message;
  }

  // ---- header, rail, chips, controls

  #buildNav(): void {
    VIEW_IDS.forEach((view, i) => {
      const go = () => this.#store.dispatch({ view });
      this.#nav.append(
        el(
          "button",
          { type: "button", "data-view": view, onclick: go },
          TITLES[view],
          " ",
          el("kbd", { "aria-hidden": "true" }, `${i + 1}`),
        ),
      );
    });
  }

  #buildHeader(): void {
    const files = el("span", { class: "files" });
    const place = (name: "step" | "layer", label: string) => {
      const number = el("input", { type: "number", min: 0, value: 0, "aria-label": `${label} number` });
      const range = el("input", { type: "range", min: 0, value: 0, "aria-label": label });
      for (const input of [number, range]) {
        input.addEventListener("input", () => {
          const value = Number(input.value);
          if (Number.isInteger(value) && value >= 0 && value <= Number(input.max))
            this.#store.dispatch({ [name]: value });
        });
      }
      return el("label", { "data-place": name }, label, range, number);
    };
    this.#header.append(
      el("span", { class: "brand" }, "fused-a2a"),
      files,
      el("button", { type: "button", onclick: () => this.#chooseFile("a") }, "Open"),
      el("button", { type: "button", "data-compare": "", onclick: () => this.#toggleCompare() }, "Compare"),
      el("span", { class: "spacer" }),
      place("step", "Step"),
      place("layer", "Layer"),
      this.#searchBox(),
      el("button", { type: "button", "data-theme-button": "", onclick: () => this.#nextTheme() }, "Theme"),
      el("button", { type: "button", onclick: () => this.#helpDialog.showModal() }, "Help (?)"),
    );
  }

  #renderHeader(): void {
    const { state, files } = this.#store;
    const name = (side: "a" | "b", file: Dataset) =>
      el("span", {}, files.b ? `${side.toUpperCase()}: ${file.name}` : file.name);
    this.#header
      .querySelector(".files")
      ?.replaceChildren(
        ...(files.a ? [name("a", files.a)] : []),
        ...(files.b
          ? [name("b", files.b), el("button", { type: "button", onclick: () => this.#store.closeB() }, "Close B")]
          : []),
      );
    for (const place of ["step", "layer"] as const) {
      const label = this.#header.querySelector<HTMLElement>(`[data-place=${place}]`);
      const header = files.a?.header;
      const count = header ? (place === "step" ? header.numSteps : header.numLayers) : 1;
      if (!label) continue;
      label.hidden = count <= 1;
      for (const input of label.querySelectorAll("input")) {
        input.max = String(count - 1);
        if (document.activeElement !== input || input.type === "range") input.value = String(state[place]);
      }
    }
    const compare = this.#header.querySelector<HTMLButtonElement>("[data-compare]");
    if (compare) {
      compare.hidden = files.a === null;
      compare.setAttribute("aria-pressed", String(state.compare && files.b !== null));
      compare.textContent = files.b === null ? "Open B to compare" : state.compare ? "Compare: on" : "Compare: off";
    }
    const theme = this.#header.querySelector("[data-theme-button]");
    if (theme) theme.textContent = `Theme: ${state.theme}`;
  }

  #toggleCompare(): void {
    if (this.#store.files.b === null) this.#chooseFile("b");
    else this.#store.dispatch({ compare: !this.#store.state.compare });
  }

  #nextTheme(): void {
    const next = { auto: "light", light: "dark", dark: "auto" } as const;
    this.#store.dispatch({ theme: next[this.#store.state.theme] });
  }

  #searchBox(): HTMLElement {
    const list = el("ul", { class: "hits", role: "listbox", id: "hits", "aria-label": "Search results", hidden: true });
    const input = el("input", {
      type: "search",
      placeholder: "Search ( / )",
      "aria-label": "Search for a rank, expert, token or layer",
      role: "combobox",
      "aria-expanded": "false",
      "aria-controls": "hits",
      "aria-autocomplete": "list",
    });
    let hits: Hit[] = [];
    let chosen = 0;
    const close = () => {
      list.hidden = true;
      input.setAttribute("aria-expanded", "false");
      input.removeAttribute("aria-activedescendant");
    };
    const take = (hit: Hit | undefined) => {
      if (!hit) return;
      close();
      input.value = "";
      this.#store.dispatch(hit.patch);
      this.#announce(hit.label);
    };
    const show = () => {
      const { a } = this.#store.files;
      hits = a ? search(input.value, a.header, this.#store.state.token?.[0] ?? 0) : [];
      chosen = Math.min(chosen, Math.max(0, hits.length - 1));
      const nothing =
        input.value.trim() === ""
          ? []
          : [el("li", { role: "option", "aria-selected": "false", "aria-disabled": "true" }, "0 matched")];
      const items = hits.map(({ label }, i) =>
        el(
          "li",
          { role: "option", id: `hit${i}`, "aria-selected": String(i === chosen), onpointerdown: () => take(hits[i]) },
          label,
        ),
      );
      list.replaceChildren(...(items.length ? items : nothing));
      list.hidden = list.childElementCount === 0;
      input.setAttribute("aria-expanded", String(!list.hidden));
      if (items.length) input.setAttribute("aria-activedescendant", `hit${chosen}`);
    };
    input.addEventListener("input", () => {
      chosen = 0;
      show();
    });
    input.addEventListener("blur", close);
    input.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        chosen = Math.max(0, Math.min(hits.length - 1, chosen + (event.key === "ArrowDown" ? 1 : -1)));
        show();
        event.preventDefault();
      } else if (event.key === "Enter") take(hits[chosen]);
      else if (event.key === "Escape") {
        input.value = "";
        close();
        input.blur();
        event.stopPropagation();
      }
    });
    return el("div", { class: "search" }, input, list);
  }

  #renderChips(): void {
    const { state } = this.#store;
    const chips: [string, Patch][] = [];
    const list = (label: string, key: "src" | "dst" | "experts") => {
      if (state[key].length > 0) chips.push([`${label} ${shorten(formatIds(state[key]))}`, { [key]: [] }]);
    };
    list("from rank", "src");
    list("to rank", "dst");
    list("expert", "experts");
    if (state.tokens) chips.push([`tokens ${text(state.tokens[0])} to ${text(state.tokens[1])}`, { tokens: null }]);
    if (state.time) chips.push([`time ${micros(state.time[0])} to ${micros(state.time[1])}`, { time: null }]);
    if (state.token) chips.push([`token ${state.token[1]} of rank ${state.token[0]}`, { token: null }]);
    if (state.zoom) chips.push(["zoomed", { zoom: null }]);
    this.#chips.replaceChildren(
      ...chips.map(([label, patch]) =>
        el(
          "button",
          { type: "button", "aria-label": `Remove filter: ${label}`, onclick: () => this.#store.dispatch(patch) },
          `${label} \u00d7`,
        ),
      ),
    );
  }

  #renderControls(controls: readonly Control[], frames: Frames): void {
    const { state } = this.#store;
    const nodes = controls.map((control) => this.#control(control, state));
    if (frames.b) {
      nodes.push(this.#control({ kind: "check", key: "perToken", label: "B per token of A" }, state));
    }
    if (frames.a.dataset.kind === "routing") nodes.push(...this.#placement(state, frames));
    const active = document.activeElement?.getAttribute("data-control");
    this.#controls.replaceChildren(...nodes);
    if (active) this.#controls.querySelector<HTMLElement>(`[data-control="${active}"]`)?.focus();
  }

  #control(control: Control, state: ViewState): HTMLElement {
    if (control.kind === "check") {
      const input = el("input", { type: "checkbox", "data-control": control.key });
      input.checked = Boolean(state[control.key]);
      input.addEventListener("change", () => this.#store.dispatch({ [control.key]: input.checked }));
      return el("label", {}, input, control.label);
    }
    const select = el("select", { "data-control": control.key });
    for (const [value, label, why] of control.options) {
      select.append(
        el(
          "option",
          { value, disabled: Boolean(why), selected: state[control.key] === value },
          why ? `${label} (${why})` : label,
        ),
      );
    }
    select.addEventListener("change", () => this.#store.dispatch({ [control.key]: select.value, zoom: null }));
    return el("label", {}, control.label, select);
  }

  /** Where the ranks of a routing file lie: it does not say, the reader may. */
  #placement(state: ViewState, { a }: Frames): HTMLElement[] {
    const set = (patch: Partial<ViewState["placement"]>) =>
      this.#store.dispatch({ ...NO_SELECTION, token: null, placement: { ...state.placement, ...patch } });
    const number = (key: "ranks" | "nodes" | "pad", label: string, max: number) => {
      const input = el("input", {
        type: "number",
        min: 1,
        max,
        value: key === "ranks" ? a.header.numRanks : state.placement[key],
        "data-control": `place-${key}`,
        style: "width:64px",
      });
      input.addEventListener("change", () => {
        const value = Number(input.value);
        if (Number.isInteger(value) && value >= 1 && value <= max) set({ [key]: value });
      });
      return el("label", {}, label, input);
    };
    const style = el(
      "select",
      { "data-control": "place-style" },
      ...["fused", "hybrid-ep"].map((value) =>
        el("option", { value, selected: state.placement.style === value }, value),
      ),
    );
    style.addEventListener("change", () => set({ style: style.value as "fused" | "hybrid-ep" }));
    return [
      number("ranks", "Ranks", 2048),
      number("nodes", "Nodes", 256),
      el("label", {}, "Style", style),
      ...(state.placement.style === "hybrid-ep" ? [number("pad", "Pad to", 1024)] : []),
    ];
  }

  #buildTools(): void {
    const save = (label: string, act: () => Promise<void>) =>
      el("button", { type: "button", onclick: () => void act().catch((error) => this.#fail(error)) }, label);
    this.#tools.append(
      save("Save SVG", () => this.#saveSvg()),
      save("Save PNG", () => this.#savePng()),
      save("Save CSV", async () =>
        download(this.#fileName("csv"), new Blob([this.#panel.csv()], { type: "text/csv" })),
      ),
    );
  }

  #fileName(extension: string): string {
    const { state, files } = this.#store;
    return `${state.view}-layer${state.layer}-${(files.a?.name ?? "trace").replace(/[^\w.-]+/g, "_")}.${extension}`;
  }

  async #svg(): Promise<string> {
    if (!this.#content) throw new Error("there is no picture to save");
    return contentSvg(this.#content, Math.max(720, Math.min(1400, this.#body.clientWidth)), this.theme);
  }

  async #saveSvg(): Promise<void> {
    download(this.#fileName("svg"), new Blob([await this.#svg()], { type: "image/svg+xml" }));
  }

  /** The SVG, drawn by the browser at twice its size. */
  async #savePng(): Promise<void> {
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(await this.#svg())}`;
    await image.decode();
    const canvas = el("canvas", { width: image.width * 2, height: image.height * 2 });
    canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
    if (blob) download(this.#fileName("png"), blob);
  }

  // ---- keys

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || this.#helpDialog.open) return;
    const target = event.target as HTMLElement;
    const typing = target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
    if (typing && event.key !== "Escape") return;
    const act = this.#actionOf(event.key);
    if (!act) return;
    event.preventDefault();
    act();
  }

  #actionOf(key: string): (() => void) | undefined {
    const { state, files } = this.#store;
    const header = files.a?.header;
    const move = (name: "step" | "layer", by: number) => {
      const count = header ? (name === "step" ? header.numSteps : header.numLayers) : 1;
      this.#store.dispatch({ [name]: Math.max(0, Math.min(count - 1, state[name] + by)) });
    };
    const token = (by: number) => {
      const [rank, at] = state.token ?? [state.src[0] ?? 0, -1];
      this.#store.dispatch({ view: "token", token: [rank, Math.max(0, at + by)] });
    };
    const view = VIEW_IDS[Number(key) - 1];
    if (view) return () => this.#store.dispatch({ view });
    const actions: Record<string, () => void> = {
      "[": () => move("layer", -1),
      "]": () => move("layer", 1),
      "{": () => move("step", -1),
      "}": () => move("step", 1),
      n: () => token(1),
      p: () => token(-1),
      "/": () => this.#header.querySelector<HTMLElement>("input[type=search]")?.focus(),
      "?": () => this.#helpDialog.showModal(),
      c: () => this.#toggleCompare(),
      x: () => this.#store.dispatch({ transpose: !state.transpose }),
      t: () => this.#nextTheme(),
      o: () => this.#chooseFile("a"),
      e: () => void this.#saveSvg().catch((error) => this.#fail(error)),
      Escape: () => {
        if (this.#store.error) this.#clearError();
        else if (isSelecting(state) || selectsSlots(state) || state.token || state.zoom) {
          this.#store.dispatch({ ...NO_SELECTION, token: null, zoom: null });
        }
      },
    };
    return actions[key];
  }
}

function notesOf(dataset: Dataset): string {
  return dataset.notes.join(" ");
}

function shorten(ids: string): string {
  return ids.length > 24 ? `${ids.slice(0, 22)}\u2026` : ids;
}

function applyTheme(theme: Theme): void {
  const { style } = document.documentElement;
  document.documentElement.dataset.theme = theme.name;
  style.colorScheme = theme.name;
  const names = {
    bg: "bg",
    panel: "panel",
    fg: "fg",
    muted: "muted",
    grid: "grid",
    accent: "accent",
    onAccent: "on-accent",
    warning: "warning",
  } as const;
  for (const [key, name] of Object.entries(names))
    style.setProperty(`--${name}`, String(theme[key as keyof typeof names]));
}

function helpDialog(): HTMLDialogElement {
  const dialog = el("dialog", { "aria-labelledby": "help-title" });
  dialog.append(
    el("h2", { id: "help-title" }, "Keys"),
    el("dl", {}, ...KEYS.flatMap(([keys, meaning]) => [el("dt", {}, el("kbd", {}, keys)), el("dd", {}, meaning)])),
    el(
      "p",
      {},
      "A row is one (token, destination rank) pair: fused dispatch sends it once. A slot is one (token, k) choice. Imbalance is max/mean everywhere.",
    ),
    el("button", { type: "button", onclick: () => dialog.close() }, "Close"),
  );
  return dialog;
}
