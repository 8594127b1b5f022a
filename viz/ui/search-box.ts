import { type Hit, search } from "../model/search.ts";
import { el } from "./dom.ts";
import type { Page } from "./page.ts";

/** Search with a list of what it found: arrows choose, Enter goes there, Escape closes. */
export function searchBox({ store, announce }: Page): HTMLElement {
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
    store.dispatch(hit.patch);
    announce(hit.label);
  };
  const show = () => {
    const { a } = store.files;
    hits = a ? search(input.value, a.header, store.state.token?.[0] ?? 0) : [];
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
