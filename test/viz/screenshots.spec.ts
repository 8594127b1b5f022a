/**
 * Ten small pictures against gross breakage of the layout; numbers are checked elsewhere. Text is drawn a little
 * differently by every browser and font, so they are compared only where they were made: environment.json says where.
 * Made anew with `npx playwright test -c test/viz/playwright.config.ts screenshots --update-snapshots`.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, type FILES, test } from "./support/viewer.ts";

const RECORD = fileURLToPath(new URL("screenshots/environment.json", import.meta.url));

const PICTURES: readonly (readonly [name: string, state: string, a?: keyof typeof FILES, b?: keyof typeof FILES])[] = [
  ["overview", "layer=3", "fused"],
  ["traffic", "view=traffic&layer=3", "fused"],
  ["traffic-dark-selected", "view=traffic&layer=3&src=2-5&theme=dark", "fused"],
  ["load", "view=load&layer=3", "fused"],
  ["buffers", "view=buffers&layer=3", "hybrid"],
  ["buffers-dark", "view=buffers&layer=3&theme=dark", "hybrid"],
  ["token", "view=token&layer=3&token=5,40&src=5", "fused"],
  ["timeline", "view=timeline&layer=3", "fused"],
  ["compare", "view=compare&layer=3", "fused", "balanced"],
  ["empty", ""],
];

test.use({ viewport: { width: 800, height: 500 } });

for (const [name, state, a, b] of PICTURES) {
  test(`screenshot: ${name}`, async ({ viewer, page, browser }, { config }) => {
    await viewer.open(state, a, b);
    await page.evaluate(() => document.fonts.ready);
    const here = {
      platform: process.platform,
      chromium: browser.version().split(".")[0],
      textWidth: await page.evaluate(() => {
        const context = document.createElement("canvas").getContext("2d");
        if (!context) return 0;
        context.font = "20px system-ui, 'Liberation Sans', Arial, sans-serif";
        return Math.round(context.measureText("Every token of every rank").width);
      }),
    };
    if (config.updateSnapshots === "all" || config.updateSnapshots === "changed")
      writeFileSync(RECORD, `${JSON.stringify(here, null, 2)}\n`);
    const made = existsSync(RECORD) ? JSON.parse(readFileSync(RECORD, "utf8")) : null;
    test.skip(
      JSON.stringify(made) !== JSON.stringify(here),
      `made with ${JSON.stringify(made)}, this is ${JSON.stringify(here)}`,
    );
    await page.mouse.move(0, 0);
    // The pictures themselves, whole; where that is much, and of the empty page, what the window shows.
    await expect(a && name !== "token" ? page.locator(".stages") : page).toHaveScreenshot(`${name}.png`);
  });
}
