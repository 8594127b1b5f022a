import type { Box, Mark } from "./scene.ts";
import { parseColor, type Rgb } from "./theme.ts";

/** The visible part of a matrix, in whole cells: [x0, x1) x [y0, y1). */
export interface Window {
  readonly x0: number;
  readonly y0: number;
  readonly x1: number;
  readonly y1: number;
}

export function windowOf(zoom: readonly [number, number, number, number] | null, cols: number, rows: number): Window {
  const [x0, y0, x1, y1] = zoom ?? [0, 0, 1, 1];
  return {
    x0: Math.floor(x0 * cols),
    y0: Math.floor(y0 * rows),
    x1: Math.max(1, Math.ceil(x1 * cols)),
    y1: Math.max(1, Math.ceil(y1 * rows)),
  };
}

/**
 * A matrix as a raster of at most one pixel per screen pixel. Where several cells share a pixel the largest magnitude
 * wins, so that one hot cell stays visible at every zoom; a zero cell keeps `zero`, apart from the low end of the ramp.
 */
export function heatmap(
  values: ArrayLike<number>,
  cols: number,
  rows: number,
  box: Box,
  window: Window,
  color: (value: number) => Rgb,
  /** "" leaves zero cells transparent. */
  zero: string,
): Mark {
  const outCols = Math.max(1, Math.min(Math.round(box.w), Math.ceil(window.x1) - Math.floor(window.x0)));
  const outRows = Math.max(1, Math.min(Math.round(box.h), Math.ceil(window.y1) - Math.floor(window.y0)));
  // Unzoomed cells that fit get one pixel each, stretched on drawing; else pixels are screen pixels.
  const whole = window.x0 === 0 && window.y0 === 0 && window.x1 === cols && window.y1 === rows;
  const exact = whole && cols <= outCols && rows <= outRows;
  const pixelCols = exact ? cols : Math.round(box.w);
  const pixelRows = exact ? rows : Math.round(box.h);
  const pixels = new Uint8ClampedArray(pixelCols * pixelRows * 4);
  const left = edges(window.x0, window.x1, pixelCols, cols);
  const top = edges(window.y0, window.y1, pixelRows, rows);
  const background = parseColor(zero);
  for (let py = 0, at = 0; py < pixelRows; py++) {
    const [y0, y1] = [top.first[py], top.end[py]];
    for (let px = 0; px < pixelCols; px++, at += 4) {
      let best = 0;
      let magnitude = 0;
      const x1 = left.end[px];
      for (let y = y0; y < y1; y++) {
        for (let x = left.first[px], i = y * cols + x; x < x1; x++, i++) {
          const value = values[i];
          const size = value < 0 ? -value : value;
          if (size > magnitude) {
            magnitude = size;
            best = value;
          }
        }
      }
      const rgb = best === 0 ? background : color(best);
      pixels[at] = rgb[0];
      pixels[at + 1] = rgb[1];
      pixels[at + 2] = rgb[2];
      pixels[at + 3] = best === 0 && zero === "" ? 0 : 255;
    }
  }
  return { kind: "raster", ...box, cols: pixelCols, rows: pixelRows, pixels };
}

/** Cells [first, end) under each of `count` pixels. */
function edges(from: number, to: number, count: number, limit: number): { first: Int32Array; end: Int32Array } {
  const first = new Int32Array(count);
  const end = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    first[i] = Math.min(limit - 1, Math.floor(from + ((to - from) * i) / count + 1e-9));
    end[i] = Math.max(first[i] + 1, Math.min(limit, Math.ceil(from + ((to - from) * (i + 1)) / count - 1e-9)));
  }
  return { first, end };
}

/** value -> colour on a ramp from 0 to `max`, linear or log(1 + value). */
export function sequential(ramp: readonly Rgb[], max: number, scale: "linear" | "log"): (value: number) => Rgb {
  const top = scale === "log" ? Math.log1p(max) : max;
  return (value) => ramp[clampIndex((scale === "log" ? Math.log1p(value) : value) / top)];
}

/** value -> colour on a ramp centred at 0, -max..max. */
export function diverging(ramp: readonly Rgb[], max: number): (value: number) => Rgb {
  return (value) => ramp[clampIndex(0.5 + value / (2 * max))];
}

function clampIndex(share: number): number {
  return Math.max(0, Math.min(255, Math.round(share * 255)));
}
