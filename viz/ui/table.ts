import { text } from "../model/numbers.ts";
import type { Cell, Table } from "../model/table.ts";
import { button, el } from "./dom.ts";

const PAGE = 100;

/** A real table, a hundred rows at a time. Cells carry their full value in `data-value`. */
export function pagedTable(table: Table): HTMLElement {
  let page = 0;
  const pages = Math.max(1, Math.ceil(table.rows.length / PAGE));
  const body = el("tbody");
  const where = el("span", { "aria-live": "polite" });
  const turn = (by: number) => {
    page = Math.max(0, Math.min(pages - 1, page + by));
    body.replaceChildren(
      ...table.rows.slice(page * PAGE, (page + 1) * PAGE).map((row) => el("tr", {}, ...row.map(cell))),
    );
    where.textContent = `rows ${table.rows.length ? page * PAGE + 1 : 0} to ${Math.min(table.rows.length, (page + 1) * PAGE)} of ${text(table.rows.length)}`;
    back.disabled = page === 0;
    next.disabled = page === pages - 1;
  };
  const back = button("Previous rows", () => turn(-1));
  const next = button("Next rows", () => turn(1));
  const head = el("tr", {}, ...table.columns.map((name) => el("th", { scope: "col" }, name)));
  turn(0);
  return el(
    "div",
    { class: "table" },
    el(
      "div",
      { class: "table-scroll", tabindex: "0", role: "region", "aria-label": `Table: ${table.title}` },
      el("table", {}, el("caption", { class: "visually-hidden" }, table.title), el("thead", {}, head), body),
    ),
    el("div", { class: "tools" }, back, next, where),
  );
}

function cell(value: Cell): HTMLTableCellElement {
  if (typeof value === "number") return el("td", { "data-value": String(value) }, text(value));
  return el("td", { class: "text", "data-value": value ?? "" }, value ?? "-");
}
