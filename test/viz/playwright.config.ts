/** Browser tests of the viewer: `npx playwright test -c test/viz/playwright.config.ts`. They use the built dist/viewer. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "playwright/test";
import { launchOptions } from "./support/browser.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
if (!existsSync(`${root}dist/viewer/index.html`)) throw new Error("no dist/viewer: run `npm run build` first");

export default defineConfig({
  testDir: ".",
  testMatch: "*.spec.ts",
  outputDir: "../../test-results/viz",
  snapshotPathTemplate: "{testDir}/screenshots/{arg}{ext}",
  reporter: [["dot"], ["json", { outputFile: `${root}test-results/playwright.json` }]],
  workers: 1,
  timeout: 60_000,
  expect: { timeout: 10_000, toHaveScreenshot: { maxDiffPixelRatio: 0.03, threshold: 0.3, animations: "disabled" } },
  use: {
    launchOptions: await launchOptions(),
    viewport: { width: 1100, height: 800 },
    deviceScaleFactor: 1,
    locale: "en-US",
    timezoneId: "UTC",
    colorScheme: "light",
    contextOptions: { reducedMotion: "reduce" },
  },
});
