import { describe, expect, it } from "vitest";
import { createWebGpuBackend } from "../../backends/webgpu/index.ts";
import { findChromium } from "../browser/chromium.ts";
import { withPage } from "../browser/page.ts";
import type { PageResult } from "../browser/webgpu.ts";
import { digests } from "./digests.ts";

const NUM_SEEDS = 10;
/** The shapes of the conformance core; the sweep runs all of them. */
const CORE = [
  ": control",
  ": eight ranks, 32 experts, top-8",
  ": uneven and empty ranks",
  ": hidden 7",
  ": fp16",
  ": fp32",
  ": fp8 rows with scales",
  ": all bit patterns, bf16",
  ": two nodes of two",
  ": alignment and padding 4",
];
const executable = findChromium();
const reason = executable === null ? " (skipped: no Chromium; set CHROMIUM to one)" : "";

describe.skipIf(executable === null)(`webgpu in headless Chromium${reason}`, () => {
  it("passes the conformance core and gives the same bytes as in Node", async () => {
    const result: PageResult = await withPage(executable as string, "test/browser/webgpu.html", (page) =>
      page.evaluate(([names, seeds]) => globalThis.runWebGpuTests(names, seeds), [CORE, NUM_SEEDS] as const),
    );
    expect(result.failures).toEqual([]);
    expect(result.uncaught).toEqual([]);
    expect(result.numTests).toBeGreaterThanOrEqual(CORE.length * 3);
    const backend = await createWebGpuBackend();
    expect(result.digests).toEqual(await digests(backend, NUM_SEEDS));
    await backend.close();
  });
});
