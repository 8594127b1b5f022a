import { expect, it } from "vitest";
import { createWebGpuBackend } from "../../backends/webgpu/index.ts";
import { runOnce } from "./lifetime.ts";

it("20 runs on one backend hold no more memory than the first few", async () => {
  const backend = await createWebGpuBackend();
  for (let i = 0; i < 5; i++) await runOnce(backend, i);
  const held = backend.heldBytes();
  for (let i = 5; i < 20; i++) await runOnce(backend, i);
  expect(backend.heldBytes()).toBe(held);
  await backend.close();
});

it("operations of one group may be called without waiting for each other", async () => {
  const backend = await createWebGpuBackend();
  await Promise.all(Array.from({ length: 8 }, (_, i) => runOnce(backend, i)));
  await backend.close();
});

it("backends may be opened and closed one after another and side by side", async () => {
  for (let i = 0; i < 3; i++) {
    const [a, b] = await Promise.all([createWebGpuBackend(), createWebGpuBackend()]);
    await Promise.all([runOnce(a, i), runOnce(b, i + 1)]);
    await a.close();
    await runOnce(b, i + 2);
    await b.close();
  }
});
