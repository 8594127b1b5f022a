import { type Change, type CompareModel, compareModel, compareTable, describeCompare } from "../model/compare.ts";
import type { Frame } from "../model/dataset.ts";
import { text } from "../model/numbers.ts";
import type { ViewState } from "../model/state.ts";
import type { Table } from "../model/table.ts";
import { drawChanges } from "./changes.ts";
import { clip, type Scene, SceneBuilder } from "./scene.ts";
import type { DrawContext } from "./view.ts";

/** The seventh view: everything that changed between A and B, largest first. It alone takes two frames. */
export const compareView = {
  id: "compare" as const,
  title: "Compare",
  help: "What changed from A to B, largest first. Every other view has its own A, B and B - A: switch Compare on there.",
  model: (a: Frame, b: Frame, state: ViewState): CompareModel => compareModel(a, b, state),
  table: (model: CompareModel): Table => compareTable(model),
  describe: (model: CompareModel): string => describeCompare(model),
  draw(model: CompareModel, context: DrawContext): Scene {
    const { theme, width } = context;
    const scene = new SceneBuilder();
    let y = 8;
    for (const problem of model.mismatch) {
      scene.text(12, y + 14, clip(`\u26a0 Not the same shape: ${problem}`, width - 20, 12), theme.warning, {
        bold: true,
      });
      y += 20;
    }
    if (model.scaleB !== 1) {
      scene.text(12, y + 14, `Per token: B's counts are multiplied by ${text(model.scaleB)}`, theme.muted);
      y += 20;
    }
    const numbers: Change[] = model.overview.rows.map((row) => {
      const [a, b, difference, log2] = row.slice(model.overview.numKeys) as (number | null)[];
      return { what: `${row[0]}`, a, b, difference, log2 };
    });
    y = numberTable(scene, numbers, y, context);
    const perRow = width >= 900 ? 2 : 1;
    const w = (width - (perRow - 1) * 24) / perRow;
    let rowHeight = 0;
    model.changes.forEach(({ kind, changes }, i) => {
      const part = drawChanges(kind, changes, 10, { ...context, width: w });
      scene.place((i % perRow) * (w + 24), y, part);
      rowHeight = Math.max(rowHeight, part.height);
      if (i % perRow === perRow - 1 || i === model.changes.length - 1) {
        y += rowHeight + 20;
        rowHeight = 0;
      }
    });
    return scene.done(width, y);
  },
};

function numberTable(
  scene: SceneBuilder,
  numbers: readonly Change[],
  top: number,
  { theme, width }: DrawContext,
): number {
  const columns = [12, width * 0.36, width * 0.52, width * 0.68, width * 0.84];
  ["", "A", "B", "B - A", "log2(B/A)"].forEach((name, i) => {
    scene.text(columns[i], top + 18, name, theme.muted, { size: 11 });
  });
  numbers.forEach(({ what, a, b, difference, log2 }, i) => {
    const y = top + 40 + i * 22;
    const say = (value: number | null) => (value === null ? "-" : text(value));
    scene.text(columns[0], y, what, theme.fg, { bold: true });
    [
      say(a),
      say(b),
      difference !== null && difference > 0 ? `+${say(difference)}` : say(difference),
      log2 === null ? "-" : log2.toFixed(3),
    ].forEach((cell, column) => {
      scene.text(columns[column + 1], y, cell, theme.fg);
    });
    scene.line(12, y + 6, width - 12, y + 6, theme.grid);
  });
  return top + 40 + numbers.length * 22 + 20;
}
