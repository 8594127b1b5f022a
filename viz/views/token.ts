import type { FlowBand, FlowModel } from "../model/flow.ts";
import { maxOf, text } from "../model/numbers.ts";
import {
  combineOrder,
  describeToken,
  QUANTITY_NAMES,
  type TokenModel,
  tokenModel,
  tokenTable,
} from "../model/token.ts";
import { heatmap, sequential } from "./heatmap.ts";
import { rampLegend, thinned } from "./parts.ts";
import { clip, type Scene, SceneBuilder } from "./scene.ts";
import { VIRIDIS } from "./theme.ts";
import type { DrawContext, ViewDef } from "./view.ts";

const ROW = 26;

function draw(model: TokenModel, context: DrawContext): Scene {
  const scene = new SceneBuilder();
  const { theme, width } = context;
  if (model.numTokens === 0) {
    scene.text(12, 30, `Rank ${model.rank} holds no tokens in this layer.`, theme.fg);
    return scene.done(width, 60);
  }
  let y = strip(scene, model, context);
  y = card(scene, model, context, y + 16);
  if (model.flow) y = flow(scene, model.flow, context, y + 24);
  return scene.done(width, y + 10);
}

/** One cell per token of the source rank. */
function strip(scene: SceneBuilder, model: TokenModel, { theme, width, state }: DrawContext): number {
  const box = { x: 12, y: 34, w: width - 24, h: 22 };
  const n = model.numTokens;
  scene.text(12, 20, `tokens of rank ${model.rank}, coloured by ${QUANTITY_NAMES[model.quantity]}`, theme.fg, {
    bold: true,
  });
  const [low, high] = model.stripRange;
  const range = high - low || 1;
  // Shifted above 0, because 0 is "nothing" to the heatmap.
  const values = model.strip.map((value) => (Number.isNaN(value) ? 0 : 0.001 + ((value - low) / range) * 0.999));
  const window = { x0: 0, y0: 0, x1: n, y1: 1 };
  scene.marks.push(heatmap(values, n, 1, box, window, sequential(VIRIDIS, 1, "linear"), theme.bg));
  scene.rect(box.x, box.y, box.w, box.h, "none", { stroke: theme.grid });
  if (state.tokens) {
    const [first, last] = state.tokens;
    scene.rect(box.x + (first / n) * box.w, box.y - 3, ((last + 1 - first) / n) * box.w, box.h + 6, "none", {
      stroke: theme.fg,
    });
  }
  const at = box.x + ((model.token + 0.5) / n) * box.w;
  scene.path(`M${at - 6} ${box.y - 9}h12l-6 8z`, { fill: theme.accent });
  scene.line(at, box.y - 2, at, box.y + box.h + 2, theme.accent, { width: 1.5 });
  for (const i of thinned(n, box.w, 60)) {
    scene.text(box.x + ((i + 0.5) / n) * box.w, box.y + box.h + 14, `${i}`, theme.muted, {
      size: 11,
      anchor: i === 0 ? "start" : "middle",
    });
  }
  rampLegend(scene, box.x, box.y + box.h + 22, VIRIDIS, theme, {
    low: text(low),
    high: text(high),
    title: "",
    zero: "does not apply",
  });
  scene.grids.push({
    name: `tokens of rank ${model.rank}`,
    ...box,
    cols: n,
    rows: 1,
    tip: (c) =>
      `Token ${text(c)}: ${QUANTITY_NAMES[model.quantity]} ${Number.isNaN(model.strip[c]) ? "does not apply" : text(model.strip[c])}`,
    act: (c) => ({ token: [model.rank, c] }),
    brush: (a, b) => ({ tokens: [Math.min(a[0], b[0]), Math.max(a[0], b[0])] }),
  });
  return box.y + box.h + 40;
}

/** The token's slots as lines from its rank to their experts, with weights, ranks and rows in columns. */
function card(scene: SceneBuilder, model: TokenModel, { theme, width }: DrawContext, top: number): number {
  scene.text(12, top + 6, `token ${text(model.token)} of rank ${model.rank}`, theme.fg, { bold: true, size: 14 });
  const slots = model.slots;
  const y = top + 42;
  const middle = y + (Math.max(1, slots.length) * ROW) / 2;
  const start = width >= 760 ? 230 : 150;
  const columns = [0, 84, 148, 204, 256, 336].map((x) => start + x);
  ["expert", "rank", "node", "row", "", "weight"].forEach((name, i) => {
    if (name) scene.text(columns[i], top + 30, name, theme.muted, { size: 11 });
  });
  scene.rect(12, middle - 14, 88, 28, theme.panel, { stroke: theme.muted });
  scene.text(56, middle + 4, `rank ${model.rank}`, theme.fg, { anchor: "middle" });
  const most = maxOf(slots.map(({ weight }) => weight ?? 1)) || 1;
  const barWidth = Math.max(60, width - columns[5] - 80);
  slots.forEach((slot, i) => {
    const at = y + i * ROW + ROW / 2;
    const stroke = theme.bar[slot.rank % 2];
    const bend = (start + 90) / 2;
    scene.path(`M100 ${middle}C${bend} ${middle} ${bend} ${at} ${start - 10} ${at}`, {
      stroke,
      width: 1 + (6 * (slot.weight ?? 1)) / most,
      opacity: 0.75,
    });
    const logical = slot.logical === slot.expert ? "" : ` (${slot.logical})`;
    scene.text(columns[0], at + 4, `${slot.expert}${logical}`, theme.fg);
    scene.text(columns[1], at + 4, `${slot.rank}${slot.rank === model.rank ? " (own)" : ""}`, theme.fg);
    scene.text(columns[2], at + 4, `${slot.node}`, theme.fg);
    scene.text(
      columns[3],
      at + 4,
      slot.row === null ? "\u26a0 cut by overflow" : `${text(slot.row)}`,
      slot.row === null ? theme.warning : theme.fg,
    );
    if (slot.weight !== null && slot.row !== null) {
      scene.rect(columns[5], at - 7, Math.max(0, (slot.weight / most) * barWidth), 14, stroke);
      scene.text(
        columns[5] + (Math.max(0, slot.weight) / most) * barWidth + 5,
        at + 4,
        slot.weight.toFixed(4),
        theme.fg,
        { size: 11 },
      );
    }
    scene.spots.push({
      x: start - 10,
      y: at - ROW / 2,
      w: width - start,
      h: ROW,
      tip: `Slot ${slot.slot}: expert ${slot.expert} on rank ${slot.rank} (node ${slot.node}), ${slot.row === null ? "cut by overflow" : `row ${text(slot.row)}`}, weight ${slot.weight === null ? "unknown" : slot.weight.toFixed(6)}`,
      act: { experts: [slot.expert] },
    });
  });
  let at = y + Math.max(1, slots.length) * ROW + 8;
  if (slots.length === 0) scene.text(start, y + 18, "no expert: every slot is -1", theme.fg);
  if (model.weightSum !== null) {
    scene.text(columns[5], at + 6, `sum ${model.weightSum.toFixed(6)}`, theme.fg, { size: 11 });
  }
  at += 30;
  const lines = wrapWords(`Combine adds, in this order: ${combineOrder(model)}.`, Math.floor((width - 24) / 6.6));
  lines.forEach((line) => {
    scene.text(12, at, line, theme.fg);
    at += 17;
  });
  return at;
}

function wrapWords(textToWrap: string, width: number): string[] {
  const lines = [""];
  for (const word of textToWrap.split(" ")) {
    if (lines[lines.length - 1].length + word.length >= width) lines.push(word);
    else lines[lines.length - 1] += lines[lines.length - 1] ? ` ${word}` : word;
  }
  return lines;
}

/** Three columns of fixed order; thickness = slots; the selection in colour over everything in grey. */
function flow(scene: SceneBuilder, model: FlowModel, { theme, width }: DrawContext, top: number): number {
  const rows = Math.max(...model.columns.map((bands) => bands.length));
  const height = Math.max(160, Math.min(520, rows * 18));
  const what = model.selecting ? "the selection (in colour; the rest in grey)" : "all slots of the layer";
  scene.text(12, top, `where ${what} flow${model.selecting ? "s" : ""}: thickness = slots`, theme.fg, { bold: true });
  const boxTop = top + 34;
  const label = 92;
  const xs = [label + 12, width / 2 - 8, width - label - 28];
  [`from ${model.level}`, `to ${model.level}`, "expert"].forEach((name, i) => {
    scene.text(xs[i] + 8, boxTop - 10, name, theme.muted, { size: 11, anchor: "middle" });
  });
  const layout = model.columns.map((bands) => stack(bands, boxTop, height));
  model.links.forEach((links, side) => {
    const out = layout[side].map((band) => band.y);
    const into = layout[side + 1].map((band) => band.y);
    for (const link of links) {
      const thickness = link.all * layout[side][link.from].scale;
      const target = link.all * layout[side + 1][link.to].scale;
      const ribbon = (share: number, fill: string, opacity: number) => {
        if (share <= 0) return;
        const [a, b] = [out[link.from], into[link.to]];
        const [x0, x1] = [xs[side] + 16, xs[side + 1]];
        const mid = (x0 + x1) / 2;
        const c = (v: number) => v.toFixed(1);
        scene.path(
          `M${c(x0)} ${c(a)}C${c(mid)} ${c(a)} ${c(mid)} ${c(b)} ${c(x1)} ${c(b)}V${c(b + target * share)}` +
            `C${c(mid)} ${c(b + target * share)} ${c(mid)} ${c(a + thickness * share)} ${c(x0)} ${c(a + thickness * share)}Z`,
          { fill, opacity },
        );
      };
      if (model.selecting) ribbon(1, theme.rest, 0.35);
      ribbon(link.selected / link.all, theme.bar[link.from % 2], model.selecting ? 0.85 : 0.55);
      out[link.from] += thickness;
      into[link.to] += target;
    }
  });
  layout.forEach((bands, column) => {
    let lastLabel = Number.NEGATIVE_INFINITY;
    bands.forEach((band, i) => {
      const about = model.columns[column][i];
      scene.rect(
        xs[column],
        band.y,
        16,
        Math.max(1, band.h),
        model.selecting && about.selected === 0 ? theme.rest : theme.bar[i % 2],
      );
      const middle = band.y + band.h / 2 + 4;
      if (middle - lastLabel >= 12) {
        lastLabel = middle;
        const x = column === 0 ? xs[0] - 6 : xs[column] + 22;
        scene.text(x, middle, clip(about.label, label, 11), theme.fg, {
          size: 11,
          anchor: column === 0 ? "end" : "start",
          halo: theme.bg,
        });
      }
      scene.spots.push({
        x: xs[column],
        y: band.y,
        w: 16,
        h: Math.max(2, band.h),
        tip: `${about.label}: ${text(about.all)} slots${model.selecting ? `, ${text(about.selected)} selected` : ""}`,
        ...(column === 2
          ? about.experts
            ? { act: { experts: about.experts } }
            : {}
          : { act: column === 0 ? { src: about.ranks ?? [] } : { dst: about.ranks ?? [] } }),
      });
    });
  });
  return boxTop + height + 10;
}

function stack(bands: readonly FlowBand[], top: number, height: number): { y: number; h: number; scale: number }[] {
  const total = bands.reduce((slots, band) => slots + band.all, 0) || 1;
  const gap = bands.length > 40 ? 1 : 3;
  const scale = (height - gap * (bands.length - 1)) / total;
  let y = top;
  return bands.map((band) => {
    const h = band.all * scale;
    const place = { y, h, scale };
    y += h + gap;
    return place;
  });
}

export const tokenView: ViewDef<TokenModel> = {
  id: "token",
  title: "Token",
  help: "Where one token goes, and what combine adds up for it. Left and right on the strip walk through tokens; drag there to select a range.",
  needsChunk: () => true,
  model: tokenModel,
  draw,
  table: tokenTable,
  describe: describeToken,
  max: () => 1,
  compared: 5,
  controls: (frame) => [
    {
      kind: "select",
      key: "quantity",
      label: "Colour tokens by",
      options: [
        ["remote", QUANTITY_NAMES.remote],
        ["ranks", QUANTITY_NAMES.ranks],
        ["top", QUANTITY_NAMES.top, frame.dataset.hasWeights ? "" : "the file holds no weights"],
        ["entropy", QUANTITY_NAMES.entropy, frame.dataset.hasWeights ? "" : "the file holds no weights"],
      ],
    },
  ],
};
