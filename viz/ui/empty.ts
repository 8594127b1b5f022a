import { SAMPLES, type SampleName } from "../model/sample-names.ts";
import { button, el } from "./dom.ts";
import { chooseFile, openSample } from "./opening.ts";
import type { Store } from "./store.ts";

/** What stands in place of a view while no file is open. */
export function firstFile(store: Store): HTMLElement {
  const samples = Object.entries(SAMPLES).map(([name, about]) =>
    button(`Sample: ${about}`, () => void openSample(store, "a", name as SampleName)),
  );
  return invitation(
    "Drop a trace, routing or handle file here. It stays on this machine.",
    [button("Open a file", () => chooseFile(store, "a")), ...samples],
    el(
      "p",
      { class: "note" },
      "fused-a2a run --trace t.safetensors writes a trace; fused-a2a view t.safetensors opens it here.",
    ),
  );
}

/** What stands in place of the comparison while there is one file only. */
export function secondFile(store: Store): HTMLElement {
  return invitation("Comparing needs a second file: open it here, or drop it with Shift held.", [
    button("Open file B", () => chooseFile(store, "b")),
    button("Use a sample as B", () => void openSample(store, "b", "balanced")),
  ]);
}

function invitation(words: string, buttons: readonly HTMLElement[], ...more: readonly HTMLElement[]): HTMLElement {
  const tools = el("div", { class: "tools", style: "justify-content:center" }, ...buttons);
  return el("div", { class: "empty" }, el("p", {}, words), tools, ...more);
}
