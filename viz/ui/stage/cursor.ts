import type { Patch } from "../../model/state.ts";
import type { Grid, Scene } from "../../views/scene.ts";

/** Where the reader points: a cell of a grid, or a spot (grid = -1, col = its index). */
export interface Cursor {
  readonly grid: number;
  readonly col: number;
  readonly row: number;
}

export interface Box {
  readonly x: number;
  readonly y: number;
  readonly w: number;
  readonly h: number;
}

/** A cell as (col, row). */
export type Cell = readonly [col: number, row: number];

/** What lies at a point of the scene: later marks lie above earlier ones, spots above grids. */
export function hit({ spots, grids }: Scene, x: number, y: number): Cursor | null {
  const inside = (box: Box) => x >= box.x && x < box.x + box.w && y >= box.y && y < box.y + box.h;
  const spot = spots.findLastIndex(inside);
  if (spot >= 0) return { grid: -1, col: spot, row: 0 };
  const grid = grids.findLastIndex(inside);
  if (grid < 0) return null;
  const [col, row] = cellAt(grids[grid], x, y);
  return { grid, col, row };
}

export function firstCursor(scene: Scene): Cursor {
  return { grid: scene.grids.length ? 0 : -1, col: 0, row: 0 };
}

export function exists({ spots, grids }: Scene, { grid, col, row }: Cursor): boolean {
  if (grid < 0) return col < spots.length;
  return grid < grids.length && col < grids[grid].cols && row < grids[grid].rows;
}

/** The nearest cursor that exists, for a scene that changed or a step over its edge. */
export function clamp({ spots, grids }: Scene, { grid, col, row }: Cursor): Cursor {
  const index = Math.min(grid, grids.length - 1);
  if (index < 0) return { grid: -1, col: between(col, spots.length), row: 0 };
  return { grid: index, col: between(col, grids[index].cols), row: between(row, grids[index].rows) };
}

export function tipOf({ spots, grids }: Scene, { grid, col, row }: Cursor): string {
  return (grid < 0 ? spots[col]?.tip : grids[grid]?.tip(col, row)) ?? "";
}

/** What choosing it changes; null = nothing. */
export function patchOf({ spots, grids }: Scene, { grid, col, row }: Cursor): Patch | null {
  const patch = grid < 0 ? spots[col]?.act : grids[grid]?.act?.(col, row);
  return patch && Object.keys(patch).length > 0 ? patch : null;
}

export function boxOf({ spots, grids }: Scene, { grid, col, row }: Cursor): Box | null {
  if (grid < 0) return spots[col] ?? null;
  return grids[grid] ? cellsBox(grids[grid], [col, row], [col, row]) : null;
}

/** The cell of a grid nearest to a point. */
export function cellAt(grid: Grid, x: number, y: number): Cell {
  return [
    between(Math.floor(((x - grid.x) / grid.w) * grid.cols), grid.cols),
    between(Math.floor(((y - grid.y) / grid.h) * grid.rows), grid.rows),
  ];
}

/** The cells between two corners as (first, last). */
export function cellRange(a: Cell, b: Cell): [first: Cell, last: Cell] {
  return [
    [Math.min(a[0], b[0]), Math.min(a[1], b[1])],
    [Math.max(a[0], b[0]), Math.max(a[1], b[1])],
  ];
}

export function cellsBox(grid: Grid, [c0, r0]: Cell, [c1, r1]: Cell): Box {
  const [w, h] = [grid.w / grid.cols, grid.h / grid.rows];
  return { x: grid.x + c0 * w, y: grid.y + r0 * h, w: (c1 - c0 + 1) * w, h: (r1 - r0 + 1) * h };
}

function between(value: number, count: number): number {
  return Math.max(0, Math.min(count - 1, value));
}
