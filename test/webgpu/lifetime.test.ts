import { expect, it } from "vitest";
import { createWebGpuBackend } from "../../backends/webgpu/index.ts";
import { EventOverlap } from "../../core/event.ts";
import { tensor } from "../../core/tensor.ts";
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

it("operations run in the order of the calls, after the event they wait for", async () => {
  const backend = await createWebGpuBackend();
  const group = await backend.createGroup({ numRanks: 1 });
  const x = [tensor("bf16", [300, 256])];
  const routing = { topkIdx: [tensor("i32", [300, 1])], topkWeights: null };
  const settings = { numExperts: 1, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null };
  const done: string[] = [];
  const before = new Promise<void>((resolve) => {
    setTimeout(() => {
      done.push("event");
      resolve();
    }, 20);
  });
  const request = { kind: "fused", x, scales: null, routing, settings } as const;
  await Promise.all([
    group.dispatch({ ...request, previousEvent: new EventOverlap(before) }).then(() => done.push("dispatch")),
    group.castToFp8([tensor("bf16", [1, 8])]).then(() => done.push("cast")),
    group.layout(routing, 1).then(() => done.push("layout")),
  ]);
  expect(done).toEqual(["event", "dispatch", "cast", "layout"]);
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
