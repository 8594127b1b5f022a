import type { Scene } from "../../views/scene.ts";
import { type Cursor, clamp } from "./cursor.ts";

/** Where a key takes the cursor; null = it is no key of the walk. Shift (`far`) goes ten at a time. */
export function walk(scene: Scene, cursor: Cursor, key: string, far: boolean): Cursor | null {
  const by = far ? 10 : 1;
  const { grid, col, row } = cursor;
  // Spots are a list: down is forward, as right is.
  const move = (cols: number, rows: number) =>
    clamp(scene, { grid, col: scene.grids[grid] ? col + cols : col + cols + rows, row: row + rows });
  if (key === "ArrowLeft") return move(-by, 0);
  if (key === "ArrowRight") return move(by, 0);
  if (key === "ArrowUp") return move(0, -by);
  if (key === "ArrowDown") return move(0, by);
  if (key === "Home") return { ...cursor, col: 0 };
  if (key === "End") return clamp(scene, { ...cursor, col: Number.MAX_SAFE_INTEGER });
  if (key === "PageDown") return part(scene, cursor, 1);
  if (key === "PageUp") return part(scene, cursor, -1);
  return null;
}

/** The next part of the chart: its grids one after the other, then its single places. */
function part(scene: Scene, cursor: Cursor, by: number): Cursor {
  const parts = [...scene.grids.keys(), ...(scene.spots.length ? [-1] : [])];
  const next = parts[(parts.indexOf(cursor.grid) + by + parts.length) % parts.length];
  return clamp(scene, { grid: next, col: 0, row: 0 });
}
