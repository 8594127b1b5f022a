import { NO_SELECTION, type Placement } from "../model/state.ts";
import type { Frames } from "../views/content.ts";
import type { Control } from "../views/view.ts";
import { el } from "./dom.ts";
import type { Store } from "./store.ts";

const PER_TOKEN: Control = { kind: "check", key: "perToken", label: "B per token of A" };

/** Fills the group of options; the one that has the focus keeps it. */
export function fillControls(group: HTMLElement, store: Store, controls: readonly Control[], frames: Frames): void {
  const all = frames.b ? [...controls, PER_TOKEN] : controls;
  const active = document.activeElement?.getAttribute("data-control");
  group.replaceChildren(
    ...all.map((control) => option(store, control)),
    ...(frames.a.dataset.kind === "routing" ? placement(store, frames.a.header.numRanks) : []),
  );
  if (active) group.querySelector<HTMLElement>(`[data-control="${active}"]`)?.focus();
}

function option(store: Store, control: Control): HTMLElement {
  const { key, label } = control;
  const value = store.state[key];
  if (control.kind === "check") {
    const input = el("input", { type: "checkbox", "data-control": key });
    input.checked = Boolean(value);
    input.addEventListener("change", () => store.dispatch({ [key]: input.checked }));
    return el("label", {}, input, label);
  }
  const options = control.options.map(([choice, name, why]) =>
    el(
      "option",
      { value: choice, disabled: Boolean(why), selected: value === choice },
      why ? `${name} (${why})` : name,
    ),
  );
  const select = el("select", { "data-control": key }, ...options);
  select.addEventListener("change", () => store.dispatch({ [key]: select.value, zoom: null }));
  return el("label", {}, label, select);
}

/** Where the ranks of a routing file lie: it does not say, the reader may. */
function placement(store: Store, numRanks: number): HTMLElement[] {
  const now = store.state.placement;
  const set = (patch: Partial<Placement>) =>
    store.dispatch({ ...NO_SELECTION, token: null, placement: { ...now, ...patch } });
  const number = (key: "ranks" | "nodes" | "pad", label: string, max: number, value: number) => {
    const input = el("input", {
      type: "number",
      min: 1,
      max,
      value,
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
    ...["fused", "hybrid-ep"].map((value) => el("option", { value, selected: now.style === value }, value)),
  );
  style.addEventListener("change", () => set({ style: style.value as Placement["style"] }));
  return [
    number("ranks", "Ranks", 2048, numRanks),
    number("nodes", "Nodes", 256, now.nodes),
    el("label", {}, "Style", style),
    ...(now.style === "hybrid-ep" ? [number("pad", "Pad to", 1024, now.pad)] : []),
  ];
}
