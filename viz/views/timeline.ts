import type { Phase } from "../../core/backend.ts";
import { maxOf, micros } from "../model/numbers.ts";
import {
  describeTimeline,
  type PhaseStats,
  type TimelineModel,
  timelineModel,
  timelineTable,
} from "../model/timeline.ts";
import { axisBelow, swatches, thinned } from "./parts.ts";
import { type LinearScale, scaleLinear } from "./scale.ts";
import { type Box, clip, type Scene, SceneBuilder } from "./scene.ts";
import { mix, phaseColor, type Theme } from "./theme.ts";
import type { DrawContext, ViewDef } from "./view.ts";

const LEFT = 150;
/** Above this many, phases are drawn as the pixels they cover. */
const MAX_BOXES = 4000;

function draw(model: TimelineModel, context: DrawContext): Scene {
  const { theme, width, mini, state } = context;
  const scene = new SceneBuilder();
  if (model.phases.length === 0) {
    scene.text(mini ? 4 : 12, 30, "No phase times in this file.", theme.muted);
    if (mini)
      scene.spots.push({
        x: 0,
        y: 0,
        w: width,
        h: 112,
        tip: "Timeline: no phase times in this file",
        act: { view: "timeline" },
      });
    return scene.done(width, mini ? 112 : 60);
  }
  const left = mini ? 4 : LEFT;
  const right = width - (mini ? 4 : 20);
  const [z0, , z1] = mini || !state.zoom ? [0, 0, 1] : state.zoom;
  const end = context.max ?? model.endUs;
  const x = scaleLinear([z0 * end, z1 * end], [left, right]);
  const top = mini ? 4 : band(scene, model, theme, width) + 44;
  const rowHeight = mini ? Math.max(1, 104 / model.ranks.length) : Math.max(4, Math.min(24, 420 / model.ranks.length));
  gantt(scene, model, theme, x, top, rowHeight);
  if (mini) {
    scene.spots.push({
      x: 0,
      y: 0,
      w: width,
      h: 112,
      tip: `Timeline: ${describeTimeline(model)}`,
      act: { view: "timeline" },
    });
    return scene.done(width, 112);
  }
  const height = model.ranks.length * rowHeight;
  const clock = { measured: "measured", modelled: "modelled by the cost model: outlined", none: "" }[model.clock];
  scene.text(12, top - 12, `phases per rank, ${clock}`, theme.fg, { bold: true });
  for (const i of thinned(model.ranks.length, height, 13)) {
    const rank = model.ranks[i];
    const last = rank === model.lastRank && rank >= 0 ? " (last)" : "";
    scene.text(left - 8, top + (i + 0.5) * rowHeight + 4, rank < 0 ? "all ranks" : `rank ${rank}${last}`, theme.fg, {
      size: 11,
      anchor: "end",
      bold: last !== "",
    });
  }
  axisBelow(scene, x, top + height + 4, theme, "time since the step began", micros);
  const used = swatches(
    scene,
    12,
    top + height + 46,
    width - 24,
    theme,
    model.stats.map((stats) => ({ label: stats.name, ...look(stats.name, stats.waiting, model, theme) })),
  );
  const box = { x: left, y: top, w: right - left, h: height };
  rulers(scene, model, x, box);
  return scene.done(width, top + height + 52 + used, { ...box, axes: "x" });
}

function look(
  name: string,
  waiting: boolean,
  model: TimelineModel,
  theme: Theme,
): { fill: string; hatch?: string; stroke: string } {
  const color = shade(name, model, theme);
  if (waiting) return { fill: theme.wait, hatch: theme.hatch, stroke: theme.hatch };
  return model.clock === "modelled"
    ? { fill: mix(theme.bg, color, 0.3), stroke: color }
    : { fill: color, stroke: color };
}

/** Phases of one group share a hue; later ones are lighter. */
function shade(name: string, model: TimelineModel, theme: Theme): string {
  const hue = phaseColor(name);
  const sameHue = model.names.filter(
    (other) => phaseColor(other) === hue && !model.stats.find((s) => s.name === other)?.waiting,
  );
  return mix(hue, theme.bg, (Math.max(0, sameHue.indexOf(name)) % 3) * 0.28);
}

/** Per phase: shortest, median and longest over the ranks. */
function band(scene: SceneBuilder, model: TimelineModel, theme: Theme, width: number): number {
  scene.text(12, 20, "each phase over the ranks: shortest, median, longest", theme.fg, { bold: true });
  const x = scaleLinear([0, maxOf(model.stats.map(({ maxUs }) => maxUs)) || 1], [LEFT, width - 150]);
  model.stats.forEach((stats, i) => {
    const y = 42 + i * 18;
    const color = stats.waiting ? theme.hatch : shade(stats.name, model, theme);
    scene.text(LEFT - 8, y + 4, clip(stats.name, LEFT - 14, 11), theme.fg, { size: 11, anchor: "end" });
    scene.line(x(stats.minUs), y, x(stats.maxUs), y, color, { width: 7 });
    scene.line(x(stats.medianUs), y - 7, x(stats.medianUs), y + 7, theme.fg, { width: 2 });
    scene.text(x(stats.maxUs) + 8, y + 4, `${micros(stats.medianUs)} (to ${micros(stats.maxUs)})`, theme.muted, {
      size: 11,
    });
    scene.spots.push({ x: LEFT, y: y - 9, w: width - LEFT, h: 18, tip: statsTip(stats) });
  });
  return 42 + model.stats.length * 18;
}

function statsTip(stats: PhaseStats): string {
  const who = stats.slowest < 0 ? "all ranks together" : `slowest rank ${stats.slowest}`;
  return `${stats.name}${stats.waiting ? " (waiting)" : ""}: shortest ${micros(stats.minUs)}, median ${micros(stats.medianUs)}, longest ${micros(stats.maxUs)}, ${who}`;
}

function gantt(
  scene: SceneBuilder,
  model: TimelineModel,
  theme: Theme,
  x: LinearScale,
  top: number,
  rowHeight: number,
): void {
  const rowOf = new Map(model.ranks.map((rank, i) => [rank, i]));
  const gap = rowHeight > 8 ? 3 : rowHeight > 3 ? 1 : 0;
  const [left, right] = x.range();
  const waiting = new Map(model.stats.map((stats) => [stats.name, stats.waiting]));
  const paths = new Map<string, string>();
  for (const phase of model.phases) {
    const from = Math.max(left, x(phase.startUs));
    const to = Math.min(right, x(phase.startUs + phase.durationUs));
    if (to < left || from > right) continue;
    const y = top + (rowOf.get(phase.rank) ?? 0) * rowHeight;
    const faded = model.selectedRanks.length > 0 && phase.rank >= 0 && !model.selectedRanks.includes(phase.rank);
    const { fill, hatch, stroke } = look(phase.name, waiting.get(phase.name) === true, model, theme);
    const w = Math.max(1, to - from);
    if (model.phases.length > MAX_BOXES) {
      // One path per look: a mark each would be too many elements.
      const key = faded ? theme.rest : fill;
      paths.set(
        key,
        `${paths.get(key) ?? ""}M${from.toFixed(1)} ${y.toFixed(1)}h${w.toFixed(1)}v${(rowHeight - gap).toFixed(1)}h${(-w).toFixed(1)}z`,
      );
    } else if (faded) scene.rect(from, y, w, rowHeight - gap, theme.rest);
    else scene.rect(from, y, w, rowHeight - gap, fill, { ...(hatch ? { hatch } : {}), ...(w > 3 ? { stroke } : {}) });
  }
  for (const [fill, d] of paths) scene.path(d, { fill });
}

/** Every phase answers to pointer and keys; dragging along time selects it. */
function rulers(scene: SceneBuilder, model: TimelineModel, x: LinearScale, box: Box): void {
  const perRank = new Map<number, Phase[]>();
  for (const phase of model.phases) perRank.set(phase.rank, [...(perRank.get(phase.rank) ?? []), phase]);
  const cols = Math.floor(box.w / 4);
  const timeOf = (col: number, share = 0.5) => x.invert(box.x + ((col + share) * box.w) / cols);
  scene.grids.push({
    name: "phases",
    ...box,
    cols,
    rows: model.ranks.length,
    tip: (c, r) => {
      const rank = model.ranks[r];
      const who = rank < 0 ? "All ranks" : `Rank ${rank}`;
      const [from, to] = [timeOf(c, 0), timeOf(c, 1)];
      const hit = (perRank.get(rank) ?? []).filter((p) => p.startUs < to && p.startUs + p.durationUs > from);
      const list = hit
        .slice(0, 4)
        .map((p) => `${p.name}${p.waiting ? " (waiting)" : ""} ${micros(p.durationUs)} from ${micros(p.startUs)}`);
      const more = hit.length > 4 ? ` and ${hit.length - 4} more` : "";
      return `${who} at ${micros(timeOf(c))}: ${list.length ? list.join(", ") + more : "nothing"}`;
    },
    act: (_c, r) => (model.ranks[r] < 0 ? {} : { dst: [model.ranks[r]] }),
    brush: (a, b) => ({ time: [Math.max(0, timeOf(Math.min(a[0], b[0]), 0)), timeOf(Math.max(a[0], b[0]), 1)] }),
  });
}

export const timelineView: ViewDef<TimelineModel> = {
  id: "timeline",
  title: "Timeline",
  help: "Which phase took how long on which rank. Grey and hatched = waiting; outlined = modelled. Drag to select a time, zoom with the wheel.",
  needsChunk: () => false,
  model: timelineModel,
  draw,
  table: timelineTable,
  describe: describeTimeline,
  max: (model) => model.endUs,
  compared: 4,
  controls: () => [],
};
