import type { Change } from "../model/compare.ts";
import { short, text } from "../model/numbers.ts";
import { clip, type Scene, SceneBuilder } from "./scene.ts";
import { css, PUOR } from "./theme.ts";
import type { DrawContext } from "./view.ts";

/** The largest changes as bars around zero: orange = less in B, purple = more. */
export function drawChanges(
  title: string,
  changes: readonly Change[],
  limit: number,
  { theme, width }: DrawContext,
): Scene {
  const scene = new SceneBuilder();
  const shown = changes.slice(0, limit);
  scene.text(12, 18, clip(`${title}: ${text(changes.length)} changed`, width - 20, 12), theme.fg, { bold: true });
  if (changes.length === 0) {
    scene.text(12, 38, "no difference", theme.muted);
    return scene.done(width, 50);
  }
  const label = Math.min(150, width * 0.3);
  const numbers = Math.min(190, width * 0.3);
  const half = (width - label - numbers - 24) / 2;
  const zero = label + half;
  const most = Math.max(...shown.map(({ difference }) => Math.abs(difference ?? 0)), 1e-9);
  const color = (sign: number) =>
    css(PUOR[sign > 0 ? (theme.name === "dark" ? 205 : 225) : theme.name === "dark" ? 60 : 35]);
  shown.forEach((change, i) => {
    const y = 30 + i * 19;
    const size = ((change.difference ?? 0) / most) * half;
    scene.text(label - 6, y + 12, clip(change.what, label - 8, 11), theme.fg, { size: 11, anchor: "end" });
    if (change.difference !== null) scene.rect(Math.min(zero, zero + size), y + 2, Math.abs(size), 13, color(size));
    const say = (value: number | null) => (value === null ? "absent" : short(value));
    const sign = change.difference === null ? "" : ` (${change.difference > 0 ? "+" : ""}${short(change.difference)})`;
    scene.text(zero + half + 8, y + 12, `${say(change.a)} \u2192 ${say(change.b)}${sign}`, theme.muted, { size: 11 });
    scene.spots.push({ x: 0, y, w: width, h: 18, tip: changeTip(change) });
  });
  scene.line(zero, 28, zero, 30 + shown.length * 19, theme.muted);
  if (changes.length > limit) {
    scene.text(
      12,
      44 + shown.length * 19,
      `and ${text(changes.length - limit)} smaller changes (in the table)`,
      theme.muted,
      { size: 11 },
    );
  }
  return scene.done(width, 38 + shown.length * 19 + (changes.length > limit ? 14 : 0));
}

function changeTip({ what, a, b, difference, log2 }: Change): string {
  const say = (value: number | null) => (value === null ? "absent" : text(value));
  return `${what}: A ${say(a)}, B ${say(b)}, B - A ${say(difference)}${log2 === null ? "" : `, log2(B/A) ${log2.toFixed(3)}`}`;
}
