import { describe, expect, it } from "vitest";
import { createWebGpuBackend } from "../../backends/webgpu/index.ts";
import { findChromium } from "../browser/chromium.ts";
import { withPage } from "../browser/page.ts";
import { digests } from "./digests.ts";

const NUM_SEEDS = 100;
const executable = findChromium();

describe.skipIf(executable === null)("webgpu in headless Chromium", () => {
  it("passes the whole conformance suite and gives the same bytes as in Node", async () => {
    const result = await withPage(executable as string, "test/browser/webgpu.html", (page) =>
      page.evaluate((seeds) => globalThis.runWebGpuTests(null, seeds), NUM_SEEDS),
    );
    expect(result.failures).toEqual([]);
    expect(result.uncaught).toEqual([]);
    const backend = await createWebGpuBackend();
    expect(result.digests).toEqual(await digests(backend, NUM_SEEDS));
    await backend.close();
  });
});
