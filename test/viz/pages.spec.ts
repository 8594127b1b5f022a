/** The builds themselves: one file from file://, how large the scripts are, nothing fetched from elsewhere, embedding. */
import { readdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { expect, test } from "playwright/test";

const dist = fileURLToPath(new URL("../../dist/", import.meta.url));
const LIMIT = 100 * 1024;

test("the single file opens from file:// with a sample, and asks for nothing", async ({ page }) => {
  const requests: string[] = [];
  const errors: string[] = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("pageerror", (error) => errors.push(error.message));
  const url = `file://${dist}viewer-single/viewer.html`;
  await page.goto(`${url}#sample=fused&view=traffic`);
  await expect(page.locator("#description")).toContainText("rows from 16 source to 16 destination ranks");
  await page.keyboard.press("8");
  await page.getByLabel("Backend").selectOption("wasm");
  await page.getByLabel("Tokens per rank").fill("8");
  await page.locator("form.run button").click();
  await expect(page.locator(".verdict")).toContainText("wasm equals the oracle bit for bit", { timeout: 30_000 });
  expect(requests.filter((address) => !address.startsWith("data:") && !address.startsWith("blob:"))).toEqual([url]);
  expect(errors).toEqual([]);
});

test("all scripts of the page together, but for the sample, are at most 100 KiB gzipped", async () => {
  const folder = `${dist}viewer/assets/`;
  let total = 0;
  for (const name of await readdir(folder))
    if (name.endsWith(".js") && !name.startsWith("sample-"))
      total += gzipSync(await readFile(folder + name), { level: 9 }).length;
  expect(total).toBeGreaterThan(20_000);
  expect(total).toBeLessThanOrEqual(LIMIT);
});

test("an embedding page opens a file by message, others cannot", async ({ page }) => {
  const html = await readFile(`${dist}viewer-single/viewer.html`, "utf8");
  await page.route("http://embedding.test/**", (route) => {
    const body = route.request().url().endsWith("/viewer")
      ? html
      : '<iframe src="/viewer" width="900" height="600"></iframe>';
    return route.fulfill({ contentType: "text/html", body });
  });
  await page.goto("http://embedding.test/");
  const frame = page.frameLocator("iframe");
  await expect(frame.locator(".empty")).toBeVisible();
  const answer = await page.evaluate(
    () =>
      new Promise((resolve) => {
        window.addEventListener("message", (event) => resolve(event.data));
        document.querySelector("iframe")?.contentWindow?.postMessage("PING", "*");
      }),
  );
  expect(answer).toBe("PONG");
  const { sampleTrace } = await import("../../viz/model/sample.ts");
  const bytes = Buffer.from(await sampleTrace("fused")).toString("base64");
  await page.evaluate((content) => {
    const open = Uint8Array.from(atob(content), (c) => c.charCodeAt(0)).buffer;
    document.querySelector("iframe")?.contentWindow?.postMessage({ open, name: "embedded.safetensors" }, "*");
  }, bytes);
  await expect(frame.locator("header .files")).toHaveText("embedded.safetensors");
  // A message the frame sends to itself comes from nobody it trusts.
  await page.frames()[1].evaluate(() => window.postMessage({ open: new ArrayBuffer(9), name: "own" }, "*"));
  await expect(frame.getByRole("alert")).toHaveCount(0);
});
