import { VIEW_IDS } from "../model/state.ts";
import { button, el } from "./dom.ts";

/** Every key of the page, in the order the help lists them. Those of the picture are handled by its stage. */
const KEYS: readonly (readonly [keys: string, meaning: string])[] = [
  [`1 ... ${VIEW_IDS.length}`, "go to a view"],
  ["[  ]", "layer back, forward"],
  ["{  }", "step back, forward"],
  ["n  p", "next, previous token"],
  ["/", "search: rank 3, e17, rank 2 token 5, layer 4"],
  ["Esc", "close, or clear the selection"],
  ["c", "compare A and B, on or off"],
  ["x", "transpose the traffic matrix"],
  ["t", "theme: as the system, light, dark"],
  ["o", "open a file"],
  ["e", "save the picture as SVG"],
  ["?", "this list"],
  ["Tab", "to the picture; then:"],
  ["arrows, Home, End", "move from cell to cell (Shift: ten at a time)"],
  ["PageUp, PageDown", "next part of the picture: bars, cells, curve, labels"],
  ["Enter, Space", "select what the ring is on"],
  ["+  -  0", "zoom in, out, all"],
  ["a d w s", "move the zoomed part"],
  ["wheel, drag, Shift+drag", "zoom, select several, move the zoomed part"],
];

export function helpDialog(): HTMLDialogElement {
  const dialog = el("dialog", { "aria-labelledby": "help-title" });
  dialog.append(
    el("h2", { id: "help-title" }, "Keys"),
    el("dl", {}, ...KEYS.flatMap(([keys, meaning]) => [el("dt", {}, el("kbd", {}, keys)), el("dd", {}, meaning)])),
    el(
      "p",
      {},
      "A row is one (token, destination rank) pair: fused dispatch sends it once. A slot is one (token, k) choice. Imbalance is max/mean everywhere.",
    ),
    button("Close", () => dialog.close()),
  );
  return dialog;
}
