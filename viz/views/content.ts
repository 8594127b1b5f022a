import type { Frame } from "../model/dataset.ts";
import type { ViewState } from "../model/state.ts";
import { compareTables, type Table } from "../model/table.ts";
import { drawChanges } from "./changes.ts";
import { compareView } from "./compare.ts";
import { type Scene, SceneBuilder } from "./scene.ts";
import { svgFile } from "./svg.ts";
import type { Theme } from "./theme.ts";
import type { DrawContext, ViewDef } from "./view.ts";

export interface Frames {
  readonly a: Frame;
  readonly b: Frame | null;
}

/** One picture of a panel: a file, or the difference of two. */
interface Picture {
  readonly label: string;
  readonly scene: Scene;
  readonly zoomable: boolean;
  readonly wide: boolean;
}

/** What a view shows, ready to be drawn, listed, said and saved. */
export interface Content {
  readonly title: string;
  readonly description: string;
  /** Made when it is asked for: thousands of ranks have millions of cells. */
  table(): Table;
  pictures(width: number): Picture[];
}

/** A view's content for one file, or for two: A and B on one scale, then B - A. */
export function contentOf(view: ViewDef<unknown>, frames: Frames, state: ViewState, theme: Theme): Content {
  const a = modelOf(view, frames.a, state);
  const b = frames.b && modelOf(view, frames.b, state);
  if (!frames.b || b === null) {
    return {
      title: `${view.title}: ${fileName(frames.a)}, layer ${frames.a.layer}${stepText(frames.a)}`,
      description: view.describe(a),
      table: () => view.table(a),
      pictures: (width) => [picture("", view.draw(a, { width, theme, state }), false)],
    };
  }
  const scaleB = state.perToken ? tokens(frames.a) / Math.max(1, tokens(frames.b)) : 1;
  let joined: Table | null = null;
  const table = () =>
    (joined ??= compareTables(view.table(a), view.table(b), view.compared, view.id === "timeline" ? 1 : scaleB));
  const max = Math.max(view.max(a), view.max(b));
  return {
    title: `${view.title}: A ${fileName(frames.a)}, B ${fileName(frames.b)}, layer ${frames.a.layer}${stepText(frames.a)}`,
    description: `A: ${view.describe(a)} B: ${view.describe(b)}`,
    table,
    pictures: (width) => {
      const side = width >= 1000 ? (width - 14) / 2 : width;
      const context: DrawContext = { width: side, theme, state, max };
      const difference = view.difference?.(a, b, { width, theme, state }) ?? changes(table(), { width, theme, state });
      return [
        picture("A", view.draw(a, context), false),
        picture("B", view.draw(b, context), false),
        picture("B - A", difference, true),
      ];
    },
  };
}

const models = new WeakMap<object, Map<string, unknown>>();

/** Zooming and themes change a drawing, not the model: the last few are kept with the summary they come from. */
function modelOf(view: ViewDef<unknown>, frame: Frame, state: ViewState): unknown {
  const { zoom: _zoom, theme: _theme, ...rest } = state;
  const key = JSON.stringify([view.id, frame.step, frame.layer, frame.chunk !== null, rest]);
  const kept = models.get(frame.summary) ?? new Map<string, unknown>();
  models.set(frame.summary, kept);
  const model = kept.get(key) ?? view.model(frame, state);
  kept.delete(key);
  kept.set(key, model);
  if (kept.size > 4) kept.delete(kept.keys().next().value ?? "");
  return model;
}

/** The compare view's content. */
export function comparison(frames: Frames & { b: Frame }, state: ViewState, theme: Theme): Content {
  const model = compareView.model(frames.a, frames.b, state);
  return {
    title: `${compareView.title}: A ${fileName(frames.a)}, B ${fileName(frames.b)}, layer ${frames.a.layer}`,
    description: compareView.describe(model),
    table: () => compareView.table(model),
    pictures: (width) => [picture("", compareView.draw(model, { width, theme, state }), true)],
  };
}

function picture(label: string, scene: Scene, wide: boolean): Picture {
  return { label, scene, zoomable: scene.zoom !== undefined, wide };
}

/** The last part of a path. */
function fileName({ dataset }: Frame): string {
  return dataset.name.split(/[\\/]/).at(-1) ?? dataset.name;
}

function stepText({ header, step }: Frame): string {
  return header.numSteps > 1 ? `, step ${step}` : "";
}

function tokens({ summary, layer }: Frame): number {
  return summary.totals[layer * 6];
}

function changes(table: Table, context: DrawContext): Scene {
  const k = table.numKeys;
  const items = table.rows
    .map((row) => {
      const [a, b, difference, log2] = row.slice(k) as (number | null)[];
      const what = row
        .slice(0, Math.min(k, 2))
        .map((key, i) => (typeof key === "number" ? `${table.columns[i]} ${key}` : `${key}`));
      return { what: what.join(", "), a, b, difference, log2 };
    })
    .filter(({ difference }) => difference === null || difference !== 0)
    .sort(
      (x, y) => Math.abs(y.difference ?? Number.POSITIVE_INFINITY) - Math.abs(x.difference ?? Number.POSITIVE_INFINITY),
    );
  return drawChanges(`B - A: ${table.title.replace(", A and B", "")}`, items, 16, context);
}

/** All pictures of a view above each other as one SVG file with title, description, axes and legend. */
export async function contentSvg(content: Content, width: number, theme: Theme): Promise<string> {
  const scene = new SceneBuilder();
  let y = 0;
  for (const { label, scene: part } of content.pictures(width)) {
    if (label) scene.text(10, y + 16, label, theme.fg, { bold: true, size: 14 });
    y += label ? 24 : 0;
    scene.place(0, y, part);
    y += part.height + 10;
  }
  return svgFile(scene.done(width, y), { title: content.title, description: content.description, theme });
}
