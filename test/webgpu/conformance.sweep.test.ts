import { afterAll, describe, test } from "vitest";
import { createWebGpuBackend, type NodeWebGpuOptions } from "../../backends/webgpu/index.ts";
import { Unavailable } from "../../core/errors.ts";
import { CONFORMANCE_TESTS } from "../conformance/suite.ts";

/** The whole suite on every source of adapters, and with buffers so small that every operation is done in chunks. */
const VARIANTS: readonly [string, NodeWebGpuOptions][] = [
  ["buffers of 4 KiB", { maxBufferBytes: 4096, memoryBudgetBytes: 2 ** 20 }],
  ["adapter of an installed browser", { adapter: "chromium" }],
  ["adapter of an npm package", { adapter: "npm" }],
  ["workgroups of 64", { workgroupSize: 64 }],
];

for (const [name, options] of VARIANTS) {
  const uncaught: string[] = [];
  const opened = await createWebGpuBackend({
    ...options,
    onUncapturedError: (message) => uncaught.push(message),
  }).catch((error: Error) => {
    if (error instanceof Unavailable) return error.message;
    throw error;
  });
  const reason = typeof opened === "string" ? ` (skipped: ${opened})` : "";
  describe.skipIf(typeof opened === "string")(`conformance of webgpu with ${name}${reason}`, () => {
    if (typeof opened === "string") return;
    afterAll(async () => {
      await opened.close();
      if (uncaught.length > 0) throw new Error(`uncaptured errors: ${uncaught.join("; ")}`);
    });
    test.each(CONFORMANCE_TESTS)("$name", ({ run }) => run(opened));
  });
}
