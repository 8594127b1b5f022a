import type { Patch } from "../../model/state.ts";
import type { Grid, Scene } from "../../views/scene.ts";
import { type Box, type Cell, type Cursor, cellAt, cellRange, cellsBox, hit } from "./cursor.ts";
import { panned, type Zoom, zoomAt } from "./zoom.ts";

/** What a pointer needs of a stage, and does to it. */
export interface PointerTarget {
  readonly element: HTMLElement;
  readonly scene: Scene | null;
  readonly zoom: Zoom;
  /** Hovers over a place; null = over none. */
  hover(cursor: Cursor | null, event: PointerEvent): void;
  /** Shows what a drag would select. */
  frame(box: Box): void;
  choose(cursor: Cursor): void;
  act(patch: Patch): void;
  zoomTo(zoom: Zoom): void;
}

/** Hovering, choosing, selecting cells by a drag, moving the zoomed part by Shift and a drag, zooming by the wheel. */
export function listenToPointer(target: PointerTarget): void {
  const { element } = target;
  let drag: { grid: Grid; start: [number, number]; from: Cell } | null = null;
  let pan: { x: number; y: number; zoom: Zoom } | null = null;

  const at = (event: MouseEvent): [number, number] => {
    const box = element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const cursorAt = (x: number, y: number) => target.scene && hit(target.scene, x, y);

  element.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    const area = target.scene?.zoom;
    if (pan && area) target.zoomTo(panned(area, pan.zoom, (pan.x - x) / area.w, (pan.y - y) / area.h));
    else if (drag) target.frame(cellsBox(drag.grid, ...cellRange(drag.from, cellAt(drag.grid, x, y))));
    else target.hover(cursorAt(x, y), event);
  });
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const [x, y] = at(event);
    const grid = target.scene?.grids[cursorAt(x, y)?.grid ?? -1];
    if (event.shiftKey && target.scene?.zoom && target.zoom) pan = { x, y, zoom: target.zoom };
    else if (grid?.brush) drag = { grid, start: [x, y], from: cellAt(grid, x, y) };
    else return;
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointerup", (event) => {
    const [x, y] = at(event);
    const [dragged, moved] = [drag, pan];
    drag = null;
    pan = null;
    if (moved) return;
    if (dragged?.grid.brush && Math.hypot(x - dragged.start[0], y - dragged.start[1]) > 5) {
      target.act(dragged.grid.brush(...cellRange(dragged.from, cellAt(dragged.grid, x, y))));
      return;
    }
    const cursor = cursorAt(x, y);
    if (cursor && event.button === 0) target.choose(cursor);
  });
  const wheel = (event: WheelEvent) => {
    const area = target.scene?.zoom;
    if (!area) return;
    const [x, y] = at(event);
    if (x < area.x || y < area.y || x > area.x + area.w || y > area.y + area.h) return;
    event.preventDefault();
    const factor = Math.exp(event.deltaY * 0.002);
    target.zoomTo(zoomAt(area, target.zoom, (x - area.x) / area.w, (y - area.y) / area.h, factor));
  };
  element.addEventListener("wheel", wheel, { passive: false });
}
