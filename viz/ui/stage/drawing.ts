import type { Mark, Scene } from "../../views/scene.ts";
import { FONT, svgMarks } from "../../views/svg.ts";
import { el, placeAt } from "../dom.ts";

type Raster = Extract<Mark, { kind: "raster" }>;

let drawingCount = 0;

/** A scene's marks in an element: rasters on a canvas each, all others as one SVG above them. */
export class Drawing {
  readonly svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  /** Keeps the ids of this picture apart from those of others in the page. */
  readonly #prefix = `s${drawingCount++}`;

  constructor() {
    this.svg.setAttribute("aria-hidden", "true");
    this.svg.style.fontFamily = FONT;
  }

  render(scene: Scene, label: string): void {
    this.#drawRasters(rastersOf(scene.marks), label);
    const { body, defs } = svgMarks(scene.marks, this.#prefix);
    this.svg.setAttribute("width", `${Math.ceil(scene.width)}`);
    this.svg.setAttribute("height", `${Math.ceil(scene.height)}`);
    this.svg.innerHTML = defs + body;
  }

  #drawRasters(rasters: readonly Raster[], label: string): void {
    const canvases = [...(this.svg.parentElement?.querySelectorAll("canvas") ?? [])];
    for (const extra of canvases.splice(rasters.length)) extra.remove();
    rasters.forEach(({ x, y, w, h, cols, rows, pixels }, i) => {
      let canvas = canvases[i];
      if (!canvas) {
        canvas = el("canvas", { role: "img" });
        this.svg.before(canvas);
      }
      canvas.setAttribute("aria-label", `cells of ${label}`);
      if (canvas.width !== cols || canvas.height !== rows) {
        canvas.width = cols;
        canvas.height = rows;
      }
      canvas.getContext("2d")?.putImageData(new ImageData(pixels, cols, rows), 0, 0);
      placeAt(canvas, x, y, w, h);
    });
  }
}

/** All rasters, at their places in the whole picture. */
function rastersOf(marks: readonly Mark[], x = 0, y = 0): Raster[] {
  return marks.flatMap((mark) => {
    if (mark.kind === "group") return rastersOf(mark.marks, x + mark.x, y + mark.y);
    return mark.kind === "raster" ? [{ ...mark, x: x + mark.x, y: y + mark.y }] : [];
  });
}
