import { pngDataUrl } from "./png.ts";
import { type Mark, round, type Scene } from "./scene.ts";
import type { Theme } from "./theme.ts";

export const FONT = "system-ui, 'Liberation Sans', Arial, sans-serif";
/** Rasters up to this many cells are exported as rectangles; larger ones as an embedded picture. */
const VECTOR_CELLS = 4096;

/** Marks as SVG elements. Rasters are left out (the page draws them on canvas) unless `rasters` gives their markup. */
export function svgMarks(
  marks: readonly Mark[],
  prefix: string,
  rasters: ReadonlyMap<Mark, string> = new Map(),
): { body: string; defs: string } {
  const hatches = new Map<string, string>();
  const draw = (mark: Mark): string => {
    if (mark.kind === "group") {
      return `<g transform="translate(${round(mark.x)},${round(mark.y)})">${mark.marks.map(draw).join("")}</g>`;
    }
    if (mark.kind === "raster") return rasters.get(mark) ?? "";
    if (mark.kind === "text") return textMark(mark);
    if (mark.kind === "path") {
      const attributes = [
        `d="${mark.d}"`,
        `fill="${mark.fill ?? "none"}"`,
        mark.stroke ? `stroke="${mark.stroke}" stroke-width="${mark.width ?? 1}"` : "",
        mark.dash ? `stroke-dasharray="${mark.dash}"` : "",
        mark.opacity === undefined ? "" : `opacity="${mark.opacity}"`,
      ];
      return `<path ${attributes.filter(Boolean).join(" ")}/>`;
    }
    const box = `x="${round(mark.x)}" y="${round(mark.y)}" width="${round(Math.max(0, mark.w))}" height="${round(Math.max(0, mark.h))}"`;
    const stroke = mark.stroke ? ` stroke="${mark.stroke}"${mark.dash ? ` stroke-dasharray="${mark.dash}"` : ""}` : "";
    let result = `<rect ${box} fill="${mark.fill}"${stroke}/>`;
    if (mark.hatch) {
      const id = hatches.get(mark.hatch) ?? `${prefix}h${hatches.size}`;
      hatches.set(mark.hatch, id);
      result += `<rect ${box} fill="url(#${id})"/>`;
    }
    return result;
  };
  const body = marks.map(draw).join("");
  const defs = [...hatches].map(
    ([color, id]) =>
      `<pattern id="${id}" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">` +
      `<line x1="0" y1="0" x2="0" y2="5" stroke="${color}" stroke-width="1.6"/></pattern>`,
  );
  return { body, defs: defs.length ? `<defs>${defs.join("")}</defs>` : "" };
}

function textMark(mark: Extract<Mark, { kind: "text" }>): string {
  const attributes = [
    `x="${round(mark.x)}" y="${round(mark.y)}" fill="${mark.fill}" font-size="${mark.size ?? 12}"`,
    mark.anchor && mark.anchor !== "start" ? `text-anchor="${mark.anchor}"` : "",
    mark.bold ? `font-weight="600"` : "",
    mark.halo ? `stroke="${mark.halo}" stroke-width="3" stroke-linejoin="round" paint-order="stroke"` : "",
    mark.rotate ? `transform="rotate(${mark.rotate} ${round(mark.x)} ${round(mark.y)})"` : "",
  ];
  return `<text ${attributes.filter(Boolean).join(" ")}>${escapeXml(mark.text)}</text>`;
}

/** A whole SVG file: title, description, the scene, on the theme's background. */
export async function svgFile(
  scene: Scene,
  about: { readonly title: string; readonly description: string; readonly theme: Theme },
): Promise<string> {
  const { theme } = about;
  const lines = wrap(about.description, Math.max(30, Math.floor((scene.width - 20) / 6.4)));
  const top = 34 + lines.length * 15;
  const rasters = new Map<Mark, string>();
  await eachRaster(scene.marks, async (mark) => void rasters.set(mark, await rasterMarkup(mark)));
  const { body, defs } = svgMarks(scene.marks, "x", rasters);
  const [width, height] = [Math.ceil(scene.width), Math.ceil(scene.height + top)];
  const subtitle = lines.map(
    (line, i) => `<text x="10" y="${40 + i * 15}" fill="${theme.muted}" font-size="11">${escapeXml(line)}</text>`,
  );
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" ` +
    `font-family="${FONT}" role="img"><title>${escapeXml(about.title)}</title><desc>${escapeXml(about.description)}</desc>${defs}` +
    `<rect width="${width}" height="${height}" fill="${theme.bg}"/>` +
    `<text x="10" y="22" fill="${theme.fg}" font-size="15" font-weight="600">${escapeXml(about.title)}</text>${subtitle.join("")}` +
    `<g transform="translate(0,${top})">${body}</g></svg>\n`
  );
}

async function eachRaster(
  marks: readonly Mark[],
  visit: (mark: Extract<Mark, { kind: "raster" }>) => Promise<void>,
): Promise<void> {
  for (const mark of marks) {
    if (mark.kind === "group") await eachRaster(mark.marks, visit);
    else if (mark.kind === "raster") await visit(mark);
  }
}

async function rasterMarkup(mark: Extract<Mark, { kind: "raster" }>): Promise<string> {
  const { x, y, w, h, cols, rows, pixels } = mark;
  if (cols * rows > VECTOR_CELLS) {
    const href = await pngDataUrl(cols, rows, pixels);
    return `<image x="${round(x)}" y="${round(y)}" width="${round(w)}" height="${round(h)}" preserveAspectRatio="none" style="image-rendering:pixelated" href="${href}"/>`;
  }
  const parts: string[] = [];
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) {
      const i = (row * cols + col) * 4;
      if (pixels[i + 3] === 0) continue;
      const hex = [0, 1, 2].map((c) => pixels[i + c].toString(16).padStart(2, "0")).join("");
      parts.push(
        `<rect x="${round(x + (col * w) / cols)}" y="${round(y + (row * h) / rows)}" width="${round(w / cols)}" height="${round(h / rows)}" fill="#${hex}"/>`,
      );
    }
  }
  return `<g shape-rendering="crispEdges">${parts.join("")}</g>`;
}

export function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [""];
  for (const word of text.split(" ")) {
    const last = lines.length - 1;
    if (lines[last].length + word.length + 1 > width && lines[last] !== "") lines.push(word);
    else lines[last] += lines[last] === "" ? word : ` ${word}`;
  }
  return lines;
}
