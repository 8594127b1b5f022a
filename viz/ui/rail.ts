import { VIEW_IDS, type ViewId } from "../model/state.ts";
import { compareView } from "../views/compare.ts";
import { VIEWS } from "../views/index.ts";
import { button, el } from "./dom.ts";
import type { Part } from "./page.ts";
import type { Store } from "./store.ts";

const TITLED = { ...VIEWS, compare: compareView, run: { title: "Run" } };

export function titleOf(view: ViewId): string {
  return TITLED[view].title;
}

/** The rail: one button a view, with its key. */
export function viewRail(store: Store): Part {
  const buttons = VIEW_IDS.map((view, i) =>
    button(
      titleOf(view),
      () => store.dispatch({ view }),
      { "data-view": view },
      " ",
      el("kbd", { "aria-hidden": "true" }, `${i + 1}`),
    ),
  );
  const render = () => {
    for (const item of buttons) {
      if (item.dataset.view === store.state.view) item.setAttribute("aria-current", "page");
      else item.removeAttribute("aria-current");
    }
  };
  return { element: el("nav", { "aria-label": "Views" }, ...buttons), render };
}
