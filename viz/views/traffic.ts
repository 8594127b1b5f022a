import { numNodes } from "../model/dataset.ts";
import { bytes, maxOf, maxOverMean, micros, short, sum, text } from "../model/numbers.ts";
import { type Patch, selectsSlots } from "../model/state.ts";
import { describeTraffic, type TrafficModel, trafficModel, trafficTable } from "../model/traffic.ts";
import { diverging, heatmap, sequential, type Window, windowOf } from "./heatmap.ts";
import { columnBars, rampLegend, thinned } from "./parts.ts";
import { type Box, type Scene, SceneBuilder } from "./scene.ts";
import { mix, PUOR, parseColor, type Rgb, type Theme, VIRIDIS } from "./theme.ts";
import type { DrawContext, ViewDef } from "./view.ts";

const LEFT = 58;
const TOP = 92;
const RIGHT = 128;

function show(model: TrafficModel, value: number): string {
  if (model.metric === "bytes") return bytes(value);
  return model.metric === "wait" ? micros(value) : `${text(value)} ${model.unit}`;
}

/** What rows, columns and their sums mean: a wait is of the row's rank for the column's rank. */
function words({ metric }: TrafficModel) {
  return metric === "wait"
    ? { from: "waiting", to: "waited for", sent: "waits", received: "is waited for" }
    : { from: "from", to: "to", sent: "sent", received: "received" };
}

function pairText(model: TrafficModel, s: number, d: number): string {
  const { level, metric } = model;
  return metric === "wait" ? `${level} ${s} waits for ${level} ${d}` : `from ${level} ${s} to ${level} ${d}`;
}

function capital(text: string): string {
  return text[0].toUpperCase() + text.slice(1);
}

/** What the parts of one picture share. */
interface Plot {
  readonly scene: SceneBuilder;
  readonly model: TrafficModel;
  readonly box: Box;
  readonly window: Window;
  readonly theme: Theme;
  /** Columns are sources. */
  readonly flip: boolean;
}

function draw(model: TrafficModel, context: DrawContext, signed = false): Scene {
  const { theme, state, mini } = context;
  const { size } = model;
  const scene = new SceneBuilder();
  const [left, top, right] = mini ? [4, 4, 4] : [LEFT, TOP, RIGHT];
  const side = Math.max(120, Math.min(context.width - left - right, mini ? context.width : 620));
  const box = { x: left, y: top, w: side, h: side };
  const height = mini ? side + 8 : top + side + 58;
  if (model.unavailable) {
    scene.text(left, top + 20, `No picture: ${model.unavailable}.`, theme.fg);
    return scene.done(context.width, top + 50);
  }
  const flip = state.transpose && !mini;
  const at = (col: number, row: number): [number, number] => (flip ? [col, row] : [row, col]);
  const view = (values: Float64Array) => (flip ? transposed(values, size) : values);
  const window = windowOf(mini ? null : state.zoom, size, size);
  const plot: Plot = { scene, model, box, window, theme, flip };
  const max = context.max ?? (signed ? maxOf(model.values.map(Math.abs)) : model.max);
  const color = signed ? diverging(PUOR, max || 1) : sequential(VIRIDIS, max || 1, state.scale);
  if (model.selected) {
    const gray: Rgb[] = Array.from({ length: 256 }, (_, i) => parseColor(mix(theme.panel, theme.hatch, i / 255)));
    scene.marks.push(
      heatmap(view(model.values), size, size, box, window, sequential(gray, max || 1, state.scale), theme.bg),
    );
    scene.marks.push(heatmap(view(model.selected), size, size, box, window, color, ""));
  } else {
    scene.marks.push(heatmap(view(model.values), size, size, box, window, color, theme.bg));
  }
  scene.rect(box.x, box.y, side, side, "none", { stroke: theme.grid });
  const cols = window.x1 - window.x0;
  const rows = window.y1 - window.y0;
  const cell = side / cols;
  if (model.groupSize > 0) {
    for (let g = model.groupSize; g < size; g += model.groupSize) {
      const x = box.x + ((g - window.x0) * side) / cols;
      const y = box.y + ((g - window.y0) * side) / rows;
      if (x > box.x && x < box.x + side) scene.line(x, box.y, x, box.y + side, theme.fg, { width: 0.7 });
      if (y > box.y && y < box.y + side) scene.line(box.x, y, box.x + side, y, theme.fg, { width: 0.7 });
    }
  }
  if (!mini && cell >= 38 && side / rows >= 22) cellNumbers(plot, color, at);
  const mean = model.total / (size * size);
  const tip = (col: number, row: number) => {
    const [s, d] = at(col + window.x0, row + window.y0);
    const value = model.values[s * size + d];
    const chosen = model.selected ? `, ${show(model, model.selected[s * size + d])} of them selected` : "";
    const times = mean > 0 && !signed ? `, ${text(value / mean)} times the mean cell` : "";
    return `${capital(pairText(model, s, d))}: ${show(model, value)}${chosen}${times}`;
  };
  const ranks = (item: number) => ranksOf(model, item);
  const choose = (cells: readonly [number, number], last: readonly [number, number]): Patch => {
    const [s0, d0] = at(cells[0] + window.x0, cells[1] + window.y0);
    const [s1, d1] = at(last[0] + window.x0, last[1] + window.y0);
    return { src: span(s0, s1).flatMap(ranks), dst: span(d0, d1).flatMap(ranks) };
  };
  if (mini) {
    scene.spots.push({
      x: 0,
      y: 0,
      w: context.width,
      h: height,
      tip: `Traffic: ${describeTraffic(model)}`,
      act: { view: "traffic" },
    });
    return scene.done(context.width, height);
  }
  scene.grids.push({ name: "cells", ...box, cols, rows, tip, act: (c, r) => choose([c, r], [c, r]), brush: choose });
  marginals(plot, signed);
  labels(plot);
  const title = signed ? "B - A" : `per cell${model.selected ? ", selection in colour" : ""}`;
  const listLeft = left + side + right + 24;
  if (context.width - listLeft >= 240) largest(scene, model, listLeft, top, context, signed);
  const low = signed ? show(model, -max) : "";
  rampLegend(scene, box.x, box.y + side + 32, signed ? PUOR : VIRIDIS, theme, {
    low,
    high: show(model, max),
    title: state.scale === "log" && !signed ? `${title} (log)` : title,
    zero: signed ? "same" : "zero",
  });
  return scene.done(context.width, height, { ...box, axes: "xy" });
}

/** The largest cells by name, where there is room beside the matrix. */
function largest(
  scene: SceneBuilder,
  model: TrafficModel,
  x: number,
  y: number,
  { theme, width }: DrawContext,
  signed: boolean,
): void {
  const values = model.selected ?? model.values;
  const cells = largestCells(values, 16);
  const most = Math.abs(values[cells[0]] ?? 0) || 1;
  const bar = Math.min(240, width - x - 190);
  scene.text(
    x,
    y - 10,
    signed ? "largest changes" : model.selected ? "largest selected cells" : "largest cells",
    theme.fg,
    { bold: true },
  );
  if (cells.length === 0) scene.text(x, y + 12, signed ? "no difference" : "none", theme.muted);
  cells.forEach((cell, i) => {
    const at = y + 6 + i * 22;
    const [s, d] = [Math.floor(cell / model.size), cell % model.size];
    scene.text(x, at + 11, `${s} \u2192 ${d}`, theme.fg, { size: 11 });
    scene.rect(x + 78, at + 1, Math.max(1, (Math.abs(values[cell]) / most) * bar), 13, theme.bar[0]);
    scene.text(x + 84 + (Math.abs(values[cell]) / most) * bar, at + 11, show(model, values[cell]), theme.muted, {
      size: 11,
    });
    const ranks = (item: number) => ranksOf(model, item);
    scene.spots.push({
      x,
      y: at - 3,
      w: width - x,
      h: 21,
      tip: `${capital(pairText(model, s, d))}: ${show(model, values[cell])}`,
      act: { src: ranks(s), dst: ranks(d) },
    });
  });
}

function largestCells(values: Float64Array, count: number): number[] {
  const found: number[] = [];
  for (let i = 0; i < values.length; i++) {
    const size = Math.abs(values[i]);
    if (size === 0 || (found.length === count && size <= Math.abs(values[found[count - 1]]))) continue;
    let at = found.length;
    while (at > 0 && Math.abs(values[found[at - 1]]) < size) at--;
    found.splice(at, 0, i);
    if (found.length > count) found.pop();
  }
  return found;
}

function ranksOf(model: TrafficModel, item: number): number[] {
  if (model.level === "rank") return [item];
  return Array.from({ length: model.ranksPerNode }, (_, i) => item * model.ranksPerNode + i);
}

function cellNumbers(
  { scene, model, box, window }: Plot,
  color: (value: number) => Rgb,
  at: (col: number, row: number) => [number, number],
): void {
  const values = model.selected ?? model.values;
  const [w, h] = [box.w / (window.x1 - window.x0), box.h / (window.y1 - window.y0)];
  for (let row = window.y0; row < window.y1; row++) {
    for (let col = window.x0; col < window.x1; col++) {
      const [s, d] = at(col, row);
      const value = values[s * model.size + d];
      if (value === 0) continue;
      const [r, g, b] = color(value);
      const fill = 0.299 * r + 0.587 * g + 0.114 * b > 130 ? "#16181d" : "#ffffff";
      const x = box.x + (col - window.x0 + 0.5) * w;
      scene.text(x, box.y + (row - window.y0 + 0.5) * h + 4, short(value), fill, {
        size: w < 46 ? 10 : 12,
        anchor: "middle",
      });
    }
  }
}

/** What each destination receives (above) and each source sends (right), with the mean line and max/mean. */
function marginals({ scene, model, box, window, theme, flip }: Plot, signed: boolean): void {
  const [across, down] = flip ? [model.sent, model.received] : [model.received, model.sent];
  const { sent, received } = words(model);
  const [acrossName, downName] = flip ? [sent, received] : [received, sent];
  const [acrossKey, downKey] = flip ? (["src", "dst"] as const) : (["dst", "src"] as const);
  const ranks = (item: number) => ranksOf(model, item);
  const magnitude = (values: Float64Array) => values.map(Math.abs);
  const barHeight = 46;
  const top = { x: box.x, y: box.y - barHeight - 6, w: box.w, h: barHeight };
  const visible = magnitude(across).subarray(window.x0, window.x1);
  const most = Math.max(maxOf(magnitude(across)), 1e-9);
  scene.path(columnBars(visible, top, most, () => 0, 1)[0], { fill: theme.bar[0] });
  const side = { x: box.x + box.w + 6, y: box.y, w: 70, h: box.h };
  const sideMost = Math.max(maxOf(magnitude(down)), 1e-9);
  scene.path(rowBars(magnitude(down).subarray(window.y0, window.y1), side, sideMost), { fill: theme.bar[0] });
  if (!signed) {
    const y = top.y + barHeight * (1 - sum(across) / across.length / most);
    scene.line(top.x, y, top.x + top.w, y, theme.accent, { dash: "4 3" });
    const x = side.x + (side.w * (sum(down) / down.length)) / sideMost;
    scene.line(x, side.y, x, side.y + side.h, theme.accent, { dash: "4 3" });
    scene.text(
      box.x,
      16,
      `${acrossName} per ${model.level}; dashed = mean; max/mean ${text(maxOverMean(across))}`,
      theme.muted,
      { size: 11 },
    );
    scene.text(side.x, box.y + box.h + 16, `${downName}; max/mean`, theme.muted, { size: 11 });
    scene.text(side.x, box.y + box.h + 30, text(maxOverMean(down)), theme.muted, { size: 11 });
  }
  const tip = (name: string, values: Float64Array, item: number) => {
    const mean = sum(values) / values.length;
    return `${model.level} ${item} ${name} ${show(model, values[item])}${mean > 0 && !signed ? `, ${text(values[item] / mean)} times the mean` : ""}`;
  };
  scene.grids.push({
    name: `${acrossName} per ${model.level}`,
    ...top,
    cols: window.x1 - window.x0,
    rows: 1,
    tip: (c) => tip(acrossName, across, c + window.x0),
    act: (c) => ({ [acrossKey]: ranks(c + window.x0) }),
    brush: (a, b) => ({ [acrossKey]: span(a[0] + window.x0, b[0] + window.x0).flatMap(ranks) }),
  });
  scene.grids.push({
    name: `${downName} per ${model.level}`,
    ...side,
    cols: 1,
    rows: window.y1 - window.y0,
    tip: (_c, r) => tip(downName, down, r + window.y0),
    act: (_c, r) => ({ [downKey]: ranks(r + window.y0) }),
    brush: (a, b) => ({ [downKey]: span(a[1] + window.y0, b[1] + window.y0).flatMap(ranks) }),
  });
}

function rowBars(values: Float64Array, box: Box, max: number): string {
  const count = Math.min(values.length, Math.floor(box.h));
  const step = box.h / count;
  const gap = step > 4 ? 1 : 0;
  let d = "";
  for (let i = 0; i < count; i++) {
    const from = Math.floor((i * values.length) / count);
    const to = Math.max(from + 1, Math.floor(((i + 1) * values.length) / count));
    const w = (maxOf(values.subarray(from, to)) / max) * box.w;
    if (w > 0)
      d += `M${box.x} ${(box.y + i * step).toFixed(2)}h${w.toFixed(2)}v${Math.max(0.8, step - gap).toFixed(2)}h${(-w).toFixed(2)}z`;
  }
  return d;
}

function labels({ scene, model, box, window, theme, flip }: Plot): void {
  const [cols, rows] = [window.x1 - window.x0, window.y1 - window.y0];
  for (const i of thinned(cols, box.w, 30)) {
    scene.text(box.x + ((i + 0.5) * box.w) / cols, box.y + box.h + 14, `${window.x0 + i}`, theme.muted, {
      size: 11,
      anchor: "middle",
    });
  }
  for (const i of thinned(rows, box.h, 14)) {
    scene.text(box.x - 5, box.y + ((i + 0.5) * box.h) / rows + 4, `${window.y0 + i}`, theme.muted, {
      size: 11,
      anchor: "end",
    });
  }
  const { from, to } = words(model);
  const [columns, lines] = flip ? [from, to] : [to, from];
  scene.text(box.x + box.w / 2, 32, `${columns} ${model.level} (columns) \u2192`, theme.fg, {
    anchor: "middle",
    bold: true,
  });
  scene.text(14, box.y + box.h / 2, `${lines} ${model.level} (rows) \u2192`, theme.fg, {
    anchor: "middle",
    bold: true,
    rotate: 90,
  });
}

function transposed(values: Float64Array, size: number): Float64Array {
  const result = new Float64Array(values.length);
  for (let row = 0; row < size; row++)
    for (let col = 0; col < size; col++) result[col * size + row] = values[row * size + col];
  return result;
}

function span(a: number, b: number): number[] {
  const [first, last] = [Math.min(a, b), Math.max(a, b)];
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

export const trafficView: ViewDef<TrafficModel> = {
  id: "traffic",
  title: "Traffic",
  help: "Each cell is what one source sends to one destination. Click a cell or a bar to select it, drag to select several.",
  needsChunk: (state, dataset) => selectsSlots(state) || (state.metric === "wait" && dataset.hasWaits),
  model: trafficModel,
  draw: (model, context) => draw(model, context),
  table: trafficTable,
  describe: describeTraffic,
  max: (model) => model.max,
  compared: 2,
  difference: (a, b, context) => {
    if (a.size !== b.size || a.unavailable || b.unavailable) return null;
    const minus = (x: Float64Array, y: Float64Array) => x.map((value, i) => value - y[i]);
    const model = {
      ...b,
      values: minus(b.values, a.values),
      sent: minus(b.sent, a.sent),
      received: minus(b.received, a.received),
      selected: null,
    };
    const { max: _, ...unlocked } = context;
    return draw(model, unlocked, true);
  },
  controls: (frame, _state) => [
    {
      kind: "select",
      key: "metric",
      label: "Metric",
      options: [
        ["rows", "rows (each token once per rank)"],
        ["slots", "slots"],
        ["bytes", "bytes"],
        ["wait", "waiting time", frame.dataset.hasWaits ? "" : "no wait times in this file"],
      ],
    },
    {
      kind: "select",
      key: "level",
      label: "Level",
      options: [
        ["rank", "ranks"],
        ["node", "nodes", numNodes(frame.header) > 1 ? "" : "there is one node"],
      ],
    },
    {
      kind: "select",
      key: "hide",
      label: "Leave out",
      options: [
        ["none", "nothing"],
        ["rank", "own rank"],
        ["node", "own node"],
      ],
    },
    {
      kind: "select",
      key: "scale",
      label: "Colour scale",
      options: [
        ["linear", "linear"],
        ["log", "logarithmic"],
      ],
    },
    { kind: "check", key: "transpose", label: "Transpose" },
  ],
};
