/** What pointer and keys do to the cursor and the zoom of a picture, by hand arithmetic. */
import { describe, expect, test } from "vitest";
import { cellAt, cellRange, cellsBox, clamp, hit } from "../../../viz/ui/stage/cursor.ts";
import { walk } from "../../../viz/ui/stage/walk.ts";
import { panned, zoomAt, zoomByKey } from "../../../viz/ui/stage/zoom.ts";
import { SceneBuilder } from "../../../viz/views/scene.ts";

/** A grid of 4 x 2 cells of 10 x 20 at (100, 50), one cell below it, and two spots of which the second lies on the grid. */
function scene() {
  const builder = new SceneBuilder();
  const tip = () => "";
  builder.grids.push({ name: "cells", x: 100, y: 50, w: 40, h: 40, cols: 4, rows: 2, tip });
  builder.grids.push({ name: "sum", x: 100, y: 100, w: 40, h: 10, cols: 1, rows: 1, tip });
  builder.spots.push({ x: 0, y: 0, w: 5, h: 5, tip: "" }, { x: 100, y: 50, w: 2, h: 2, tip: "" });
  return builder.done(200, 200);
}

describe("cursor", () => {
  test("a point hits the cell it lies in, a spot above it first, and nothing between", () => {
    expect(hit(scene(), 111, 71)).toEqual({ grid: 0, col: 1, row: 1 });
    expect(hit(scene(), 101, 51)).toEqual({ grid: -1, col: 1, row: 0 });
    expect(hit(scene(), 140, 60)).toBeNull();
  });

  test("a drag covers the cells between its ends, in whichever direction, and ends at the edge", () => {
    const [grid] = scene().grids;
    const range = cellRange(cellAt(grid, 125, 85), cellAt(grid, 3, 3));
    expect(range).toEqual([
      [0, 0],
      [2, 1],
    ]);
    expect(cellsBox(grid, ...range)).toEqual({ x: 100, y: 50, w: 30, h: 40 });
  });

  test("a cursor of a larger picture moves to the nearest place there is", () => {
    expect(clamp(scene(), { grid: 0, col: 9, row: 9 })).toEqual({ grid: 0, col: 3, row: 1 });
    expect(clamp(scene(), { grid: 7, col: 3, row: 1 })).toEqual({ grid: 1, col: 0, row: 0 });
    expect(clamp({ ...scene(), grids: [] }, { grid: 0, col: 3, row: 1 })).toEqual({ grid: -1, col: 1, row: 0 });
  });
});

describe("walk", () => {
  const at = (grid: number, col: number, row: number) => ({ grid, col, row });

  test.each([
    ["ArrowRight", false, at(0, 1, 0), at(0, 2, 0)],
    ["ArrowDown", true, at(0, 1, 0), at(0, 1, 1)],
    ["End", false, at(0, 1, 1), at(0, 3, 1)],
    ["Home", false, at(0, 3, 1), at(0, 0, 1)],
    ["ArrowDown", false, at(-1, 0, 0), at(-1, 1, 0)],
    ["PageDown", false, at(0, 3, 1), at(1, 0, 0)],
    ["PageDown", false, at(1, 0, 0), at(-1, 0, 0)],
    ["PageDown", false, at(-1, 1, 0), at(0, 0, 0)],
    ["PageUp", false, at(0, 3, 1), at(-1, 0, 0)],
  ])("%s (far: %s)", (key, far, from, to) => expect(walk(scene(), from, key, far)).toEqual(to));

  test("leaves other keys alone", () => expect(walk(scene(), at(0, 0, 0), "q", false)).toBeNull());
});

describe("zoom", () => {
  const area = { x: 0, y: 0, w: 100, h: 100, axes: "xy" } as const;
  const half = [0.25, 0.25, 0.75, 0.75] as const;

  test("the point under the pointer stays where it is", () => {
    expect(zoomAt(area, null, 0.5, 0.25, 0.5)).toEqual([0.25, 0.125, 0.75, 0.625]);
    expect(zoomAt({ ...area, axes: "x" }, null, 0.5, 0.25, 0.5)).toEqual([0.25, 0, 0.75, 1]);
  });

  test("the visible part moves by fractions of itself and stops at the edge", () => {
    expect(panned(area, half, 0.5, -0.25)).toEqual([0.5, 0.125, 1, 0.625]);
    expect(panned(area, half, 9, 9)).toEqual([0.5, 0.5, 1, 1]);
  });

  test("all of it is no zoom; other keys are not the zoom's", () => {
    expect(zoomAt(area, half, 0.5, 0.5, 4)).toBeNull();
    expect(zoomByKey(area, half, "0")).toBeNull();
    expect(zoomByKey(area, half, "q")).toBeUndefined();
  });
});
