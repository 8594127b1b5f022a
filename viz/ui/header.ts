import type { Dataset } from "../model/dataset.ts";
import { button, el } from "./dom.ts";
import { chooseFile } from "./opening.ts";
import type { Page, Part } from "./page.ts";
import { searchBox } from "./search-box.ts";
import type { Store } from "./store.ts";
import { nextTheme } from "./theme.ts";

type Place = "step" | "layer";

/** The header: what is open, step and layer, search, theme, help. */
export function pageHeader(page: Page, help: HTMLDialogElement): Part {
  const { store } = page;
  const files = el("span", { class: "files" });
  const compare = button("Compare", () => toggleCompare(store));
  const theme = button("Theme", () => turnTheme(store));
  const places = [placeInput(store, "step", "Step"), placeInput(store, "layer", "Layer")];
  const element = el(
    "header",
    {},
    el("span", { class: "brand" }, "fused-a2a"),
    files,
    button("Open", () => chooseFile(store, "a")),
    compare,
    el("span", { class: "spacer" }),
    ...places.map((place) => place.element),
    searchBox(page),
    theme,
    button("Help (?)", () => help.showModal()),
  );
  const render = () => {
    const { state } = store;
    const { a, b } = store.files;
    files.replaceChildren(...fileNames(store));
    for (const place of places) place.render();
    compare.hidden = a === null;
    compare.setAttribute("aria-pressed", String(state.compare && b !== null));
    compare.textContent = b === null ? "Open B to compare" : state.compare ? "Compare: on" : "Compare: off";
    theme.textContent = `Theme: ${state.theme}`;
  };
  return { element, render };
}

/** Names of the open files; with two of them, which is which. */
function fileNames(store: Store): HTMLElement[] {
  const { a, b } = store.files;
  const name = (letter: string, file: Dataset) => el("span", {}, b ? `${letter}: ${file.name}` : file.name);
  const close = button("Close B", () => store.closeB());
  return [...(a ? [name("A", a)] : []), ...(b ? [name("B", b), close] : [])];
}

/** A slider and a number for the step or the layer, where there is more than one. */
function placeInput(store: Store, name: Place, label: string): Part {
  const number = el("input", { type: "number", min: 0, value: 0, "aria-label": `${label} number` });
  const range = el("input", { type: "range", min: 0, value: 0, "aria-label": label });
  for (const input of [number, range]) {
    input.addEventListener("input", () => {
      const value = Number(input.value);
      if (Number.isInteger(value) && value >= 0 && value <= Number(input.max)) store.dispatch({ [name]: value });
    });
  }
  const element = el("label", { "data-place": name }, label, range, number);
  const render = () => {
    const count = numPlaces(store, name);
    element.hidden = count <= 1;
    for (const input of [range, number]) {
      input.max = String(count - 1);
      // A number being typed is left alone.
      if (document.activeElement !== input || input === range) input.value = String(store.state[name]);
    }
  };
  return { element, render };
}

function numPlaces({ files }: Store, name: Place): number {
  return files.a?.header[name === "step" ? "numSteps" : "numLayers"] ?? 1;
}

/** Steps or layers forward (back, by < 0), up to the last. */
export function movePlace(store: Store, name: Place, by: number): void {
  const last = numPlaces(store, name) - 1;
  store.dispatch({ [name]: Math.max(0, Math.min(last, store.state[name] + by)) });
}

export function toggleCompare(store: Store): void {
  if (store.files.b === null) chooseFile(store, "b");
  else store.dispatch({ compare: !store.state.compare });
}

export function turnTheme(store: Store): void {
  store.dispatch({ theme: nextTheme(store.state) });
}
