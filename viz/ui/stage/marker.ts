import type { Theme } from "../../views/theme.ts";
import { el, placeAt } from "../dom.ts";
import type { Box } from "./cursor.ts";

/** What shows where the cursor is: a ring around its cell, and the exact numbers beside it. */
export class Marker {
  readonly ring = el("div", { style: "position:absolute;pointer-events:none;display:none", class: "ring" });
  readonly tip = el("div", { class: "tip", hidden: true, "aria-hidden": "true" });

  color({ accent, bg }: Theme): void {
    this.ring.style.border = `2px solid ${accent}`;
    this.ring.style.boxShadow = `0 0 0 1px ${bg}`;
  }

  /** The ring around a box of the scene; null takes it away. */
  encircle(box: Box | null): void {
    this.ring.style.display = box ? "block" : "none";
    // Never smaller than one can see.
    if (box) placeAt(this.ring, box.x - 2, box.y - 2, Math.max(box.w, 5) + 4, Math.max(box.h, 5) + 4);
  }

  /** The tooltip at a point of the window, moved so far that all of it is seen. */
  explain(text: string, x: number, y: number): void {
    const { tip } = this;
    tip.hidden = false;
    tip.textContent = text;
    tip.style.left = `${Math.max(4, Math.min(x, window.innerWidth - tip.offsetWidth - 6))}px`;
    tip.style.top = `${Math.max(4, Math.min(y, window.innerHeight - tip.offsetHeight - 6))}px`;
  }
}
