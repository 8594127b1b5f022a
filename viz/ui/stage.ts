import type { Patch } from "../model/state.ts";
import type { Grid, Mark, Scene } from "../views/scene.ts";
import { FONT, svgMarks } from "../views/svg.ts";
import type { Theme } from "../views/theme.ts";
import { el } from "./dom.ts";

/** Where the reader points: a cell of a grid, or a spot (grid = -1, col = its index). */
export interface Cursor {
  readonly grid: number;
  readonly col: number;
  readonly row: number;
}

export interface StageEvents {
  /** The reader chose something. */
  act(patch: Patch): void;
  zoom(zoom: readonly [number, number, number, number] | null): void;
  /** The exact numbers under the cursor; "" = none. Keyboard moves are announced. */
  say(text: string, byKeyboard: boolean): void;
  /** The cursor moved, so that another stage may mirror it. */
  moved?(cursor: Cursor | null): void;
  /** What a mirror adds to the tooltip. */
  also?(cursor: Cursor): string;
}

let stageCount = 0;

/** Draws a scene (rasters on canvas, the rest as SVG) and makes it answer to pointer, wheel, touch and keys. */
export class Stage {
  readonly element: HTMLDivElement;
  readonly #svg: SVGSVGElement;
  readonly #ring: HTMLDivElement;
  readonly #tip: HTMLDivElement;
  readonly #events: StageEvents;
  readonly #prefix: string;
  #scene: Scene | null = null;
  #cursor: Cursor | null = null;
  #drag: { grid: Grid; start: [number, number]; from: [number, number] } | null = null;
  #pan: { x: number; y: number; zoom: readonly [number, number, number, number] } | null = null;
  #zoom: readonly [number, number, number, number] | null = null;

  constructor(label: string, events: StageEvents) {
    this.#events = events;
    this.#prefix = `s${stageCount++}`;
    this.#svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.#svg.setAttribute("aria-hidden", "true");
    this.#svg.style.fontFamily = FONT;
    this.#ring = el("div", { style: "position:absolute;pointer-events:none;display:none", class: "ring" });
    this.#tip = el("div", { class: "tip", hidden: true, "aria-hidden": "true" });
    this.element = el("div", {
      class: "stage",
      tabindex: "0",
      role: "application",
      "aria-roledescription": "chart",
      "aria-label": label,
    });
    this.element.append(this.#svg, this.#ring, this.#tip);
    this.#listen();
  }

  render(scene: Scene, theme: Theme, zoom: readonly [number, number, number, number] | null, label: string): void {
    this.#scene = scene;
    this.#zoom = zoom;
    this.element.setAttribute("aria-label", label);
    this.element.style.height = `${Math.ceil(scene.height)}px`;
    this.#ring.style.border = `2px solid ${theme.accent}`;
    this.#ring.style.boxShadow = `0 0 0 1px ${theme.bg}`;
    this.#drawRasters(scene.marks, label);
    const { body, defs } = svgMarks(scene.marks, this.#prefix);
    this.#svg.setAttribute("width", `${Math.ceil(scene.width)}`);
    this.#svg.setAttribute("height", `${Math.ceil(scene.height)}`);
    this.#svg.innerHTML = defs + body;
    if (this.#cursor) this.#show(this.#clamp(this.#cursor), false, document.activeElement === this.element);
  }

  /** Shows another stage's cursor here, without a tooltip of its own; answers what is there. */
  mirror(cursor: Cursor | null): string {
    const inside = cursor && this.#exists(cursor) ? cursor : null;
    this.#placeRing(inside);
    return inside ? this.#tipOf(inside) : "";
  }

  destroy(): void {
    this.element.remove();
  }

  #drawRasters(marks: readonly Mark[], label: string): void {
    const rasters: (Extract<Mark, { kind: "raster" }> & { left: number; top: number })[] = [];
    const collect = (list: readonly Mark[], x: number, y: number) => {
      for (const mark of list) {
        if (mark.kind === "group") collect(mark.marks, x + mark.x, y + mark.y);
        else if (mark.kind === "raster") rasters.push({ ...mark, left: x + mark.x, top: y + mark.y });
      }
    };
    collect(marks, 0, 0);
    const canvases = [...this.element.querySelectorAll("canvas")];
    for (const extra of canvases.splice(rasters.length)) extra.remove();
    rasters.forEach((raster, i) => {
      let canvas = canvases[i];
      if (!canvas) {
        canvas = el("canvas", { role: "img" });
        this.element.insertBefore(canvas, this.#svg);
      }
      canvas.setAttribute("aria-label", `cells of ${label}`);
      if (canvas.width !== raster.cols || canvas.height !== raster.rows) {
        canvas.width = raster.cols;
        canvas.height = raster.rows;
      }
      canvas.getContext("2d")?.putImageData(new ImageData(raster.pixels, raster.cols, raster.rows), 0, 0);
      const { style } = canvas;
      [style.left, style.top, style.width, style.height] = [raster.left, raster.top, raster.w, raster.h].map(
        (v) => `${v}px`,
      );
    });
  }

  #listen(): void {
    const { element } = this;
    element.addEventListener("pointermove", (event) => this.#pointerMove(event));
    element.addEventListener("pointerleave", () => this.#hide());
    element.addEventListener("pointerdown", (event) => this.#pointerDown(event));
    element.addEventListener("pointerup", (event) => this.#pointerUp(event));
    element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("focus", () => {
      if (!element.matches(":focus-visible")) return;
      this.#show(this.#clamp(this.#cursor ?? this.#firstCursor()), true, true);
    });
    element.addEventListener("blur", () => this.#hide());
  }

  #firstCursor(): Cursor {
    return { grid: this.#scene?.grids.length ? 0 : -1, col: 0, row: 0 };
  }

  #at(event: PointerEvent | WheelEvent): [number, number] {
    const box = this.element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #hit(x: number, y: number): Cursor | null {
    const scene = this.#scene;
    if (!scene) return null;
    const inside = (box: { x: number; y: number; w: number; h: number }) =>
      x >= box.x && x < box.x + box.w && y >= box.y && y < box.y + box.h;
    for (let i = scene.spots.length - 1; i >= 0; i--) if (inside(scene.spots[i])) return { grid: -1, col: i, row: 0 };
    for (let i = scene.grids.length - 1; i >= 0; i--) {
      const grid = scene.grids[i];
      if (inside(grid)) return { grid: i, ...cellAt(grid, x, y) };
    }
    return null;
  }

  #pointerMove(event: PointerEvent): void {
    const [x, y] = this.#at(event);
    if (this.#pan && this.#scene?.zoom) {
      const { w, h, axes } = this.#scene.zoom;
      const [x0, y0, x1, y1] = this.#pan.zoom;
      const dx = ((this.#pan.x - x) / w) * (x1 - x0);
      const dy = axes === "xy" ? ((this.#pan.y - y) / h) * (y1 - y0) : 0;
      this.#setZoom(x0 + dx, y0 + dy, x1 + dx, y1 + dy);
      return;
    }
    if (this.#drag) {
      const { grid, from } = this.#drag;
      const cell = cellAt(grid, x, y);
      this.#placeBox(
        cellBox(
          grid,
          Math.min(from[0], cell.col),
          Math.min(from[1], cell.row),
          Math.max(from[0], cell.col),
          Math.max(from[1], cell.row),
        ),
      );
      return;
    }
    const cursor = this.#hit(x, y);
    if (cursor) this.#show(cursor, false, false, event);
    else this.#hide();
  }

  #pointerDown(event: PointerEvent): void {
    if (event.button !== 0) return;
    const [x, y] = this.#at(event);
    const zoom = this.#scene?.zoom;
    const cursor = this.#hit(x, y);
    if (event.shiftKey && zoom && this.#zoom) {
      this.#pan = { x, y, zoom: this.#zoom };
      this.element.setPointerCapture(event.pointerId);
      return;
    }
    if (!cursor || cursor.grid < 0) return;
    const grid = this.#scene?.grids[cursor.grid];
    if (!grid?.brush) return;
    this.#drag = { grid, start: [x, y], from: [cursor.col, cursor.row] };
    this.element.setPointerCapture(event.pointerId);
  }

  #pointerUp(event: PointerEvent): void {
    const [x, y] = this.#at(event);
    const drag = this.#drag;
    const panned = this.#pan !== null;
    this.#drag = null;
    this.#pan = null;
    if (panned) return;
    if (drag?.grid.brush && Math.hypot(x - drag.start[0], y - drag.start[1]) > 5) {
      const cell = cellAt(drag.grid, x, y);
      const first: [number, number] = [Math.min(drag.from[0], cell.col), Math.min(drag.from[1], cell.row)];
      const last: [number, number] = [Math.max(drag.from[0], cell.col), Math.max(drag.from[1], cell.row)];
      this.#events.act(drag.grid.brush(first, last));
      return;
    }
    const cursor = this.#hit(x, y);
    if (cursor && event.button === 0) {
      this.#cursor = cursor;
      this.#activate(cursor);
    }
  }

  #activate(cursor: Cursor): void {
    const scene = this.#scene;
    const patch =
      cursor.grid < 0 ? scene?.spots[cursor.col]?.act : scene?.grids[cursor.grid]?.act?.(cursor.col, cursor.row);
    if (patch && Object.keys(patch).length > 0) this.#events.act(patch);
  }

  #wheel(event: WheelEvent): void {
    const area = this.#scene?.zoom;
    if (!area) return;
    const [x, y] = this.#at(event);
    if (x < area.x || y < area.y || x > area.x + area.w || y > area.y + area.h) return;
    event.preventDefault();
    this.#zoomAt((x - area.x) / area.w, (y - area.y) / area.h, Math.exp(event.deltaY * 0.002));
  }

  /** Zooms by `factor` (< 1 = in) around a point given as fractions of the plot. */
  #zoomAt(fx: number, fy: number, factor: number): void {
    const area = this.#scene?.zoom;
    if (!area) return;
    const [x0, y0, x1, y1] = this.#zoom ?? [0, 0, 1, 1];
    const w = Math.max(1e-5, Math.min(1, (x1 - x0) * factor));
    const h = area.axes === "xy" ? Math.max(1e-5, Math.min(1, (y1 - y0) * factor)) : 1;
    const left = x0 + fx * (x1 - x0) - fx * w;
    const top = area.axes === "xy" ? y0 + fy * (y1 - y0) - fy * h : 0;
    this.#setZoom(left, top, left + w, top + h);
  }

  #setZoom(x0: number, y0: number, x1: number, y1: number): void {
    const [w, h] = [Math.min(1, x1 - x0), Math.min(1, y1 - y0)];
    const left = Math.max(0, Math.min(1 - w, x0));
    const top = Math.max(0, Math.min(1 - h, y0));
    this.#zoom = w >= 0.999 && h >= 0.999 ? null : [left, top, left + w, top + h];
    this.#events.zoom(this.#zoom);
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const scene = this.#scene;
    if (!scene) return;
    const cursor = this.#clamp(this.#cursor ?? this.#firstCursor());
    const grid = cursor.grid >= 0 ? scene.grids[cursor.grid] : null;
    const far = event.shiftKey ? 10 : 1;
    const move = (col: number, row: number) =>
      this.#show(
        this.#clamp({
          grid: cursor.grid,
          col: grid ? cursor.col + col : cursor.col + col + row,
          row: cursor.row + row,
        }),
        true,
        true,
      );
    const pan = (dx: number, dy: number) => {
      const [x0, y0, x1, y1] = this.#zoom ?? [0, 0, 1, 1];
      const vertical = scene.zoom?.axes === "xy" ? dy * (y1 - y0) : 0;
      this.#setZoom(x0 + dx * (x1 - x0), y0 + vertical, x1 + dx * (x1 - x0), y1 + vertical);
    };
    const keys: Record<string, () => void> = {
      ArrowLeft: () => move(-far, 0),
      ArrowRight: () => move(far, 0),
      ArrowUp: () => move(0, -far),
      ArrowDown: () => move(0, far),
      Home: () => this.#show({ ...cursor, col: 0 }, true, true),
      End: () => this.#show(this.#clamp({ ...cursor, col: Number.MAX_SAFE_INTEGER }), true, true),
      PageDown: () => this.#part(cursor, 1),
      PageUp: () => this.#part(cursor, -1),
      Enter: () => this.#activate(cursor),
      " ": () => this.#activate(cursor),
    };
    if (scene.zoom) {
      keys["+"] = () => this.#zoomAt(0.5, 0.5, 0.7);
      keys["="] = keys["+"];
      keys["-"] = () => this.#zoomAt(0.5, 0.5, 1 / 0.7);
      keys["0"] = () => this.#setZoom(0, 0, 1, 1);
      keys.a = () => pan(-0.2, 0);
      keys.d = () => pan(0.2, 0);
      keys.w = () => pan(0, -0.2);
      keys.s = () => pan(0, 0.2);
    }
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  /** To the next part of the chart: its grids one after the other, then its single places. */
  #part(cursor: Cursor, by: number): void {
    const scene = this.#scene;
    if (!scene) return;
    const parts = [...scene.grids.map((_, i) => i), ...(scene.spots.length ? [-1] : [])];
    const next = parts[(parts.indexOf(cursor.grid) + by + parts.length) % parts.length];
    this.#show(this.#clamp({ grid: next, col: 0, row: 0 }), true, true);
  }

  #exists(cursor: Cursor): boolean {
    const grid = this.#scene?.grids[cursor.grid];
    if (cursor.grid < 0) return cursor.col < (this.#scene?.spots.length ?? 0);
    return grid !== undefined && cursor.col < grid.cols && cursor.row < grid.rows;
  }

  #clamp(cursor: Cursor): Cursor {
    const scene = this.#scene;
    if (!scene) return cursor;
    const index = cursor.grid >= scene.grids.length ? scene.grids.length - 1 : cursor.grid;
    const grid = scene.grids[index];
    if (!grid) return { grid: -1, col: between(cursor.col, scene.spots.length), row: 0 };
    return { grid: index, col: between(cursor.col, grid.cols), row: between(cursor.row, grid.rows) };
  }

  #tipOf(cursor: Cursor): string {
    if (cursor.grid < 0) return this.#scene?.spots[cursor.col]?.tip ?? "";
    return this.#scene?.grids[cursor.grid]?.tip(cursor.col, cursor.row) ?? "";
  }

  #show(cursor: Cursor, byKeyboard: boolean, ring: boolean, pointer?: PointerEvent): void {
    this.#cursor = cursor;
    if (!this.#exists(cursor)) {
      this.#hide();
      return;
    }
    const also = this.#events.also?.(cursor);
    const text = [this.#tipOf(cursor), ...(also ? [also] : [])].join("\n");
    this.#events.moved?.(cursor);
    this.#placeRing(ring || cursor.grid >= 0 ? cursor : null);
    this.#events.say(text, byKeyboard);
    this.#tip.hidden = text === "" || (!pointer && !byKeyboard && !ring);
    if (this.#tip.hidden) return;
    this.#tip.textContent = text;
    const box = this.element.getBoundingClientRect();
    const cell = this.#boxOf(cursor);
    const x = pointer ? pointer.clientX + 14 : box.left + (cell ? cell.x + cell.w + 8 : 0);
    const y = pointer ? pointer.clientY + 16 : box.top + (cell ? cell.y + cell.h + 8 : 0);
    const { offsetWidth, offsetHeight } = this.#tip;
    this.#tip.style.left = `${Math.max(4, Math.min(x, window.innerWidth - offsetWidth - 6))}px`;
    this.#tip.style.top = `${Math.max(4, Math.min(y, window.innerHeight - offsetHeight - 6))}px`;
  }

  #hide(): void {
    this.#tip.hidden = true;
    if (document.activeElement !== this.element || !this.element.matches(":focus-visible")) this.#placeRing(null);
    this.#events.moved?.(null);
    this.#events.say("", false);
  }

  #boxOf(cursor: Cursor): { x: number; y: number; w: number; h: number } | null {
    if (cursor.grid < 0) return this.#scene?.spots[cursor.col] ?? null;
    const grid = this.#scene?.grids[cursor.grid];
    return grid ? cellBox(grid, cursor.col, cursor.row, cursor.col, cursor.row) : null;
  }

  #placeRing(cursor: Cursor | null): void {
    this.#placeBox(cursor ? this.#boxOf(cursor) : null);
  }

  #placeBox(box: { x: number; y: number; w: number; h: number } | null): void {
    const { style } = this.#ring;
    style.display = box ? "block" : "none";
    if (!box) return;
    // Never smaller than one can see.
    const w = Math.max(box.w, 5);
    const h = Math.max(box.h, 5);
    [style.left, style.top, style.width, style.height] = [box.x - 2, box.y - 2, w + 4, h + 4].map((v) => `${v}px`);
  }
}

function between(value: number, count: number): number {
  return Math.max(0, Math.min(count - 1, value));
}

function cellAt(grid: Grid, x: number, y: number): { col: number; row: number } {
  return {
    col: between(Math.floor(((x - grid.x) / grid.w) * grid.cols), grid.cols),
    row: between(Math.floor(((y - grid.y) / grid.h) * grid.rows), grid.rows),
  };
}

function cellBox(
  grid: Grid,
  c0: number,
  r0: number,
  c1: number,
  r1: number,
): { x: number; y: number; w: number; h: number } {
  const [w, h] = [grid.w / grid.cols, grid.h / grid.rows];
  return { x: grid.x + c0 * w, y: grid.y + r0 * h, w: (c1 - c0 + 1) * w, h: (r1 - r0 + 1) * h };
}
