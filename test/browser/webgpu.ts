/** The page behind test/webgpu/browser.test.ts: conformance and digests on navigator.gpu. */
import { createWebGpuBackend, describeAdapters } from "../../backends/webgpu/browser.ts";
import { CONFORMANCE_TESTS } from "../conformance/suite.ts";
import { digests } from "../webgpu/digests.ts";

export interface PageResult {
  readonly adapter: string;
  readonly numTests: number;
  /** "name: message" of each test that failed. */
  readonly failures: readonly string[];
  readonly digests: readonly string[];
  readonly uncaught: readonly string[];
}

declare global {
  var runWebGpuTests: (names: readonly string[] | null, numSeeds: number) => Promise<PageResult>;
}

globalThis.runWebGpuTests = async (names, numSeeds) => {
  const uncaught: string[] = [];
  const backend = await createWebGpuBackend({ onUncapturedError: (message) => uncaught.push(message) });
  const failures: string[] = [];
  const tests = CONFORMANCE_TESTS.filter(({ name }) => names === null || names.some((part) => name.endsWith(part)));
  for (const { name, run } of tests) {
    try {
      await run(backend);
    } catch (error) {
      failures.push(`${name}: ${(error as Error).message}`);
    }
  }
  const found = await digests(backend, numSeeds);
  await backend.close();
  const adapter = (await describeAdapters()).attempts.map(({ reason }) => reason).join("; ");
  return { adapter, numTests: tests.length, failures, digests: found, uncaught };
};
