import { short } from "../model/numbers.ts";
import type { LinearScale } from "./scale.ts";
import { type Box, round, type SceneBuilder, textWidth } from "./scene.ts";
import { css, type Rgb, type Theme } from "./theme.ts";

/** Axis below a plot: ticks that do not touch, a title at the right end. */
export function axisBelow(
  scene: SceneBuilder,
  scale: LinearScale,
  y: number,
  theme: Theme,
  title: string,
  format: (value: number) => string = short,
): void {
  const [left, right] = scale.range();
  scene.line(left, y, right, y, theme.grid);
  const ticks = scale.ticks(Math.max(2, Math.floor((right - left) / 80)));
  for (const tick of ticks) {
    const x = scale(tick);
    scene.line(x, y, x, y + 4, theme.muted);
    scene.text(x, y + 16, format(tick), theme.muted, { size: 11, anchor: "middle" });
  }
  scene.text(right, y + 31, title, theme.muted, { size: 11, anchor: "end" });
}

/** Axis left of a plot, with faint lines across it. */
export function axisLeft(
  scene: SceneBuilder,
  scale: LinearScale,
  x: number,
  right: number,
  theme: Theme,
  format: (value: number) => string = short,
): void {
  const [bottom, top] = scale.range();
  for (const tick of scale.ticks(Math.max(2, Math.floor((bottom - top) / 45)))) {
    scene.line(x, scale(tick), right, scale(tick), theme.grid);
    scene.text(x - 5, scale(tick) + 4, format(tick), theme.muted, { size: 11, anchor: "end" });
  }
}

/** The colour ramp with its ends named; zero apart where it has its own colour. */
export function rampLegend(
  scene: SceneBuilder,
  x: number,
  y: number,
  ramp: readonly Rgb[],
  theme: Theme,
  labels: { readonly low: string; readonly high: string; readonly title: string; readonly zero?: string },
): void {
  const steps = 32;
  let at = x;
  if (labels.zero !== undefined) {
    scene.rect(at, y, 12, 12, theme.bg, { stroke: theme.muted });
    scene.text(at + 17, y + 10, labels.zero, theme.muted, { size: 11 });
    at += 25 + textWidth(labels.zero, 11);
  }
  scene.text(at, y + 10, labels.low, theme.muted, { size: 11 });
  at += textWidth(labels.low, 11) + 6;
  for (let i = 0; i < steps; i++) {
    scene.rect(at + i * 4, y, 4.5, 12, css(ramp[Math.round((i * 255) / (steps - 1))]));
  }
  at += steps * 4 + 6;
  scene.text(at, y + 10, `${labels.high} ${labels.title}`, theme.muted, { size: 11 });
}

/** Named swatches in a row, wrapped at `width`; returns the height used. */
export function swatches(
  scene: SceneBuilder,
  x: number,
  y: number,
  width: number,
  theme: Theme,
  items: readonly {
    readonly label: string;
    readonly fill: string;
    readonly hatch?: string;
    readonly stroke?: string;
  }[],
): number {
  let at = x;
  let line = 0;
  for (const { label, fill, hatch, stroke } of items) {
    const w = 22 + textWidth(label, 11) + 12;
    if (at + w > x + width && at > x) {
      at = x;
      line++;
    }
    scene.rect(at, y + line * 18, 14, 12, fill, { ...(hatch ? { hatch } : {}), stroke: stroke ?? theme.muted });
    scene.text(at + 20, y + line * 18 + 10, label, theme.muted, { size: 11 });
    at += w;
  }
  return (line + 1) * 18;
}

/** Indices of labels that fit along `length` pixels, `room` each. */
export function thinned(count: number, length: number, room: number): number[] {
  const fits = Math.max(1, Math.floor(length / room));
  const step =
    [1, 2, 4, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200, 256, 500, 512, 1000, 1024].find((s) => count / s <= fits) ??
    Math.ceil(count / fits);
  return Array.from({ length: Math.ceil(count / step) }, (_, i) => i * step);
}

/** Bars of `values` as one path per tone, pooled by maximum to at most one bar per pixel. */
export function columnBars(
  values: ArrayLike<number>,
  box: Box,
  max: number,
  tone: (index: number) => number,
  numTones: number,
): string[] {
  const n = values.length;
  const paths: string[] = Array.from({ length: numTones }, () => "");
  const count = Math.min(n, Math.max(1, Math.floor(box.w)));
  const step = box.w / count;
  const gap = step > 4 ? 1 : 0;
  for (let i = 0; i < count; i++) {
    let best = Math.floor((i * n) / count);
    for (let j = best; j < Math.floor(((i + 1) * n) / count); j++) if (values[j] > values[best]) best = j;
    const h = max > 0 ? Math.min(1, values[best] / max) * box.h : 0;
    if (h <= 0) continue;
    const x = round(box.x + i * step);
    const w = round(Math.max(0.8, step - gap));
    paths[tone(best)] += `M${x} ${round(box.y + box.h)}v${round(-h)}h${w}v${round(h)}z`;
  }
  return paths;
}
