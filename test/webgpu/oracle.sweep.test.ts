import { afterAll, beforeAll, expect, it } from "vitest";
import { createWebGpuBackend, type WebGpuBackend } from "../../backends/webgpu/index.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import { compareBackends } from "./compare.ts";

const oracle = createOracleBackend();
const uncaught: string[] = [];
let backend: WebGpuBackend;

beforeAll(async () => {
  backend = await createWebGpuBackend({ onUncapturedError: (message) => uncaught.push(message) });
});
afterAll(async () => {
  await backend.close();
  expect(uncaught).toEqual([]);
});

it.each(Array.from({ length: 20 }, (_, i) => i))("equals the oracle over random bits, block %i", async (block) => {
  for (let seed = 0; seed < 15; seed++) {
    await compareBackends(10_000 + block * 15 + seed, backend, oracle, seed % 2 ? "fused" : "hybrid-ep");
  }
});
