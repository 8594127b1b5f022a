/** Slabs: placing, recycling, limits. Pages that are not touched cost nothing, so sizes past 4 GiB are cheap to place. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, test } from "vitest";
import { createWasmBackend } from "../../backends/wasm/index.ts";
import { type SlabOptions, SlabPool } from "../../backends/wasm/slabs.ts";
import { OutOfMemory } from "../../core/errors.ts";
import { bytesOf, numElements } from "../../core/tensor.ts";

const GIB = 2 ** 30;

function pool(options: Partial<SlabOptions> = {}) {
  const known = new Set<number>();
  const slabs = new SlabPool({
    numLanes: 3,
    maxBytes: Number.POSITIVE_INFINITY,
    onAdd: ({ id }) => known.add(id),
    onDrop: (id) => known.delete(id),
    ...options,
  });
  return { slabs, known };
}

/** Runs the collector; a WeakRef holds its target until the current job is over. */
async function collectGarbage(): Promise<void> {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc") as () => void;
  for (let i = 0; i < 4; i++) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    gc();
  }
}

describe("slabs", () => {
  test("what fits lies side by side, 64-byte aligned; what does not goes on in another slab", () => {
    const { slabs } = pool();
    const [a, b, c] = slabs.place([3, 3 * GIB, 2 * GIB]);
    expect(b.slab).toBe(a.slab);
    expect(b.offset).toBe(a.offset + 64);
    expect(c.slab).not.toBe(a.slab);
    expect(slabs.ownerOf(c.buffer)).toBe(c.slab);
    expect(() => slabs.place([slabs.maxArrayBytes])).not.toThrow();
  });

  test("a slab is taken while a view of it lives, and recycled afterwards", async () => {
    const { slabs, known } = pool();
    const kept = new Uint8Array(slabs.place([1000])[0].buffer);
    (() => new Uint8Array(slabs.place([5000])[0].buffer))();
    expect(known.size).toBe(2);
    await collectGarbage();
    const [again] = slabs.place([4000]);
    const [third] = slabs.place([4000]);
    expect(known.size).toBe(3);
    expect(again.slab).not.toBe(slabs.ownerOf(kept.buffer));
    expect(third.slab).not.toBe(again.slab);
  });

  test("a free slab grows when more is asked for", () => {
    const { slabs, known } = pool();
    const [small] = slabs.place([1000]);
    slabs.release(small);
    const [large] = slabs.place([5 << 20]);
    expect(large.slab).toBe(small.slab);
    expect(large.buffer.byteLength).toBeGreaterThan(large.offset + (5 << 20));
    expect(known.size).toBe(1);
  });

  test("the limit drops free slabs first, then is an OutOfMemory with the remedy", () => {
    const { slabs, known } = pool({ maxBytes: 1.25 * GIB });
    const placed = [slabs.place([GIB / 2])[0], slabs.place([GIB / 4])[0]];
    for (const placement of placed) slabs.release(placement);
    slabs.place([GIB]);
    expect(known.size).toBe(1);
    expect(() => slabs.place([GIB])).toThrow(OutOfMemory);
    expect(() => slabs.place([GIB])).toThrow(/maxMemoryBytes 1280 MiB.*raise maxMemoryBytes/);
  });
});

test("allocate: tensors of the asked shapes in one shared buffer, or ordinary ones without workers", async () => {
  const specs = [
    { dtype: "bf16", shape: [5, 7] },
    { dtype: "i64", shape: [3] },
    { dtype: "fp32", shape: [0, 9] },
  ] as const;
  for (const workers of [0, 2]) {
    const backend = await createWasmBackend({ workers });
    const tensors = backend.allocate(specs);
    tensors.forEach(({ dtype, shape, data }, i) => {
      expect({ dtype, shape }).toEqual(specs[i]);
      expect(data.length).toBe(numElements(shape));
    });
    expect(tensors[0].data.buffer).toBeInstanceOf(workers > 0 ? SharedArrayBuffer : ArrayBuffer);
    for (const value of tensors) bytesOf(value).fill(tensors.indexOf(value) + 1);
    expect(bytesOf(tensors[0]).every((byte) => byte === 1)).toBe(true);
    await backend.close();
  }
});

test("options out of range are refused by name", async () => {
  await expect(createWasmBackend({ workers: -1 })).rejects.toThrow(/workers: expected a whole number of 0..256/);
  await expect(createWasmBackend({ maxMemoryBytes: 0 })).rejects.toThrow(/maxMemoryBytes: expected more than 0/);
});
