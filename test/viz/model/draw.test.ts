import { inflateSync } from "node:zlib";
import { interpolatePuOr, interpolateViridis } from "d3-scale-chromatic";
import { describe, expect, it } from "vitest";
import { compareTables, toCsv } from "../../../viz/model/table.ts";
import { heatmap, sequential, windowOf } from "../../../viz/views/heatmap.ts";
import { encodePng } from "../../../viz/views/png.ts";
import { svgFile, svgMarks } from "../../../viz/views/svg.ts";
import { DARK, LIGHT, PHASE_HUES, PUOR, parseColor, type Rgb, type Theme, VIRIDIS } from "../../../viz/views/theme.ts";

describe("heatmap", () => {
  const size = 2048;
  const values = new Float64Array(size * size).fill(1);
  const [hotRow, hotCol] = [1311, 77];
  values[hotRow * size + hotCol] = 100;
  const ramp: Rgb[] = Array.from({ length: 256 }, (_, i) => [i, 0, 0]);
  const reddest = (zoom: [number, number, number, number] | null, pixels: number) => {
    const mark = heatmap(
      values,
      size,
      size,
      { x: 0, y: 0, w: pixels, h: pixels },
      windowOf(zoom, size, size),
      sequential(ramp, 100, "linear"),
      "#ffffff",
    );
    if (mark.kind !== "raster") throw new Error("no raster");
    let most = 0;
    for (let i = 0; i < mark.pixels.length; i += 4) most = Math.max(most, mark.pixels[i]);
    return most;
  };

  it("keeps a hot cell visible at every zoom that holds it", () => {
    for (const pixels of [16, 64, 300, 620]) expect(reddest(null, pixels)).toBe(255);
    for (let span = 1; span > 0.002; span /= 2) {
      const x0 = Math.max(0, Math.min(1 - span, hotCol / size - span / 2));
      const y0 = Math.max(0, Math.min(1 - span, hotRow / size - span / 2));
      expect(reddest([x0, y0, x0 + span, y0 + span], 620)).toBe(255);
    }
    expect(reddest([0.5, 0, 1, 0.5], 620)).toBeLessThan(10);
  });

  it("gives zero its own colour, apart from the low end", () => {
    const mark = heatmap(
      [0, 1, 2, 4],
      2,
      2,
      { x: 0, y: 0, w: 2, h: 2 },
      windowOf(null, 2, 2),
      sequential(ramp, 4, "linear"),
      "#0000ff",
    );
    expect(mark.kind === "raster" && [...mark.pixels]).toEqual([
      0, 0, 255, 255, 64, 0, 0, 255, 128, 0, 0, 255, 255, 0, 0, 255,
    ]);
  });
});

describe("colours", () => {
  it("the ramps are d3's", () => {
    for (let i = 0; i < 256; i++) {
      for (const [ours, d3] of [
        [VIRIDIS[i], interpolateViridis(i / 255)],
        [PUOR[i], interpolatePuOr(1 - i / 255)],
      ] as const) {
        expect(distance(lab(ours), lab(parseColor(d3)))).toBeLessThan(3);
      }
    }
  });

  it.each([LIGHT, DARK])("text and marks of the $name theme reach WCAG AA", (theme: Theme) => {
    for (const ground of [theme.bg, theme.panel]) {
      for (const text of [theme.fg, theme.muted, theme.accent, theme.warning])
        expect(contrast(text, ground)).toBeGreaterThanOrEqual(4.5);
    }
    expect(contrast(theme.onAccent, theme.accent)).toBeGreaterThanOrEqual(4.5);
    for (const mark of [...theme.bar, theme.hatch, ...Object.values(PHASE_HUES)])
      expect(contrast(mark, theme.bg)).toBeGreaterThanOrEqual(3);
  });

  it("phases stay apart for readers who do not see red, green or blue", () => {
    const hues = Object.values(PHASE_HUES).map(parseColor);
    for (const matrix of Object.values(BLINDNESS)) {
      for (const [i, a] of hues.entries()) {
        for (const b of hues.slice(i + 1))
          expect(distance(lab(simulate(a, matrix)), lab(simulate(b, matrix)))).toBeGreaterThan(25);
      }
    }
  });
});

describe("pictures as files", () => {
  it("SVG escapes what comes from files and carries its title", async () => {
    const marks = [{ kind: "text", x: 0, y: 0, text: '<script>"&', fill: "#000" }] as const;
    expect(svgMarks(marks, "p").body).toContain("&lt;script&gt;&quot;&amp;");
    const svg = await svgFile(
      { width: 100, height: 50, marks, spots: [], grids: [] },
      { title: "a <b>", description: "d", theme: LIGHT },
    );
    expect(svg).toContain("<title>a &lt;b&gt;</title>");
    expect(svg).not.toContain("<script");
  });

  it("PNG holds the pixels", async () => {
    const pixels = Uint8ClampedArray.of(1, 2, 3, 255, 4, 5, 6, 255);
    const png = Buffer.from(await encodePng(2, 1, pixels));
    expect(png.subarray(1, 4).toString()).toBe("PNG");
    const length = png.readUInt32BE(33);
    expect(png.subarray(37, 41).toString()).toBe("IDAT");
    expect([...inflateSync(png.subarray(41, 41 + length))]).toEqual([0, 1, 2, 3, 255, 4, 5, 6, 255]);
  });

  it("CSV quotes and defuses formulas", () => {
    const table = {
      title: "t",
      columns: ["a", "b"],
      rows: [
        ['x,"y"', 1.5],
        ["=cmd()", null],
      ],
      numKeys: 1,
    };
    expect(toCsv(table)).toBe('a,b\r\n"x,""y""",1.5\r\n\'=cmd(),\r\n');
  });

  it("tables are compared by key, keys of one side kept", () => {
    const a = {
      title: "t",
      columns: ["k", "v"],
      rows: [
        [1, 2],
        [2, 4],
      ],
      numKeys: 1,
    };
    const b = {
      title: "t",
      columns: ["k", "v"],
      rows: [
        [2, 1],
        [3, 7],
      ],
      numKeys: 1,
    };
    expect(compareTables(a, b, 1, 2).rows).toEqual([
      [1, 2, null, null, null],
      [2, 4, 2, -2, -1],
      [3, null, 14, null, null],
    ]);
  });
});

/** Machado, Oliveira, Fernandes 2009, severity 1, on linear RGB. */
const BLINDNESS: Record<string, number[][]> = {
  none: [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ],
  protan: [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  deutan: [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.01182, 0.04294, 0.968881],
  ],
  tritan: [
    [1.255528, -0.076749, -0.178779],
    [-0.078411, 0.930809, 0.147602],
    [0.004733, 0.691367, 0.3039],
  ],
};

function linear(color: Rgb): number[] {
  return color.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
}

function simulate(color: Rgb, matrix: number[][]): Rgb {
  const rgb = linear(color);
  const out = matrix.map((row) =>
    Math.min(
      1,
      Math.max(
        0,
        row.reduce((sum, weight, i) => sum + weight * rgb[i], 0),
      ),
    ),
  );
  return out.map((c) => 255 * (c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055)) as unknown as Rgb;
}

function contrast(a: string, b: string): number {
  const luminance = (hex: string) => {
    const [r, g, blue] = linear(parseColor(hex));
    return 0.2126 * r + 0.7152 * g + 0.0722 * blue;
  };
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
}

function lab(color: Rgb): number[] {
  const [r, g, b] = linear(color);
  const xyz = [
    (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047,
    0.2126 * r + 0.7152 * g + 0.0722 * b,
    (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883,
  ];
  const [x, y, z] = xyz.map((t) => (t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116));
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

function distance(a: number[], b: number[]): number {
  return Math.hypot(...a.map((value, i) => value - b[i]));
}
