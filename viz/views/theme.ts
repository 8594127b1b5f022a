/** Every colour of the viewer. Contrast and distances under colour blindness are tested (test/unit/viz/theme.test.ts). */
export interface Theme {
  readonly name: "light" | "dark";
  readonly bg: string;
  readonly panel: string;
  readonly fg: string;
  readonly muted: string;
  readonly grid: string;
  readonly accent: string;
  readonly onAccent: string;
  /** Used rows and plain bars, in two tones so that neighbours stay apart. */
  readonly bar: readonly [string, string];
  /** What the selection leaves out. */
  readonly rest: string;
  readonly padding: string;
  readonly hatch: string;
  readonly wait: string;
  readonly warning: string;
}

export const LIGHT: Theme = {
  name: "light",
  bg: "#ffffff",
  panel: "#f4f5f7",
  fg: "#1b1e24",
  muted: "#565d69",
  grid: "#d5d9e0",
  accent: "#b3261e",
  onAccent: "#ffffff",
  bar: ["#35608d", "#6b93bd"],
  rest: "#c9ced6",
  padding: "#e8eaee",
  hatch: "#7a818c",
  wait: "#d3d6dc",
  warning: "#b3261e",
};

export const DARK: Theme = {
  name: "dark",
  bg: "#16181d",
  panel: "#1f2229",
  fg: "#e9ebef",
  muted: "#a7aebb",
  grid: "#3a404b",
  accent: "#ffb454",
  onAccent: "#16181d",
  bar: ["#7fb0e0", "#4f7fae"],
  rest: "#454b57",
  padding: "#2b2f38",
  hatch: "#8a92a0",
  wait: "#4b515d",
  warning: "#ff8a80",
};

/** Four hues that stay apart for protan, deutan and tritan readers on both backgrounds. */
export const PHASE_HUES = {
  dispatch: "#009E73",
  experts: "#D55E00",
  other: "#AA4499",
  combine: "#785EF0",
} as const;

/** The hue of a phase by the word its name begins with. */
export function phaseColor(name: string): string {
  const group = name.split(/[.\s]/)[0];
  if (group === "dispatch" || group === "combine") return PHASE_HUES[group];
  return /^(expert|compute|scale|mlp)/.test(group) ? PHASE_HUES.experts : PHASE_HUES.other;
}

export type Rgb = readonly [number, number, number];

export function parseColor(color: string): Rgb {
  const hex = /^#(..)(..)(..)$/.exec(color);
  if (hex) return [hex[1], hex[2], hex[3]].map((part) => Number.parseInt(part, 16)) as unknown as Rgb;
  const [r, g, b] = (color.match(/\d+/g) ?? ["0", "0", "0"]).map(Number);
  return [r, g, b];
}

export function mix(a: string, b: string, share: number): string {
  const [from, to] = [parseColor(a), parseColor(b)];
  const channel = (i: number) => Math.round(from[i] + (to[i] - from[i]) * share);
  return `#${[0, 1, 2].map((i) => channel(i).toString(16).padStart(2, "0")).join("")}`;
}

/** 256 colours through evenly spaced stops. */
function ramp(stops: string): Rgb[] {
  const colors = stops.split(" ").map((hex) => parseColor(`#${hex}`));
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (colors.length - 1);
    const low = Math.min(colors.length - 2, Math.floor(at));
    const channel = (c: number) => Math.round(colors[low][c] + (colors[low + 1][c] - colors[low][c]) * (at - low));
    return [channel(0), channel(1), channel(2)] as const;
  });
}

/** Stops of d3-scale-chromatic's ramps, which would cost the page 14 kB: a test holds them to the originals. */
export const VIRIDIS: readonly Rgb[] = ramp(
  "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725",
);
/** Orange = less, purple = more; the same way round in both themes. */
export const PUOR: readonly Rgb[] = ramp(
  "7f3b08 9f4e07 be630b d97e1a ee9d3d fabb6e fdd5a0 fbe7cd f3eeea e3e4ee cecde4 b5b0d4 998ebf 7b67a8 5f3d8f 461a70 2d004b",
);

export function css([r, g, b]: Rgb): string {
  return `#${[r, g, b].map((channel) => channel.toString(16).padStart(2, "0")).join("")}`;
}
