import {
  type BufferStrip,
  type BuffersModel,
  buffersModel,
  buffersTable,
  describeBuffers,
  type Segment,
} from "../model/buffers.ts";
import { percent, text } from "../model/numbers.ts";
import type { Patch } from "../model/state.ts";
import { axisBelow, swatches } from "./parts.ts";
import { type LinearScale, scaleLinear } from "./scale.ts";
import { type Scene, SceneBuilder } from "./scene.ts";
import { parseColor, type Theme } from "./theme.ts";
import type { DrawContext, ViewDef } from "./view.ts";

const LEFT = 70;
const RIGHT = 176;
const RIGHT_WITH_OVERFLOW = 226;
/** More strips than this are cut to the fullest ones. */
const MAX_STRIPS = 256;
const MAX_VECTOR_SEGMENTS = 3000;

/** A strip and where it is drawn. */
interface Place {
  readonly scene: SceneBuilder;
  readonly strip: BufferStrip;
  readonly x: LinearScale;
  readonly y: number;
  readonly h: number;
  readonly theme: Theme;
}

function draw(model: BuffersModel, context: DrawContext): Scene {
  const { theme, state, mini, width } = context;
  const scene = new SceneBuilder();
  const strips = [...model.strips]
    .sort((a, b) => b.numRows - a.numRows)
    .slice(0, MAX_STRIPS)
    .sort((a, b) => a.rank - b.rank);
  const overflow = model.strips.some((strip) => strip.cut > 0);
  const [left, right, top] = mini ? [4, 4, 4] : [LEFT, overflow ? RIGHT_WITH_OVERFLOW : RIGHT, 34];
  const plotWidth = Math.max(80, width - left - right);
  const rowHeight = mini ? Math.max(1, 104 / strips.length) : Math.max(4, Math.min(30, 520 / strips.length));
  const gap = rowHeight > 8 ? 4 : rowHeight > 3 ? 1 : 0;
  const [z0, , z1] = mini || !state.zoom ? [0, 0, 1] : state.zoom;
  const maxRows = context.max ?? model.maxRows;
  const x = scaleLinear([z0 * maxRows, z1 * maxRows], [left, left + plotWidth]);
  const count = strips.reduce((total, strip) => total + strip.segments.length, 0);
  strips.forEach((strip, i) => {
    const place = { scene, strip, x, y: top + i * rowHeight, h: rowHeight - gap, theme };
    if (count <= MAX_VECTOR_SEGMENTS) vectorStrip(place);
    else rasterStrip(place);
    tokenMarks(place, model.tokenRows.get(strip.rank));
    if (!mini) stripLabels(place, i % Math.ceil(12 / rowHeight) === 0);
  });
  const height = top + strips.length * rowHeight;
  if (mini) {
    scene.spots.push({
      x: 0,
      y: 0,
      w: width,
      h: 112,
      tip: `Buffers: ${describeBuffers(model)}`,
      act: { view: "buffers" },
    });
    return scene.done(width, 112);
  }
  const what = model.style === "fused" ? "recv rows" : "permuted rows";
  const shown = strips.length < model.strips.length ? ` (the ${MAX_STRIPS} longest of ${model.strips.length})` : "";
  scene.text(left, 20, `${what} of each destination rank, in memory order${shown}`, theme.fg, { bold: true });
  axisBelow(scene, x, height + 4, theme, "row");
  const by = model.style === "fused" ? "source rank" : "expert";
  const used = swatches(scene, left, height + 44, width - left, theme, [
    { label: `rows of an even ${by}`, fill: theme.bar[0] },
    { label: `of an odd ${by}`, fill: theme.bar[1] },
    { label: "padding", fill: theme.padding, hatch: theme.hatch },
    { label: "unused budget", fill: theme.bg },
    ...(overflow ? [{ label: "cut by overflow", fill: theme.warning }] : []),
    ...(model.tokenRows.size > 0 ? [{ label: "rows of the inspected token", fill: theme.accent }] : []),
  ]);
  const box = { x: left, y: top, w: plotWidth, h: strips.length * rowHeight };
  const firstRow = Math.floor(z0 * maxRows);
  const visible = Math.max(1, Math.ceil(z1 * maxRows) - firstRow);
  const cols = Math.min(visible, Math.floor(plotWidth));
  const rowOf = (col: number) => Math.min(firstRow + Math.floor((col * visible) / cols), maxRows - 1);
  scene.grids.push({
    name: "buffer rows",
    ...box,
    cols,
    rows: strips.length,
    tip: (c, r) => rowTip(model, strips[r], rowOf(c)),
    act: (c, r) => rowAction(model, strips[r], rowOf(c)),
  });
  return scene.done(width, height + 50 + used, { ...box, axes: "x" });
}

function visiblePart(segment: Pick<Segment, "firstRow" | "numRows">, x: LinearScale): [number, number] | null {
  const [left, right] = x.range();
  const from = Math.max(left, x(segment.firstRow));
  const to = Math.min(right, x(segment.firstRow + segment.numRows));
  return to > from ? [from, to - from] : null;
}

function vectorStrip({ scene, strip, x, y, h, theme }: Place): void {
  for (const segment of strip.segments) {
    const part = visiblePart(segment, x);
    if (part === null) continue;
    const [from, w] = part;
    if (segment.kind === "used") {
      scene.rect(from, y, w, h, segment.selected ? theme.bar[segment.id % 2] : theme.rest);
      // A row gets its own box once it is wide enough to point at.
      const rowWidth = x(1) - x(0);
      if (rowWidth >= 5) {
        const first = Math.max(
          segment.firstRow,
          Math.floor(segment.firstRow + (from - x(segment.firstRow)) / rowWidth),
        );
        let lines = "";
        for (let row = first + 1; x(row) < from + w; row++) lines += `M${x(row).toFixed(1)} ${y}v${h}`;
        if (lines) scene.path(lines, { stroke: theme.bg });
      }
      const label = `${segment.id}`;
      if (w > label.length * 7 + 8 && h >= 14) {
        const fill = segment.selected && (theme.name === "light") === (segment.id % 2 === 0) ? "#ffffff" : "#16181d";
        scene.text(from + w / 2, y + h / 2 + 4, label, segment.selected ? fill : theme.fg, {
          size: 11,
          anchor: "middle",
        });
      }
    } else if (segment.kind === "padding") scene.rect(from, y, w, h, theme.padding, { hatch: theme.hatch });
    else scene.rect(from + 0.5, y + 0.5, w - 1, h - 1, "none", { stroke: theme.hatch, dash: "3 2" });
  }
}

function tokenMarks({ scene, x, y, h, theme }: Place, rows: readonly number[] = []): void {
  for (const row of rows) {
    const part = visiblePart({ firstRow: row, numRows: 1 }, x);
    if (part) scene.rect(part[0] - 1, y - 2, Math.max(3, part[1]), h + 4, theme.accent);
  }
}

/** One pixel per column, coloured by what most of its rows are. */
function rasterStrip({ scene, strip, x, y, h, theme }: Place): void {
  const [left, right] = x.range();
  const cols = Math.max(1, Math.round(right - left));
  const pixels = new Uint8ClampedArray(cols * 4);
  const paint = (from: number, to: number, color: string) => {
    const rgb = parseColor(color);
    for (let px = Math.floor(from - left); px < Math.ceil(to - left) && px < cols; px++)
      pixels.set([...rgb, 255], px * 4);
  };
  for (const segment of strip.segments) {
    const part = visiblePart(segment, x);
    if (part === null) continue;
    const used = segment.selected ? theme.bar[segment.id % 2] : theme.rest;
    paint(part[0], part[0] + part[1], { used, padding: theme.hatch, tail: theme.padding }[segment.kind]);
  }
  scene.marks.push({ kind: "raster", x: left, y, w: cols, h, cols, rows: 1, pixels });
}

function stripLabels({ scene, strip, x, y, h, theme }: Place, named: boolean): void {
  const right = x.range()[1];
  const middle = y + h / 2 + 4;
  if (named) {
    scene.text(LEFT - 8, middle, `rank ${strip.rank}`, theme.fg, { size: 11, anchor: "end" });
    const waste = strip.numRows > 0 ? (strip.numRows - strip.used) / strip.numRows : 0;
    const cut = strip.cut > 0 ? `, \u26a0 ${text(strip.cut)} cut` : "";
    const numbers = `${text(strip.used)} of ${text(strip.numRows)}, ${percent(Number(waste.toPrecision(2)))} waste${cut}`;
    scene.text(right + 8, middle, numbers, strip.cut > 0 ? theme.warning : theme.muted, { size: 11 });
  }
  if (strip.cut > 0) scene.rect(right + 1, y, 4, h, theme.warning);
  scene.spots.push({
    x: 0,
    y,
    w: LEFT - 4,
    h,
    tip: `Rank ${strip.rank}: ${text(strip.used)} rows used, ${text(strip.padding)} padding, ${text(strip.tail)} unused, ${text(strip.cut)} slots cut`,
    act: { dst: [strip.rank] },
  });
}

function segmentAt(strip: BufferStrip, row: number): Segment | undefined {
  return strip.segments.find(({ firstRow, numRows }) => row >= firstRow && row < firstRow + numRows);
}

function rowTip(model: BuffersModel, strip: BufferStrip, row: number): string {
  const segment = segmentAt(strip, row);
  if (!segment) return `Rank ${strip.rank} has no row ${text(row)}`;
  const place = `Rank ${strip.rank}, row ${text(row)}`;
  if (segment.kind === "tail") return `${place}: unused budget`;
  if (segment.kind === "padding") return `${place}: padding of expert ${segment.id} (${text(segment.numRows)} rows)`;
  const source = model.rowAt(strip.rank, row);
  const from = source ? `, token ${text(source.token)} of rank ${source.srcRank}` : "";
  const block = model.style === "fused" ? `from rank ${segment.id}` : `expert ${segment.id}`;
  return `${place}: ${block} (${text(segment.numRows)} rows)${from}`;
}

function rowAction(model: BuffersModel, strip: BufferStrip, row: number): Patch {
  const source = model.rowAt(strip.rank, row);
  if (source) return { token: [source.srcRank, source.token], view: "token" };
  const segment = segmentAt(strip, row);
  if (!segment || segment.kind === "tail") return {};
  return model.style === "fused" ? { src: [segment.id] } : { experts: [segment.id] };
}

export const buffersView: ViewDef<BuffersModel> = {
  id: "buffers",
  title: "Buffers",
  help: "Each strip is one rank's receive buffer. Zoom with the wheel or + and -; click a row to inspect the token in it.",
  needsChunk: () => true,
  model: buffersModel,
  draw,
  table: buffersTable,
  describe: describeBuffers,
  max: (model) => model.maxRows,
  compared: 4,
  controls: () => [],
};
