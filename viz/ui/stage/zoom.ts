import type { ViewState } from "../../model/state.ts";
import type { Scene } from "../../views/scene.ts";

/** The visible part of a plot as fractions [x0, y0, x1, y1]; null = all of it. */
export type Zoom = ViewState["zoom"];
type Area = NonNullable<Scene["zoom"]>;

const ALL = [0, 0, 1, 1] as const;
const STEP = 0.7;
const PAN = 0.2;

/** Zooms by `factor` (< 1 = in) around a point given as fractions of the plot. */
export function zoomAt(area: Area, zoom: Zoom, fx: number, fy: number, factor: number): Zoom {
  const [x0, y0, x1, y1] = zoom ?? ALL;
  const w = Math.max(1e-5, Math.min(1, (x1 - x0) * factor));
  const h = area.axes === "xy" ? Math.max(1e-5, Math.min(1, (y1 - y0) * factor)) : 1;
  const left = x0 + fx * (x1 - x0) - fx * w;
  const top = area.axes === "xy" ? y0 + fy * (y1 - y0) - fy * h : 0;
  return within(left, top, left + w, top + h);
}

/** Moves the visible part by fractions of itself. */
export function panned(area: Area, zoom: Zoom, fx: number, fy: number): Zoom {
  const [x0, y0, x1, y1] = zoom ?? ALL;
  const dx = fx * (x1 - x0);
  const dy = area.axes === "xy" ? fy * (y1 - y0) : 0;
  return within(x0 + dx, y0 + dy, x1 + dx, y1 + dy);
}

/** What a key makes of the zoom; undefined = it is no key of the zoom. */
export function zoomByKey(area: Area, zoom: Zoom, key: string): Zoom | undefined {
  if (key === "+" || key === "=") return zoomAt(area, zoom, 0.5, 0.5, STEP);
  if (key === "-") return zoomAt(area, zoom, 0.5, 0.5, 1 / STEP);
  if (key === "0") return null;
  if (key === "a") return panned(area, zoom, -PAN, 0);
  if (key === "d") return panned(area, zoom, PAN, 0);
  if (key === "w") return panned(area, zoom, 0, -PAN);
  if (key === "s") return panned(area, zoom, 0, PAN);
  return undefined;
}

/** Kept inside the plot; null when it is (nearly) the whole plot. */
function within(x0: number, y0: number, x1: number, y1: number): Zoom {
  const [w, h] = [Math.min(1, x1 - x0), Math.min(1, y1 - y0)];
  const left = Math.max(0, Math.min(1 - w, x0));
  const top = Math.max(0, Math.min(1 - h, y0));
  return w >= 0.999 && h >= 0.999 ? null : [left, top, left + w, top + h];
}
