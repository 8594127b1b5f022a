import { describe, expect, it } from "vitest";
import { findAdapter } from "../../backends/webgpu/adapters/finder.ts";
import { openBackend } from "../../backends/webgpu/backend.ts";
import { asFailure } from "../../backends/webgpu/device.ts";
import { createWebGpuBackend } from "../../backends/webgpu/index.ts";
import { GPUUsage } from "../../backends/webgpu/launcher.ts";
import { BackendFailure, InvalidArgument, OutOfMemory } from "../../core/errors.ts";
import { tensor } from "../../core/tensor.ts";

const settings = { numExperts: 2, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null };
const rows = [tensor("bf16", [3, 8]), tensor("bf16", [0, 8])];
const routing = {
  topkIdx: [tensor("i32", [3, 1], Int32Array.of(0, 1, -1)), tensor("i32", [0, 1])],
  topkWeights: null,
};
const request = { kind: "fused", x: rows, scales: null, routing, settings } as const;

describe("errors of the device", () => {
  it("a lost device fails the operation and every later one, by name", async () => {
    const backend = await createWebGpuBackend();
    const group = await backend.createGroup({ numRanks: 2 });
    await group.dispatch(request);
    backend.context.device.gpu.destroy();
    const error = await group.dispatch(request).catch((reason) => reason);
    expect(error).toBeInstanceOf(BackendFailure);
    expect(error.message).toMatch(/lost|destroyed/);
    const later = await group.dispatch(request).catch((reason) => reason);
    expect(later).toBeInstanceOf(BackendFailure);
    expect(later.message).toMatch(/lost .*create a new backend/);
    await backend.close();
  });

  it("a kernel that does not compile is named, and the backend stays usable", async () => {
    const { adapter, report } = await findAdapter();
    const { readFileSync } = await import("node:fs");
    let broken = true;
    const text = (name: string) => {
      if (name === "scale" && broken) return "fn main( {";
      return readFileSync(new URL(`../../backends/webgpu/kernels/${name}.wgsl`, import.meta.url), "utf8");
    };
    const uncaught: string[] = [];
    const backend = await openBackend(adapter, report, text, {
      onUncapturedError: (message) => uncaught.push(message),
    });
    const group = await backend.createGroup({ numRanks: 2 });
    const factors = [tensor("fp32", [3]), tensor("fp32", [0])];
    const error = await group.scaleRows(rows, factors).catch((reason) => reason);
    expect(error).toBeInstanceOf(BackendFailure);
    expect(error.message).toMatch(/^webgpu kernel scale: /);
    broken = false;
    expect((await group.scaleRows(rows, factors)).length).toBe(2);
    expect((await group.dispatch(request)).x.length).toBe(2);
    expect(uncaught).toEqual([]);
    await backend.close();
  });

  it("a validation error inside a guard names its work; an unguarded one fails the next operation", async () => {
    const uncaught: string[] = [];
    const backend = await createWebGpuBackend({ onUncapturedError: (message) => uncaught.push(message) });
    const { device } = backend.context;
    const group = await backend.createGroup({ numRanks: 2 });
    const bad = () => device.gpu.createBuffer({ size: 16, usage: GPUUsage.MAP_READ | GPUUsage.STORAGE });
    await expect(device.guard("webgpu kernel example", bad).checked).rejects.toThrow(/^webgpu kernel example: /);
    expect(uncaught).toEqual([]);
    await group.dispatch(request);
    bad();
    await device.gpu.queue.onSubmittedWorkDone();
    expect(uncaught.length).toBe(1);
    await expect(group.dispatch(request)).rejects.toBeInstanceOf(BackendFailure);
    await backend.close();
  });

  it("an allocation that fails is an OutOfMemory that says what lowers it", async () => {
    class GPUOutOfMemoryError {
      readonly message = "Failed to allocate";
    }
    const error = asFailure("webgpu buffer rows", new GPUOutOfMemoryError());
    expect(error).toBeInstanceOf(OutOfMemory);
    expect(error.message).toContain("memoryBudgetBytes");
    const backend = await createWebGpuBackend();
    const group = await backend.createGroup({ numRanks: 2 });
    await expect(group.allocateBuffer(2 ** 52)).rejects.toBeInstanceOf(OutOfMemory);
    const memory = await group.allocateBuffer(1000);
    expect(memory.bytes).toBe(1000);
    memory.free();
    await backend.close();
  });

  it("a closed backend says so", async () => {
    const backend = await createWebGpuBackend();
    const group = await backend.createGroup({ numRanks: 2 });
    await backend.close();
    await expect(group.dispatch(request)).rejects.toThrow(/^group: expected an open group, received a closed one/);
    await expect(backend.createGroup({ numRanks: 2 })).rejects.toThrow(/closed; create a new backend/);
  });

  it("bad options are refused before a device is asked for", async () => {
    await expect(createWebGpuBackend({ memoryBudgetBytes: 5 })).rejects.toBeInstanceOf(InvalidArgument);
    await expect(createWebGpuBackend({ workgroupSize: 3 })).rejects.toThrow(/power of two/);
  });

  it("a rejected request leaves the group usable", async () => {
    const backend = await createWebGpuBackend();
    const group = await backend.createGroup({ numRanks: 2 });
    const bad = { ...routing, topkIdx: [tensor("i32", [3, 1], Int32Array.of(0, 9, -1)), tensor("i32", [0, 1])] };
    await expect(group.dispatch({ ...request, routing: bad })).rejects.toThrow(/rank 0, token 1, slot 0/);
    expect((await group.dispatch(request)).x[0].shape).toEqual([1, 8]);
    await backend.close();
  });
});
