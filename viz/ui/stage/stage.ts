import type { Patch } from "../../model/state.ts";
import type { Scene } from "../../views/scene.ts";
import type { Theme } from "../../views/theme.ts";
import { el } from "../dom.ts";
import { type Box, boxOf, type Cursor, clamp, exists, firstCursor, patchOf, tipOf } from "./cursor.ts";
import { Drawing } from "./drawing.ts";
import { Marker } from "./marker.ts";
import { listenToPointer, type PointerTarget } from "./pointer.ts";
import { walk } from "./walk.ts";
import { type Zoom, zoomByKey } from "./zoom.ts";

export interface StageEvents {
  /** The reader chose something. */
  act(patch: Patch): void;
  zoom(zoom: Zoom): void;
  /** The exact numbers under the cursor; "" = none. Keyboard moves are announced. */
  say(text: string, byKeyboard: boolean): void;
  /** The cursor moved, so that another stage may mirror it. */
  moved?(cursor: Cursor | null): void;
  /** What a mirror adds to the tooltip. */
  also?(cursor: Cursor): string;
}

/** Shows a scene and makes it answer to pointer, wheel, touch and keys: joins what the files beside this one do. */
export class Stage implements PointerTarget {
  readonly element: HTMLDivElement;
  readonly #events: StageEvents;
  readonly #drawing = new Drawing();
  readonly #marker = new Marker();
  scene: Scene | null = null;
  zoom: Zoom = null;
  #cursor: Cursor | null = null;

  constructor(events: StageEvents) {
    this.#events = events;
    this.element = el(
      "div",
      { class: "stage", tabindex: "0", role: "application", "aria-roledescription": "chart" },
      this.#drawing.svg,
      this.#marker.ring,
      this.#marker.tip,
    );
    listenToPointer(this);
    this.element.addEventListener("pointerleave", () => this.#hide());
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("focus", () => {
      if (this.scene && this.#byKeyboard) this.#show(this.scene, this.#start(this.scene), true, true);
    });
    this.element.addEventListener("blur", () => this.#hide());
  }

  render(scene: Scene, theme: Theme, zoom: Zoom, label: string): void {
    this.scene = scene;
    this.zoom = zoom;
    this.element.setAttribute("aria-label", label);
    this.element.style.height = `${Math.ceil(scene.height)}px`;
    this.#marker.color(theme);
    this.#drawing.render(scene, label);
    if (this.#cursor) this.#show(scene, this.#start(scene), false, document.activeElement === this.element);
  }

  /** Shows another stage's cursor here, without a tooltip of its own; answers what is there. */
  mirror(cursor: Cursor | null): string {
    const { scene } = this;
    const inside = scene && cursor && exists(scene, cursor);
    this.#marker.encircle(inside ? boxOf(scene, cursor) : null);
    return inside ? tipOf(scene, cursor) : "";
  }

  // ---- what the pointer does

  hover(cursor: Cursor | null, event: PointerEvent): void {
    if (this.scene && cursor) this.#show(this.scene, cursor, false, false, event);
    else this.#hide();
  }

  frame(box: Box): void {
    this.#marker.encircle(box);
  }

  choose(cursor: Cursor): void {
    this.#cursor = cursor;
    this.#activate(cursor);
  }

  act(patch: Patch): void {
    this.#events.act(patch);
  }

  zoomTo(zoom: Zoom): void {
    this.zoom = zoom;
    this.#events.zoom(zoom);
  }

  // ---- keys

  #key(event: KeyboardEvent): void {
    const { scene, zoom } = this;
    if (!scene || event.ctrlKey || event.metaKey || event.altKey) return;
    const cursor = this.#start(scene);
    const next = walk(scene, cursor, event.key, event.shiftKey);
    const zoomed = scene.zoom && zoomByKey(scene.zoom, zoom, event.key);
    if (next) this.#show(scene, next, true, true);
    else if (event.key === "Enter" || event.key === " ") this.#activate(cursor);
    else if (zoomed !== undefined) this.zoomTo(zoomed);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  get #byKeyboard(): boolean {
    return this.element.matches(":focus-visible");
  }

  #start(scene: Scene): Cursor {
    return clamp(scene, this.#cursor ?? firstCursor(scene));
  }

  #activate(cursor: Cursor): void {
    const patch = this.scene && patchOf(this.scene, cursor);
    if (patch) this.#events.act(patch);
  }

  // ---- the cursor

  #show(scene: Scene, cursor: Cursor, byKeyboard: boolean, ring: boolean, pointer?: PointerEvent): void {
    this.#cursor = cursor;
    if (!exists(scene, cursor)) {
      this.#hide();
      return;
    }
    const also = this.#events.also?.(cursor);
    const text = [tipOf(scene, cursor), ...(also ? [also] : [])].join("\n");
    const cell = boxOf(scene, cursor);
    this.#events.moved?.(cursor);
    this.#marker.encircle(ring || cursor.grid >= 0 ? cell : null);
    this.#events.say(text, byKeyboard);
    if (text === "" || !(pointer || byKeyboard || ring)) this.#marker.tip.hidden = true;
    else if (pointer) this.#marker.explain(text, pointer.clientX + 14, pointer.clientY + 16);
    else if (cell) {
      const { left, top } = this.element.getBoundingClientRect();
      this.#marker.explain(text, left + cell.x + cell.w + 8, top + cell.y + cell.h + 8);
    }
  }

  #hide(): void {
    this.#marker.tip.hidden = true;
    if (document.activeElement !== this.element || !this.#byKeyboard) this.#marker.encircle(null);
    this.#events.moved?.(null);
    this.#events.say("", false);
  }
}
