import { ticks } from "d3-array";

/**
 * A linear scale as d3-scale's: that one would bring d3's colours, interpolators and number formats into the page (20 kB
 * of script for one line of arithmetic).
 */
export interface LinearScale {
  (value: number): number;
  invert(position: number): number;
  range(): readonly [number, number];
  ticks(count: number): number[];
}

export function scaleLinear(domain: readonly [number, number], range: readonly [number, number]): LinearScale {
  const [d0, d1] = domain;
  const [r0, r1] = range;
  const span = d1 - d0 || 1;
  const scale = (value: number) => r0 + ((value - d0) / span) * (r1 - r0);
  return Object.assign(scale, {
    invert: (position: number) => d0 + ((position - r0) / (r1 - r0 || 1)) * span,
    range: () => range,
    ticks: (count: number) => ticks(d0, d1, count),
  });
}
