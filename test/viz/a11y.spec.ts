/** axe on every view in both themes, and what axe does not see: canvas names, focus, order of the page. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { VIEW_IDS } from "../../viz/model/state.ts";
import { expect, test } from "./support/viewer.ts";

const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

interface AxeResult {
  readonly violations: readonly {
    readonly id: string;
    readonly nodes: readonly { readonly html: string; readonly failureSummary: string }[];
  }[];
  readonly incomplete: readonly { readonly id: string; readonly nodes: readonly { readonly html: string }[] }[];
}

for (const theme of ["light", "dark"]) {
  test(`axe finds nothing in any view, ${theme}`, async ({ viewer, page }) => {
    const check = async (where: string) => {
      const result = (await page.evaluate(async (source) => {
        // The page's policy forbids added scripts, so axe is evaluated, not inserted.
        // biome-ignore lint/security/noGlobalEval: the source is axe-core's own file
        if (!("axe" in globalThis)) globalThis.eval(source);
        const axe = (globalThis as unknown as { axe: { run(node: Document, options: object): Promise<unknown> } }).axe;
        return axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] });
      }, axeSource)) as AxeResult;
      const found = result.violations.map(
        ({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join(" | ")}`,
      );
      expect(found, where).toEqual([]);
      // axe cannot judge text in SVG: the theme's contrasts are computed in model/draw.test.ts.
      const unsure = result.incomplete.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
      const open = unsure.filter((found) => !found.startsWith("color-contrast: <text"));
      expect(open, `${where}, to be looked at`).toEqual([]);
    };
    for (const view of VIEW_IDS) {
      await viewer.open(
        `view=${view}&theme=${theme}&src=1&token=2,5&layer=2`,
        "fused",
        view === "compare" ? "balanced" : undefined,
      );
      if (view !== "run") await viewer.table();
      await check(view);
    }
    await page.keyboard.press("?");
    await check("help");
    await viewer.open(`theme=${theme}`);
    await check("empty");
    await viewer.open(`theme=${theme}&view=load&compare=1`, "fused", "hybrid");
    await check("comparison");
  });
}

test("every canvas and picture has a role and a name, and Tab reaches the picture, the options and the table", async ({
  viewer,
  page,
}) => {
  for (const view of ["overview", "traffic", "load", "buffers", "token", "timeline"]) {
    await viewer.open(`view=${view}`, "fused");
    for (const canvas of await page.locator("canvas").all()) {
      await expect(canvas).toHaveAttribute("role", "img");
      expect((await canvas.getAttribute("aria-label"))?.length).toBeGreaterThan(10);
    }
    await expect(viewer.stage).toHaveAttribute("role", "application");
    expect(await viewer.stage.getAttribute("aria-label")).toMatch(/layer 0/);
    await page.locator("nav button").last().focus();
    const reached = new Set<string>();
    for (let i = 0; i < 20; i++) {
      await page.keyboard.press("Tab");
      reached.add(
        await page.evaluate(() => document.activeElement?.className || document.activeElement?.tagName || ""),
      );
    }
    expect([...reached]).toContain("stage");
    expect([...reached]).toContain("SUMMARY");
  }
});

test("the cell cursor has a visible ring of the accent colour, also on a small cell", async ({ viewer, page }) => {
  await viewer.open("view=token", "fused");
  await viewer.stage.focus();
  await page.keyboard.press("ArrowRight");
  const ring = page.locator(".ring").first();
  await expect(ring).toBeVisible();
  const box = await ring.boundingBox();
  expect(Math.min(box?.width ?? 0, box?.height ?? 0)).toBeGreaterThanOrEqual(9);
  expect(await ring.evaluate((node) => getComputedStyle(node).borderTopColor)).toBe("rgb(179, 38, 30)");
});
