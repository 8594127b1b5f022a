import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test as base, expect, type Locator, type Page } from "playwright/test";
import { openFile } from "../../../cli/files.ts";
import { startViewerServer, type ViewerServer } from "../../../cli/view.ts";
import type { ByteSource } from "../../../core/io/bytes.ts";
import { sampleTrace } from "../../../viz/model/sample.ts";

/** The page with helpers that wait for it, and a server as `fused-a2a view` starts it. */
export class Viewer {
  readonly page: Page;
  readonly #server: ViewerServer;
  readonly requests: string[] = [];
  readonly errors: string[] = [];

  constructor(page: Page, server: ViewerServer) {
    this.page = page;
    this.#server = server;
    page.on("request", (request) => this.requests.push(request.url()));
    page.on("pageerror", (error) => this.errors.push(error.message));
    page.on("console", (message) => {
      if (message.type() === "error") this.errors.push(message.text());
    });
  }

  /** Opens the viewer with a state as in the address; files by their index in FILES. */
  async open(state: string, file?: keyof typeof FILES, second?: keyof typeof FILES): Promise<void> {
    const source = (key: string, name?: keyof typeof FILES) =>
      name ? [`${key}=${encodeURIComponent(`./data/${Object.keys(FILES).indexOf(name)}/${name}.safetensors`)}`] : [];
    const hash = [state, ...source("url", file), ...source("url2", second)].filter(Boolean).join("&");
    await this.page.goto("about:blank");
    await this.page.goto(`${this.#server.url}#${hash}`);
    await this.ready();
  }

  /** Waits until what was asked for is drawn: a change is taken up in the next frame. */
  async ready(): Promise<void> {
    await this.page.evaluate(
      () => new Promise<void>((done) => requestAnimationFrame(() => requestAnimationFrame(() => done()))),
    );
    await this.page.waitForFunction(() => document.documentElement.dataset.ready === "true");
  }

  get stage(): Locator {
    return this.page.locator(".stage").first();
  }

  /** All rows of the view's table, numbers in full. */
  async table(): Promise<(string | number)[][]> {
    const details = this.page.locator("details");
    if ((await details.getAttribute("open")) === null) await details.locator("summary").click();
    // The table is filled by the event that follows the click.
    await details.locator("table").waitFor();
    const rows: (string | number)[][] = [];
    for (;;) {
      const page = await details.locator("tbody tr").evaluateAll((lines) =>
        lines.map((line) =>
          [...line.querySelectorAll("td")].map((cell) => ({
            text: cell.classList.contains("text"),
            value: cell.dataset.value ?? "",
          })),
        ),
      );
      rows.push(...page.map((row) => row.map(({ text, value }) => (text ? value : Number(value)))));
      const next = details.getByRole("button", { name: "Next rows" });
      if (await next.isDisabled()) return rows;
      await next.click();
    }
  }

  /** Moves the pointer to a place in the picture, given as fractions of a region of the scene. */
  async at(x: number, y: number): Promise<void> {
    const box = await this.stage.boundingBox();
    if (!box) throw new Error("no stage");
    await this.page.mouse.move(box.x + x, box.y + y);
  }
}

/** Files the server hands out. */
export const FILES = {
  fused: () => sampleTrace("fused"),
  hybrid: () => sampleTrace("hybrid-ep"),
  balanced: () => sampleTrace("balanced"),
};

let shared: Promise<{ server: ViewerServer; folder: string; close: () => Promise<void> }> | null = null;

async function start() {
  const folder = await mkdtemp(join(tmpdir(), "fused-a2a-viz-"));
  const sources: ByteSource[] = [];
  for (const [name, make] of Object.entries(FILES)) {
    const path = join(folder, `${name}.safetensors`);
    await writeFile(path, await make());
    sources.push(await openFile(path));
  }
  const server = await startViewerServer(sources, 600_000);
  const close = async () => {
    server.close();
    for (const source of sources) await source.close();
    await rm(folder, { recursive: true, force: true });
  };
  return { server, folder, close };
}

export const test = base.extend<{ viewer: Viewer; folder: string }, { served: Awaited<ReturnType<typeof start>> }>({
  served: [
    // biome-ignore lint/correctness/noEmptyPattern: Playwright wants a destructured argument
    async ({}, use) => {
      shared ??= start();
      const served = await shared;
      await use(served);
      await served.close();
    },
    { scope: "worker" },
  ],
  folder: async ({ served }, use) => use(served.folder),
  viewer: async ({ page, served }, use) => {
    const viewer = new Viewer(page, served.server);
    await use(viewer);
    expect(viewer.errors, "errors in the page").toEqual([]);
    const foreign = viewer.requests.filter(
      (url) => !url.startsWith(served.server.url) && !/^(data|blob|about|file):/.test(url),
    );
    expect(foreign, "requests beyond the page's own origin").toEqual([]);
  },
});

export { expect };
