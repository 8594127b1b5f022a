import { fileURLToPath } from "node:url";
import { chromium, type Page } from "playwright";
import { createServer } from "vite";
import { WEBGPU_FLAGS } from "./chromium.ts";

/** Serves the repository with Vite on 127.0.0.1, opens `path` in headless Chromium, and closes both afterwards. */
export async function withPage<T>(executable: string, path: string, work: (page: Page) => Promise<T>): Promise<T> {
  const root = fileURLToPath(new URL("../..", import.meta.url));
  const server = await createServer({
    root,
    configFile: false,
    logLevel: "error",
    cacheDir: "node_modules/.vite-webgpu-test",
    server: { host: "127.0.0.1", port: 0, watch: null, hmr: false, ws: false },
    optimizeDeps: { noDiscovery: true },
  });
  try {
    await server.listen();
    const address = server.resolvedUrls?.local[0] ?? "";
    const browser = await chromium.launch({ executablePath: executable, args: WEBGPU_FLAGS });
    try {
      const page = await browser.newPage();
      const errors: string[] = [];
      page.on("pageerror", (error) => errors.push(error.message));
      await page.goto(`${address}${path}`);
      const result = await work(page);
      if (errors.length > 0) throw new Error(`errors on the page: ${errors.join("; ")}`);
      return result;
    } finally {
      await browser.close();
    }
  } finally {
    await server.close();
  }
}
