/**
 * A picture as plain data: marks to draw, and places that answer to pointer and keys. The page, the SVG and PNG exports
 * and the command line all draw the same scene; nothing here knows the DOM.
 */
import type { Patch } from "../model/state.ts";

/** In pixels of the scene. */
export interface Box {
  readonly x: number;
  readonly y: number;
  readonly w: number;
  readonly h: number;
}

export type Mark =
  | (Box & {
      readonly kind: "rect";
      readonly fill: string;
      readonly stroke?: string;
      readonly dash?: string;
      /** Diagonal lines of this colour over the fill. */
      readonly hatch?: string;
    })
  | {
      readonly kind: "path";
      readonly d: string;
      readonly fill?: string;
      readonly stroke?: string;
      readonly width?: number;
      readonly dash?: string;
      readonly opacity?: number;
    }
  | {
      readonly kind: "text";
      readonly x: number;
      readonly y: number;
      readonly text: string;
      readonly fill: string;
      readonly size?: number;
      readonly anchor?: "start" | "middle" | "end";
      readonly bold?: boolean;
      readonly rotate?: number;
      /** Outline in this colour, for text over other marks. */
      readonly halo?: string;
    }
  | (Box & {
      readonly kind: "raster";
      readonly cols: number;
      readonly rows: number;
      /** RGBA, cols x rows. */
      readonly pixels: Uint8ClampedArray<ArrayBuffer>;
    })
  | { readonly kind: "group"; readonly x: number; readonly y: number; readonly marks: readonly Mark[] };

/** A place with something to say, and perhaps to do. */
export interface Spot extends Box {
  readonly tip: string;
  readonly act?: Patch;
}

/** A regular field of places: cells are worked out when they are pointed at. */
export interface Grid extends Box {
  readonly name: string;
  readonly cols: number;
  readonly rows: number;
  readonly tip: (col: number, row: number) => string;
  readonly act?: (col: number, row: number) => Patch;
  /** Cells first..last were dragged over. */
  readonly brush?: (first: readonly [number, number], last: readonly [number, number]) => Patch;
}

export interface Scene {
  readonly width: number;
  readonly height: number;
  readonly marks: readonly Mark[];
  readonly spots: readonly Spot[];
  readonly grids: readonly Grid[];
  /** Where wheel and +/- zoom, and along which axes. */
  readonly zoom?: Box & { readonly axes: "x" | "xy" };
}

/** Collects a scene; `place` puts a part of another scene somewhere. */
export class SceneBuilder {
  readonly marks: Mark[] = [];
  readonly spots: Spot[] = [];
  readonly grids: Grid[] = [];

  rect(
    x: number,
    y: number,
    w: number,
    h: number,
    fill: string,
    more: { stroke?: string; hatch?: string; dash?: string } = {},
  ) {
    this.marks.push({ kind: "rect", x, y, w, h, fill, ...more });
  }

  text(
    x: number,
    y: number,
    text: string,
    fill: string,
    more: { size?: number; anchor?: "start" | "middle" | "end"; bold?: boolean; rotate?: number; halo?: string } = {},
  ) {
    this.marks.push({ kind: "text", x, y, text, fill, ...more });
  }

  line(x1: number, y1: number, x2: number, y2: number, stroke: string, more: { width?: number; dash?: string } = {}) {
    this.marks.push({ kind: "path", d: `M${round(x1)} ${round(y1)}L${round(x2)} ${round(y2)}`, stroke, ...more });
  }

  path(d: string, more: { fill?: string; stroke?: string; width?: number; dash?: string; opacity?: number }) {
    this.marks.push({ kind: "path", d, ...more });
  }

  place(x: number, y: number, scene: Pick<Scene, "marks" | "spots" | "grids">) {
    this.marks.push({ kind: "group", x, y, marks: scene.marks });
    for (const spot of scene.spots) this.spots.push({ ...spot, x: spot.x + x, y: spot.y + y });
    for (const grid of scene.grids) this.grids.push({ ...grid, x: grid.x + x, y: grid.y + y });
  }

  done(width: number, height: number, zoom?: Scene["zoom"]): Scene {
    const { marks, spots, grids } = this;
    return { width, height, marks, spots, grids, ...(zoom ? { zoom } : {}) };
  }
}

export function round(value: number): number {
  return Math.round(value * 100) / 100;
}

/** About how wide a text of `size` px is in the page's sans-serif. */
export function textWidth(text: string, size = 12): number {
  return text.length * size * 0.56;
}

/** The text, shortened to fit `width` pixels. */
export function clip(text: string, width: number, size = 12): string {
  const fits = Math.floor(width / (size * 0.56));
  return text.length <= fits ? text : `${text.slice(0, Math.max(0, fits - 1))}\u2026`;
}
