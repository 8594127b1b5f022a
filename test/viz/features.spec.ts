/** What a reader can do: select, move by keys, search, share, compare, save, and survive broken files. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "./support/viewer.ts";

test("a cell selects, chips list and remove, Escape clears", async ({ viewer, page }) => {
  await viewer.open("view=traffic&layer=2", "fused");
  // The picture's plot begins at (58, 92): a click well inside the first cell.
  await viewer.at(58 + 12, 92 + 12);
  await expect(page.locator(".status")).toContainText(/^From rank 0 to rank 0: \d+ rows/);
  await page.mouse.down();
  await page.mouse.up();
  await viewer.ready();
  const chips = page.locator(".chips button");
  await expect(chips).toHaveText(["from rank 0 ×", "to rank 0 ×"]);
  expect(page.url()).toContain("src=0");
  // Linked: the load view shows the same selection, and says how much of it there is.
  await page.keyboard.press("3");
  await viewer.ready();
  const selected = (await viewer.table()).reduce((sum, row) => sum + Number(row[4]), 0);
  expect(selected).toBeGreaterThan(0);
  await chips.first().click();
  await expect(chips).toHaveText(["to rank 0 ×"]);
  await page.keyboard.press("Escape");
  await expect(chips).toHaveCount(0);
});

test("dragging over bars and cells selects ranges", async ({ viewer, page }) => {
  await viewer.open("view=load&order=id", "fused");
  await viewer.at(58 + 5, 150);
  await page.mouse.down();
  await viewer.at(58 + 200, 150);
  await page.mouse.up();
  await viewer.ready();
  await expect(page.locator(".chips button")).toHaveText([/^expert 0-\d+ ×$/]);
  await viewer.open("view=token&token=1,3", "fused");
  await viewer.at(100, 45);
  await page.mouse.down();
  await viewer.at(300, 45);
  await page.mouse.up();
  await viewer.ready();
  await expect(page.locator(".chips button").first()).toHaveText(/^tokens \d+ to \d+ ×$/);
  await viewer.open("view=timeline", "fused");
  await viewer.at(200, 260);
  await page.mouse.down();
  await viewer.at(400, 260);
  await page.mouse.up();
  await viewer.ready();
  await expect(page.locator(".chips button")).toHaveText([/^time .* us to .* us ×$/]);
});

test("everything works from the keyboard, with exact numbers at the ring and announced", async ({ viewer, page }) => {
  await viewer.open("view=traffic", "fused");
  await viewer.stage.focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  const tip = page.locator(".tip:visible");
  await expect(tip).toContainText("From rank 2 to rank 1: ");
  await expect(page.locator("[aria-live]").first()).toBeAttached();
  const value = Number(/: ([\d,]+) rows/.exec((await tip.textContent()) ?? "")?.[1].replace(",", ""));
  expect((await viewer.table()).find(([s, d]) => s === 2 && d === 1)?.[2]).toBe(value);
  await viewer.stage.focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("End");
  await page.keyboard.press("Enter");
  await viewer.ready();
  await expect(page.locator(".chips button")).toHaveText(["from rank 2 ×", "to rank 15 ×"]);
  await page.keyboard.press("PageDown");
  await expect(page.locator(".status")).toContainText(/received/);
  await page.keyboard.press("Escape");
  await page.keyboard.press("+");
  await viewer.ready();
  await expect(page.locator(".chips button")).toHaveText(["zoomed ×"]);
  await page.keyboard.press("0");
  await expect(page.locator(".chips button")).toHaveCount(0);
  for (const [key, title] of [
    ["1", "Overview"],
    ["4", "Buffers"],
    ["6", "Timeline"],
    ["8", "Run"],
    ["5", "Token"],
  ]) {
    await page.keyboard.press(key);
    await expect(page.locator("h1")).toHaveText(title);
  }
  await page.keyboard.press("n");
  await viewer.ready();
  await page.keyboard.press("n");
  await viewer.ready();
  await expect(page.locator("#description")).toContainText("Token 1 of");
  await page.keyboard.press("]");
  await expect(page.getByRole("spinbutton", { name: "Layer number" })).toHaveValue("1");
  await page.keyboard.press("?");
  await expect(page.getByRole("dialog")).toContainText("zoom in, out, all");
  await page.keyboard.press("Escape");
  await expect(page.getByRole("dialog")).toBeHidden();
});

test("search goes to ranks, experts, tokens and layers, and says when nothing matches", async ({ viewer, page }) => {
  await viewer.open("", "fused");
  await page.keyboard.press("/");
  await page.keyboard.type("e17");
  await expect(page.locator(".hits li")).toHaveText(["expert 17 on rank 4: select"]);
  await page.keyboard.press("Enter");
  await expect(page.locator("h1")).toHaveText("Load");
  await expect(page.locator(".chips button")).toHaveText(["expert 17 ×"]);
  await page.keyboard.press("/");
  await page.keyboard.type("rank 99");
  await expect(page.locator(".hits li")).toHaveText(["0 matched"]);
  await page.keyboard.press("Escape");
  await page.keyboard.press("/");
  await page.keyboard.type("rank 3 token 9");
  await page.keyboard.press("Enter");
  await expect(page.locator("#description")).toContainText("Token 9 of 104 on rank 3");
});

test("the address holds the whole state: reload, back", async ({ viewer, page }) => {
  await viewer.open(
    "view=traffic&layer=5&step=1&src=2-4&metric=bytes&transpose=1&theme=dark&zoom=0.25,0.25,0.75,0.75",
    "fused",
  );
  const before = [await page.locator("#description").textContent(), await page.locator(".chips").textContent()];
  await page.reload();
  await viewer.ready();
  expect([await page.locator("#description").textContent(), await page.locator(".chips").textContent()]).toEqual(
    before,
  );
  await expect(page.locator("html")).toHaveAttribute("data-theme", "dark");
  await page.getByLabel("Metric").selectOption("slots");
  expect(page.url()).toContain("metric=slots");
  await page.keyboard.press("Escape");
  await page.locator("nav button", { hasText: "Buffers" }).click();
  await expect(page.locator("h1")).toHaveText("Buffers");
  await page.goBack();
  await expect(page.locator("h1")).toHaveText("Traffic");
});

test("wheel zooms around the pointer and Shift+drag moves", async ({ viewer, page }) => {
  await viewer.open("view=buffers", "fused");
  await viewer.at(400, 80);
  await page.mouse.wheel(0, -1200);
  await viewer.ready();
  await expect(page.locator(".chips button")).toHaveText(["zoomed ×"]);
  const zoomed = page.url();
  await page.keyboard.down("Shift");
  await page.mouse.down();
  await viewer.at(300, 80);
  await page.mouse.up();
  await page.keyboard.up("Shift");
  await viewer.ready();
  expect(page.url()).not.toBe(zoomed);
});

test("clicking a buffer row inspects the token in it", async ({ viewer, page }) => {
  await viewer.open("view=buffers&layer=1", "hybrid");
  await viewer.at(80, 44);
  const tip = (await page.locator(".status").textContent()) ?? "";
  const [, token, rank] = /token ([\d,]+) of rank (\d+)/.exec(tip) ?? [];
  expect(token).toBeDefined();
  await page.mouse.down();
  await page.mouse.up();
  await viewer.ready();
  await expect(page.locator("#description")).toContainText(`Token ${token} of`);
  await expect(page.locator("#description")).toContainText(`on rank ${rank}`);
});

test("a file is dropped; a broken one keeps the old and says where and why", async ({ viewer, page, folder }) => {
  await viewer.open("view=load", "fused");
  const before = await page.locator("#description").textContent();
  const drop = async (name: string, bytes: Buffer, shift = false) => {
    const data = await page.evaluateHandle(
      ([label, content]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], label));
        return transfer;
      },
      [name, bytes.toString("base64")],
    );
    await page.dispatchEvent("body", "drop", { dataTransfer: data, shiftKey: shift });
    await viewer.ready();
  };
  const whole = await readFile(join(folder, "hybrid.safetensors"));
  await drop("cut.safetensors", whole.subarray(0, 5000));
  const alert = page.getByRole("alert");
  await expect(alert).toContainText(/cut\.safetensors, offset \d+/);
  await expect(alert).toContainText("stays open");
  expect(await page.locator("#description").textContent()).toBe(before);
  await alert.getByRole("button", { name: "Dismiss" }).click();
  await expect(alert).toHaveCount(0);
  const newer = Buffer.from(whole.toString("latin1").replace('"version":"1"', '"version":"7"'), "latin1");
  await drop("newer.safetensors", newer);
  await expect(alert).toContainText("version: expected 1, received 7");
  await drop("hybrid.safetensors", whole);
  await expect(alert).toHaveCount(0);
  await expect(page.locator("header .files")).toContainText("hybrid.safetensors");
  await drop("fused.safetensors", await readFile(join(folder, "fused.safetensors")), true);
  await expect(page.locator("header .files")).toContainText("B: fused.safetensors");
  await expect(page.locator(".stage")).toHaveCount(3);
});

test("reading shows progress and can be cancelled; what was open stays", async ({ viewer, page }) => {
  await viewer.open("view=load", "fused");
  let release: () => void = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  await page.route("**/data/1/**", async (route) => {
    await held;
    await route.continue().catch(() => {});
  });
  await page.evaluate(() => {
    location.hash = "#view=load&url=./data/1/hybrid.safetensors";
  });
  await expect(page.getByRole("progressbar")).toBeVisible();
  await page.getByRole("button", { name: "Cancel" }).click();
  release();
  await viewer.ready();
  await expect(page.getByRole("progressbar")).toHaveCount(0);
  await expect(page.getByRole("alert")).toHaveCount(0);
  await expect(page.locator("header .files")).toHaveText("fused.safetensors");
  // Asked for again, it opens.
  await page.evaluate(() => {
    location.hash = "#view=load&layer=1&url=./data/1/hybrid.safetensors";
  });
  await expect(page.locator("header .files")).toHaveText("hybrid.safetensors");
});

test("an empty page offers samples; no file, no crash", async ({ viewer, page }) => {
  await viewer.open("view=token");
  await expect(page.locator(".empty")).toContainText("Drop a trace");
  await page.getByRole("button", { name: /Sample: 16 ranks/ }).click();
  await viewer.ready();
  await expect(page.locator("#description")).toContainText("Token 0 of");
  await page.keyboard.press("7");
  await page.getByRole("button", { name: "Use a sample as B" }).click();
  await viewer.ready();
  await expect(page.locator("#description")).toContainText("slots per expert");
  expect(page.url()).toMatch(/sample=fused.*sample2=balanced/);
});

test("compared files share scales and the cursor", async ({ viewer, page }) => {
  await viewer.open("view=traffic&compare=1&layer=3", "fused", "balanced");
  await viewer.at(58 + 8, 92 + 8);
  const tip = page.locator(".tip:visible");
  await expect(tip).toContainText(/From rank 0 to rank 0: .*\nB: From rank 0 to rank 0: /s);
  await page.keyboard.press("c");
  await expect(page.locator(".stage")).toHaveCount(1);
});

test("pictures and tables are saved with title, axes and legend", async ({ viewer, page, folder }) => {
  await viewer.open("view=traffic&layer=1", "fused");
  const save = async (button: string) => {
    const waiting = page.waitForEvent("download");
    await page.getByRole("button", { name: button }).click();
    const path = join(folder, (await waiting).suggestedFilename());
    await (await waiting).saveAs(path);
    return readFile(path);
  };
  const svg = (await save("Save SVG")).toString();
  for (const part of ["<title>Traffic: fused.safetensors, layer 1", "to rank (columns)", "rows per cell", "<desc>"])
    expect(svg).toContain(part);
  const png = await save("Save PNG");
  expect(png.subarray(1, 4).toString()).toBe("PNG");
  expect(png.length).toBeGreaterThan(10_000);
  const csv = (await save("Save CSV")).toString().trim().split("\r\n");
  expect(csv[0]).toBe("from rank,to rank,rows");
  expect(csv).toHaveLength(1 + 16 * 16);
});

test("a routing file is laid on ranks, and may be laid anew", async ({ viewer, page, folder }) => {
  const { safetensorsBytes } = await import("../../core/io/safetensors/index.ts");
  const { tensor } = await import("../../core/tensor.ts");
  const ids = tensor(
    "i32",
    [3, 64, 2],
    Int32Array.from({ length: 384 }, (_, i) => (i * 7) % 16),
  );
  const path = join(folder, "routing.safetensors");
  await writeFile(path, await safetensorsBytes({}, [{ name: "topk_idx", tensor: ids }]));
  await viewer.open("view=traffic");
  const chooser = page.waitForEvent("filechooser");
  await page.getByRole("button", { name: "Open a file" }).click();
  await (await chooser).setFiles(path);
  await viewer.ready();
  await expect(page.locator("#description")).toContainText("from 8 source to 8 destination ranks");
  await page.getByRole("spinbutton", { name: "Ranks" }).fill("4");
  await page.getByRole("spinbutton", { name: "Ranks" }).press("Enter");
  await viewer.ready();
  await expect(page.locator("#description")).toContainText("from 4 source to 4 destination ranks");
  expect(page.url()).toContain("place=4");
  // What the file does not have is disabled with the reason, not hidden.
  await expect(page.getByRole("option", { name: "waiting time (no wait times in this file)" })).toBeDisabled();
});

for (const [backend, style] of [
  ["wasm", "fused"],
  ["webgpu", "hybrid-ep"],
] as const) {
  test(`run on ${backend}: equals the oracle, opens in the views`, async ({ viewer, page }) => {
    await viewer.open("view=run");
    await page.getByLabel("Backend").selectOption(backend);
    await page.getByLabel("Style").selectOption(style);
    await page.getByLabel("Tokens per rank").fill("16");
    await page.getByRole("button", { name: "Run", exact: true }).last().click();
    const verdict = page.locator(".verdict");
    await expect(verdict).toContainText(`${backend} equals the oracle bit for bit in all`, { timeout: 30_000 });
    const rows = await page.locator("tbody tr").count();
    expect(rows).toBeGreaterThanOrEqual(6);
    await page.getByRole("button", { name: "Open in the views" }).click();
    await viewer.ready();
    await expect(page.locator("#description")).toContainText("8 ranks in 2 node(s), 32 experts, top-4");
  });
}
