import { button, download, el } from "./dom.ts";

/** What there is to save. */
export interface Picture {
  fileName(extension: string): string;
  /** Rejects when no picture is shown. */
  svg(): Promise<string>;
  csv(): string;
}

export async function saveSvg(picture: Picture): Promise<void> {
  download(picture.fileName("svg"), new Blob([await picture.svg()], { type: "image/svg+xml" }));
}

/** The SVG, drawn by the browser at twice its size. */
async function savePng(picture: Picture): Promise<void> {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(await picture.svg())}`;
  await image.decode();
  const canvas = el("canvas", { width: image.width * 2, height: image.height * 2 });
  canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
  if (blob) download(picture.fileName("png"), blob);
}

async function saveCsv(picture: Picture): Promise<void> {
  download(picture.fileName("csv"), new Blob([picture.csv()], { type: "text/csv" }));
}

export function saveTools(picture: Picture, fail: (error: unknown) => void): HTMLElement {
  const tool = (label: string, save: (picture: Picture) => Promise<void>) =>
    button(label, () => void save(picture).catch(fail));
  return el(
    "div",
    { class: "tools", role: "group", "aria-label": "Save" },
    tool("Save SVG", saveSvg),
    tool("Save PNG", savePng),
    tool("Save CSV", saveCsv),
  );
}
