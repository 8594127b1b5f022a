/** Buffers that are kept: creating one touches its memory (about 1 s per GiB on a software adapter). */
import type { Device } from "./device.ts";

const LEAST_BYTES = 256;

export class BufferPool {
  readonly #device: Device;
  readonly #free = new Map<GPUBufferUsageFlags, GPUBuffer[]>();
  #heldBytes = 0;
  #freeBytes = 0;

  constructor(device: Device) {
    this.#device = device;
  }

  /** Bytes of all buffers that exist, in use or kept. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** A buffer of at least `bytes` with arbitrary contents; `release` it afterwards. Rejects with OutOfMemory. */
  async acquire(label: string, bytes: number, usage: GPUBufferUsageFlags): Promise<GPUBuffer> {
    const size = roundSize(bytes, this.#device.maxBufferBytes);
    const kept = this.#free.get(usage) ?? [];
    // The smallest that fits, unless it is so large that taking it would starve a larger request.
    let best = -1;
    kept.forEach((buffer, i) => {
      const fits = buffer.size >= size && buffer.size <= 4 * size;
      if (fits && (best < 0 || buffer.size < kept[best].size)) best = i;
    });
    if (best >= 0) {
      const [buffer] = kept.splice(best, 1);
      this.#freeBytes -= buffer.size;
      return buffer;
    }
    if (this.#heldBytes + size > this.#device.memoryBudgetBytes) await this.#trim(size);
    const { value, checked } = this.#device.guard(`webgpu buffer ${label} of ${size} bytes`, () =>
      this.#device.gpu.createBuffer({ label, size, usage }),
    );
    await checked;
    this.#heldBytes += size;
    return value;
  }

  release(buffer: GPUBuffer): void {
    const kept = this.#free.get(buffer.usage) ?? [];
    kept.push(buffer);
    this.#free.set(buffer.usage, kept);
    this.#freeBytes += buffer.size;
  }

  /** Destroys a buffer that must not be used again (its mapping failed, say). */
  discard(buffer: GPUBuffer): void {
    this.#heldBytes -= buffer.size;
    buffer.destroy();
  }

  /** Destroys kept buffers until `bytes` more fit into the budget, or none is left. */
  async #trim(bytes: number): Promise<void> {
    if (this.#freeBytes === 0) return;
    for (const kept of this.#free.values()) {
      while (kept.length > 0 && this.#heldBytes + bytes > this.#device.memoryBudgetBytes) {
        const buffer = kept.pop() as GPUBuffer;
        this.#freeBytes -= buffer.size;
        this.discard(buffer);
      }
    }
    // Destroyed memory is given back by the next submit, not before.
    const { gpu } = this.#device;
    gpu.queue.submit([gpu.createCommandEncoder().finish()]);
    await gpu.queue.onSubmittedWorkDone();
  }
}

/** Few distinct sizes, so that buffers of one operation fit the next: 1/8 steps between powers of two. */
function roundSize(bytes: number, most: number): number {
  if (bytes <= LEAST_BYTES) return LEAST_BYTES;
  const step = Math.max(LEAST_BYTES, 2 ** (Math.floor(Math.log2(bytes)) - 3));
  return Math.max(Math.min(Math.ceil(bytes / step) * step, most), Math.ceil(bytes / LEAST_BYTES) * LEAST_BYTES);
}
