import type { Frame } from "../model/dataset.ts";
import { describeOverview, type OverviewModel, overviewModel, overviewTable } from "../model/overview.ts";
import type { ViewState } from "../model/state.ts";
import { DEFAULT_STATE } from "../model/state.ts";
import { buffersView } from "./buffers.ts";
import { loadView } from "./load.ts";
import { clip, type Scene, SceneBuilder } from "./scene.ts";
import { timelineView } from "./timeline.ts";
import { trafficView } from "./traffic.ts";
import type { DrawContext, ViewDef } from "./view.ts";

interface Overview extends OverviewModel {
  readonly frame: Frame;
  readonly state: ViewState;
}

function draw(model: Overview, context: DrawContext): Scene {
  const { theme, width } = context;
  const scene = new SceneBuilder();
  const perRow = width >= 1200 ? 6 : width >= 560 ? 3 : 2;
  const gap = 12;
  const w = (width - gap * (perRow - 1) - 2) / perRow;
  const h = 104;
  model.numbers.forEach((number, i) => {
    const x = 1 + (i % perRow) * (w + gap);
    const y = 1 + Math.floor(i / perRow) * (h + gap);
    scene.rect(x, y, w, h, theme.panel, { stroke: theme.grid });
    scene.text(x + 12, y + 22, number.name, theme.fg, { bold: true });
    scene.text(x + 12, y + 54, number.show(number.value), theme.fg, { size: 24 });
    scene.text(x + 12, y + 74, `all layers: ${number.show(number.all)}`, theme.muted, { size: 11 });
    scene.text(x + 12, y + 92, clip(number.formula, w - 16, 11), theme.muted, { size: 11 });
    scene.spots.push({
      x,
      y,
      w,
      h,
      tip: `${number.name}: ${number.show(number.value)} in layer ${model.layer}, ${number.show(number.all)} over all layers. Formula: ${number.formula}`,
      act: { view: number.view },
    });
  });
  const top = Math.ceil(model.numbers.length / perRow) * (h + gap) + 14;
  return minis(scene, model, context, top);
}

/** Small versions of the other views, each leading to it. */
function minis(scene: SceneBuilder, { frame, state }: Overview, { theme, width }: DrawContext, top: number): Scene {
  const plain: ViewState = { ...DEFAULT_STATE, layer: state.layer, step: state.step };
  const small = (w: number): DrawContext => ({ width: w, theme, state: plain, mini: true });
  const wide = width >= 720;
  const side = wide ? Math.min(300, width * 0.34) : Math.min(width, 360);
  const heading = (x: number, y: number, title: string, room: number) =>
    scene.text(x + 2, y, clip(title, room, 12.5), theme.fg, { bold: true });
  const traffic = trafficView.draw(trafficView.model(frame, plain), small(side));
  heading(
    0,
    top,
    side > 290 ? "Traffic: from rank (down) to rank (across)" : "Traffic: from (down) to (across)",
    side + 20,
  );
  scene.place(0, top + 10, traffic);
  const x = wide ? side + 28 : 0;
  let y = wide ? top : top + side + 40;
  const w = wide ? width - side - 28 : width;
  const place = (title: string, part: Scene) => {
    heading(x, y, title, w);
    scene.place(x, y + 10, part);
    y += part.height + 34;
  };
  const load = loadView.model(frame, plain);
  place("Load: slots per expert, largest first; dashed = mean", loadView.draw(load, small(w)));
  place(`Buffers: rows per rank (${frame.header.style})`, buffersView.draw(buffersView.model(frame, plain), small(w)));
  const { clock } = frame.header;
  const times = frame.phases.length > 0 ? ` (${clock} times)` : "";
  place(`Timeline${times}`, timelineView.draw(timelineView.model(frame, plain), small(w)));
  const bottom = Math.max(y, top + side + 30);
  return scene.done(width, bottom);
}

export const overviewView: ViewDef<Overview> = {
  id: "overview",
  title: "Overview",
  help: "Six numbers with their formulas, and small versions of the other views. Everything here leads to a view.",
  needsChunk: () => false,
  model: (frame, state) => ({ ...overviewModel(frame), frame, state }),
  draw,
  table: overviewTable,
  describe: describeOverview,
  max: () => 1,
  compared: 2,
  controls: () => [],
};
