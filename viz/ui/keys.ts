import { isSelecting, NO_SELECTION, VIEW_IDS } from "../model/state.ts";
import { movePlace, toggleCompare, turnTheme } from "./header.ts";
import { chooseFile } from "./opening.ts";
import type { Page } from "./page.ts";
import { type Picture, saveSvg } from "./save.ts";
import type { Store } from "./store.ts";

/** The keys of the whole page, as help.ts lists them. */
export function listenToKeys(page: Page, help: HTMLDialogElement, picture: Picture): void {
  window.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const target = event.target as HTMLElement;
    const typing = target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
    if (typing && event.key !== "Escape") return;
    const act = actionOf(event.key, page, help, picture);
    if (!act) return;
    event.preventDefault();
    act();
  });
}

function actionOf(
  key: string,
  { store, fail }: Page,
  help: HTMLDialogElement,
  picture: Picture,
): (() => void) | undefined {
  const view = VIEW_IDS[Number(key) - 1];
  if (view) return () => store.dispatch({ view });
  const actions: Record<string, () => void> = {
    "[": () => movePlace(store, "layer", -1),
    "]": () => movePlace(store, "layer", 1),
    "{": () => movePlace(store, "step", -1),
    "}": () => movePlace(store, "step", 1),
    n: () => moveToken(store, 1),
    p: () => moveToken(store, -1),
    "/": () => document.querySelector<HTMLElement>("input[type=search]")?.focus(),
    "?": () => help.showModal(),
    c: () => toggleCompare(store),
    x: () => store.dispatch({ transpose: !store.state.transpose }),
    t: () => turnTheme(store),
    o: () => chooseFile(store, "a"),
    e: () => void saveSvg(picture).catch(fail),
    Escape: () => clear(store),
  };
  return actions[key];
}

function moveToken(store: Store, by: number): void {
  const { src, token } = store.state;
  const [rank, at] = token ?? [src[0] ?? 0, -1];
  store.dispatch({ view: "token", token: [rank, Math.max(0, at + by)] });
}

/** The error first, then the selection. */
function clear(store: Store): void {
  const { state } = store;
  if (store.error) store.dismiss();
  else if (isSelecting(state) || state.token || state.zoom) {
    store.dispatch({ ...NO_SELECTION, token: null, zoom: null });
  }
}
