import { numNodes } from "../model/dataset.ts";
import { describeLoad, type LoadModel, loadModel, loadTable, ownerName } from "../model/load.ts";
import { maxOf, text } from "../model/numbers.ts";
import { type Patch, selectsSlots } from "../model/state.ts";
import { heatmap, sequential } from "./heatmap.ts";
import { axisLeft, columnBars, rampLegend, swatches, thinned } from "./parts.ts";
import { scaleLinear } from "./scale.ts";
import { type Box, type Scene, SceneBuilder } from "./scene.ts";
import { VIRIDIS } from "./theme.ts";
import type { DrawContext, ViewDef } from "./view.ts";

const LEFT = 58;

function draw(model: LoadModel, context: DrawContext): Scene {
  const scene = new SceneBuilder();
  const { theme, mini, width } = context;
  if (mini) {
    const values = Float64Array.from(model.order, (item) => model.values[item]);
    columnBars(values, { x: 4, y: 4, w: width - 8, h: 104 }, model.max, () => 0, 1).forEach((d) => {
      scene.path(d, { fill: theme.bar[0] });
    });
    const y = 108 - (104 * model.mean) / (model.max || 1);
    scene.line(4, y, width - 4, y, theme.accent, { dash: "4 3" });
    scene.spots.push({ x: 0, y: 0, w: width, h: 112, tip: `Load: ${describeLoad(model)}`, act: { view: "load" } });
    return scene.done(width, 112);
  }
  const bottom = bars(scene, model, context);
  const wide = width >= 700;
  const lorenzSize = 210;
  lorenzCurve(scene, model, { x: LEFT, y: bottom + 34, w: lorenzSize, h: lorenzSize }, context);
  const box = wide
    ? { x: LEFT + lorenzSize + 100, y: bottom + 34, w: width - LEFT - lorenzSize - 100 - 96, h: lorenzSize }
    : { x: LEFT, y: bottom + lorenzSize + 118, w: width - LEFT - 96, h: lorenzSize };
  layerHeatmap(scene, model, box, context);
  return scene.done(width, box.y + box.h + 62);
}

function bars(scene: SceneBuilder, model: LoadModel, { theme, width, state, max }: DrawContext): number {
  const top = Math.max(max ?? model.max, model.capacity ?? 0, 1e-9);
  const box = { x: LEFT, y: 30, w: width - LEFT - 16, h: 190 };
  const y = scaleLinear([0, top * 1.08], [box.y + box.h, box.y]);
  axisLeft(scene, y, box.x, box.x + box.w, theme);
  const ordered = Float64Array.from(model.order, (item) => model.values[item]);
  const inner = { ...box, y: y(top), h: box.y + box.h - y(top) };
  const tone = (index: number) => Math.max(0, model.owner[model.order[index]]) % 2;
  columnBars(ordered, inner, top, tone, 2).forEach((d, i) => {
    scene.path(d, { fill: model.selected ? theme.rest : theme.bar[i] });
  });
  if (model.selected) {
    const chosen = Float64Array.from(model.order, (item) => model.selected?.[item] ?? 0);
    columnBars(chosen, inner, top, tone, 2).forEach((d, i) => {
      scene.path(d, { fill: theme.bar[i] });
    });
  }
  const line = (value: number, label: string, color: string) => {
    scene.line(box.x, y(value), box.x + box.w, y(value), color, { dash: "5 4", width: 1.4 });
    scene.text(box.x + box.w, y(value) - 5, label, color, { size: 11, anchor: "end", bold: true });
  };
  line(model.mean, `mean ${text(model.mean)}`, theme.accent);
  if (model.capacity !== null) line(model.capacity, `row budget ${text(model.capacity)}`, theme.warning);
  const n = model.order.length;
  const step = box.w / n;
  if (step >= 12) {
    const room = `${n}`.length * 7 + 6;
    for (let i = 0; i < n; i += Math.max(1, Math.ceil(room / step))) {
      scene.text(box.x + (i + 0.5) * step, box.y + box.h + 15, `${model.order[i]}`, theme.muted, {
        size: 11,
        anchor: "middle",
      });
    }
  } else if (state.order === "id") {
    for (const i of thinned(n, box.w, 44)) {
      scene.text(box.x + (i + 0.5) * step, box.y + box.h + 15, `${i}`, theme.muted, { size: 11, anchor: "middle" });
    }
  } else {
    const named = Array.from(model.order.subarray(0, 5)).join(", ");
    scene.text(box.x, box.y + box.h + 15, `\u2190 largest: ${model.unit}s ${named}, ...`, theme.muted, { size: 11 });
    scene.text(box.x + box.w, box.y + box.h + 15, `smallest: ${model.order[n - 1]} \u2192`, theme.muted, {
      size: 11,
      anchor: "end",
    });
  }
  const what = model.padded ? "rows with padding" : "slots";
  const order = state.order === "load" ? "largest first" : "by id";
  scene.text(box.x, 18, `${what} per ${model.unit}, ${order}`, theme.fg, { bold: true });
  const owner = model.unit === "expert" ? "rank" : "node";
  swatches(scene, box.x + 250, 8, width - box.x - 250, theme, [
    ...(model.unit === "expert" || model.unit === "rank"
      ? [
          { label: `on even ${owner}s`, fill: theme.bar[0] },
          { label: `on odd ${owner}s`, fill: theme.bar[1] },
        ]
      : []),
    ...(model.selected ? [{ label: "not selected", fill: theme.rest }] : []),
  ]);
  const items = (a: number, b: number): number[] =>
    Array.from(model.order.subarray(Math.min(a, b), Math.max(a, b) + 1)).sort((p, q) => p - q);
  scene.grids.push({
    name: `${model.unit}s`,
    ...box,
    cols: n,
    rows: 1,
    tip: (c) => itemTip(model, model.order[c]),
    ...(model.unit === "logical"
      ? {}
      : {
          act: (c: number) => chooseItems(model, items(c, c)),
          brush: (a: readonly [number, number], b: readonly [number, number]) => chooseItems(model, items(a[0], b[0])),
        }),
  });
  return box.y + box.h + 20;
}

function chooseItems(model: LoadModel, items: number[]): Patch {
  if (model.unit === "expert") return { experts: items };
  const size = model.unit === "node" ? model.ranksPerNode : 1;
  return { dst: items.flatMap((item) => Array.from({ length: size }, (_, i) => item * size + i)) };
}

function itemTip(model: LoadModel, item: number): string {
  const value = model.values[item];
  const ratio = model.mean > 0 ? `, ${text(value / model.mean)} times the mean` : "";
  const owner = model.owner[item] >= 0 && model.unit !== "node" ? ` ${ownerName(model.unit)} ${model.owner[item]}` : "";
  const selected = model.selected ? `, ${text(model.selected[item])} selected` : "";
  return `${model.unit} ${item}${owner}: ${text(value)} ${model.padded ? "rows" : "slots"}${ratio}${selected}`;
}

function lorenzCurve(scene: SceneBuilder, model: LoadModel, box: Box, { theme }: DrawContext): void {
  scene.text(box.x, box.y - 10, `Lorenz curve of ${model.unit}s`, theme.fg, { bold: true });
  scene.rect(box.x, box.y, box.w, box.h, "none", { stroke: theme.grid });
  scene.line(box.x, box.y + box.h, box.x + box.w, box.y, theme.muted, { dash: "3 3" });
  const n = model.lorenz.length - 1;
  const count = Math.min(n, 300);
  let d = "";
  for (let j = 0; j <= count; j++) {
    const i = Math.round((j * n) / count);
    d += `${j ? "L" : "M"}${(box.x + (i / n) * box.w).toFixed(1)} ${(box.y + box.h * (1 - model.lorenz[i])).toFixed(1)}`;
  }
  scene.path(d, { stroke: theme.bar[0], width: 2 });
  scene.text(box.x + 10, box.y + 20, `Gini ${text(model.gini)}`, theme.fg);
  scene.text(box.x + 10, box.y + 37, `max/mean ${text(model.maxOverMean)}`, theme.fg);
  for (const share of [0, 0.5, 1]) {
    scene.text(box.x + share * box.w, box.y + box.h + 15, `${share * 100} %`, theme.muted, {
      size: 11,
      anchor: "middle",
    });
    scene.text(box.x - 5, box.y + box.h * (1 - share) + 4, `${share * 100} %`, theme.muted, {
      size: 11,
      anchor: "end",
    });
  }
  scene.text(
    box.x,
    box.y + box.h + 31,
    `share of ${model.unit}s \u2192, of their load \u2191; dashed = all equal`,
    theme.muted,
    { size: 11 },
  );
  scene.grids.push({
    name: "Lorenz curve",
    ...box,
    cols: n,
    rows: 1,
    tip: (c) =>
      `The ${text(c + 1)} least loaded of ${text(n)} ${model.unit}s carry ${text(model.lorenz[c + 1] * 100)} % of the load`,
  });
}

function layerHeatmap(scene: SceneBuilder, model: LoadModel, box: Box, { theme }: DrawContext): void {
  const items = model.values.length;
  const h = Math.min(box.h, model.numLayers * 24);
  const plot = { ...box, h };
  const max = maxOf(model.byLayer);
  scene.text(box.x, box.y - 10, `layer \u00d7 ${model.unit}: load / mean of the layer`, theme.fg, { bold: true });
  const window = { x0: 0, y0: 0, x1: items, y1: model.numLayers };
  scene.marks.push(
    heatmap(model.byLayer, items, model.numLayers, plot, window, sequential(VIRIDIS, max || 1, "log"), theme.bg),
  );
  scene.rect(plot.x, plot.y, plot.w, plot.h, "none", { stroke: theme.grid });
  const rowHeight = h / model.numLayers;
  scene.rect(plot.x - 1, plot.y + model.layer * rowHeight - 1, plot.w + 2, rowHeight + 2, "none", {
    stroke: theme.accent,
  });
  for (const i of thinned(model.numLayers, h, 14)) {
    scene.text(plot.x - 6, plot.y + (i + 0.5) * rowHeight + 4, `${i}`, theme.muted, { size: 11, anchor: "end" });
  }
  scene.text(plot.x - 34, plot.y + h / 2, "layer", theme.muted, { size: 11, anchor: "middle", rotate: -90 });
  for (const i of thinned(items, plot.w, 34)) {
    scene.text(plot.x + ((i + 0.5) * plot.w) / items, plot.y + h + 14, `${i}`, theme.muted, {
      size: 11,
      anchor: "middle",
    });
  }
  const most = maxOf(model.layerMaxOverMean);
  const side = { x: plot.x + plot.w + 8, y: plot.y, w: 44, h };
  let d = "";
  const step = h / model.numLayers;
  for (let i = 0; i < model.numLayers; i++) {
    const w = (model.layerMaxOverMean[i] / most) * side.w;
    d += `M${side.x.toFixed(1)} ${(side.y + i * step).toFixed(2)}h${w.toFixed(1)}v${Math.max(0.7, step - (step > 3 ? 1 : 0)).toFixed(2)}h${(-w).toFixed(1)}z`;
  }
  scene.path(d, { fill: theme.bar[0] });
  scene.text(side.x, plot.y - 10, "max/mean", theme.muted, { size: 11 });
  scene.text(side.x + side.w, plot.y + h + 14, text(most), theme.muted, { size: 11, anchor: "middle" });
  rampLegend(scene, plot.x, plot.y + h + 24, VIRIDIS, theme, {
    low: "",
    high: `${text(max)} times the mean (log)`,
    title: "",
    zero: "idle",
  });
  scene.grids.push({
    name: `layer by ${model.unit}`,
    ...plot,
    cols: items,
    rows: model.numLayers,
    tip: (c, r) => `Layer ${r}, ${model.unit} ${c}: ${text(model.byLayer[r * items + c])} times the layer's mean`,
    act: (_c, r) => ({ layer: r }),
  });
  scene.grids.push({
    name: "max/mean per layer",
    ...side,
    cols: 1,
    rows: model.numLayers,
    tip: (_c, r) => `Layer ${r}: max/mean ${text(model.layerMaxOverMean[r])}`,
    act: (_c, r) => ({ layer: r }),
  });
}

export const loadView: ViewDef<LoadModel> = {
  id: "load",
  title: "Load",
  help: "How many slots each expert, rank or node gets. Click or drag over bars to select; click a row below to change the layer.",
  needsChunk: (state) => selectsSlots(state),
  model: loadModel,
  draw,
  table: loadTable,
  describe: describeLoad,
  max: (model) => model.max,
  compared: 2,
  controls: (frame) => [
    {
      kind: "select",
      key: "unit",
      label: "Load of",
      options: [
        ["expert", "experts"],
        ["logical", "logical experts", frame.header.physicalToLogical ? "" : "the file has no replicas"],
        ["rank", "ranks"],
        ["node", "nodes", numNodes(frame.header) > 1 ? "" : "there is one node"],
      ],
    },
    {
      kind: "select",
      key: "order",
      label: "Order",
      options: [
        ["load", "largest first"],
        ["id", "by id"],
      ],
    },
    { kind: "check", key: "padding", label: "Count padding" },
  ],
};
