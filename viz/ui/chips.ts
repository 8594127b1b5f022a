import { micros, text } from "../model/numbers.ts";
import { formatIds, type Patch, type ViewState } from "../model/state.ts";
import { button } from "./dom.ts";
import type { Store } from "./store.ts";

/** A button for every active filter, which takes it away. */
export function chips(store: Store): HTMLElement[] {
  return filters(store.state).map(([label, patch]) =>
    button(`${label} \u00d7`, () => store.dispatch(patch), { "aria-label": `Remove filter: ${label}` }),
  );
}

function filters(state: ViewState): [label: string, remove: Patch][] {
  const list: [string, Patch][] = [];
  const ids = (label: string, key: "src" | "dst" | "experts") => {
    if (state[key].length > 0) list.push([`${label} ${shorten(formatIds(state[key]))}`, { [key]: [] }]);
  };
  ids("from rank", "src");
  ids("to rank", "dst");
  ids("expert", "experts");
  if (state.tokens) list.push([`tokens ${text(state.tokens[0])} to ${text(state.tokens[1])}`, { tokens: null }]);
  if (state.time) list.push([`time ${micros(state.time[0])} to ${micros(state.time[1])}`, { time: null }]);
  if (state.token) list.push([`token ${state.token[1]} of rank ${state.token[0]}`, { token: null }]);
  if (state.zoom) list.push(["zoomed", { zoom: null }]);
  return list;
}

function shorten(ids: string): string {
  return ids.length > 24 ? `${ids.slice(0, 22)}\u2026` : ids;
}
