import { isSelecting, type ViewState } from "../model/state.ts";
import { toCsv } from "../model/table.ts";
import type { Content } from "../views/content.ts";
import type { Theme } from "../views/theme.ts";
import { el } from "./dom.ts";
import type { Page } from "./page.ts";
import type { Cursor } from "./stage/cursor.ts";
import { Stage } from "./stage/stage.ts";
import { pagedTable } from "./table.ts";

/** Shows content in the page: the pictures as stages, their words, their table. */
export class Panel {
  readonly element = el("div");
  readonly #page: Page;
  readonly #description = el("p", { class: "description", id: "description" });
  readonly #stages = el("div", { class: "stages" });
  readonly #status = el("div", { class: "status", id: "status" });
  readonly #tableBox = el("details", {}, el("summary", {}, "Show as table"));
  #list: { stage: Stage; heading: HTMLElement }[] = [];
  #content: Content | null = null;
  #tableOf: Content | null = null;

  constructor(page: Page) {
    this.#page = page;
    this.element.append(this.#description, this.#stages, this.#status, this.#tableBox);
    this.#tableBox.addEventListener("toggle", () => this.#fillTable());
  }

  render(content: Content, state: ViewState, theme: Theme): void {
    this.#content = content;
    this.#description.textContent = content.description;
    const width = Math.max(320, this.#stages.clientWidth);
    const pictures = content.pictures(width);
    while (this.#list.length > pictures.length) this.#list.pop()?.stage.element.parentElement?.remove();
    while (this.#list.length < pictures.length) this.#addStage(this.#list.length);
    this.#stages.classList.toggle("pair", pictures.length > 1 && width >= 1000);
    pictures.forEach(({ label, scene, zoomable, wide }, i) => {
      const { stage, heading } = this.#list[i];
      heading.textContent = label;
      heading.hidden = label === "";
      stage.element.parentElement?.classList.toggle("wide", wide);
      const how = zoomable ? " Arrow keys move, Enter selects, + and - zoom." : " Arrow keys move, Enter selects.";
      stage.render(scene, theme, state.zoom, `${content.title}${label ? `, ${label}` : ""}.${how}`);
    });
    this.#fillTable();
    this.element.dataset.selecting = String(isSelecting(state));
  }

  #addStage(index: number): void {
    const heading = el("h2");
    const mirrors = (cursor: Cursor | null) =>
      this.#list
        .slice(0, 2)
        .flatMap((other, i) => (i === index || index > 1 ? [] : [[i, other.stage.mirror(cursor)] as const]));
    const stage = new Stage({
      act: (patch) => this.#page.store.dispatch(patch),
      zoom: (zoom) => this.#page.store.dispatch({ zoom }),
      say: (text, byKeyboard) => {
        this.#status.textContent = text;
        if (byKeyboard) this.#page.announce(text);
      },
      moved: (cursor) => void mirrors(cursor),
      also: (cursor) =>
        mirrors(cursor)
          .filter(([, text]) => text !== "")
          .map(([i, text]) => `${i === 0 ? "A" : "B"}: ${text}`)
          .join("\n"),
    });
    this.#stages.append(el("div", {}, heading, stage.element));
    this.#list.push({ stage, heading });
  }

  #fillTable(): void {
    if (!this.#tableBox.open || !this.#content || this.#tableOf === this.#content) return;
    this.#tableOf = this.#content;
    this.#tableBox.querySelector(".table")?.remove();
    this.#tableBox.append(pagedTable(this.#content.table()));
  }

  csv(): string {
    return this.#content ? toCsv(this.#content.table()) : "";
  }
}
