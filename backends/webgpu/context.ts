import type { Device } from "./device.ts";
import type { Launcher } from "./launcher.ts";
import type { BufferPool } from "./pool.ts";

/** What every operation works with. */
export interface Context {
  readonly device: Device;
  readonly pool: BufferPool;
  readonly launcher: Launcher;
}

/** Buffers of one operation: all go back to the pool when it ends, however it ends. */
export class Lease {
  readonly #pool: BufferPool;
  readonly #buffers: GPUBuffer[] = [];

  constructor(pool: BufferPool) {
    this.#pool = pool;
  }

  async acquire(label: string, bytes: number, usage: GPUBufferUsageFlags): Promise<GPUBuffer> {
    const buffer = await this.#pool.acquire(label, bytes, usage);
    this.#buffers.push(buffer);
    return buffer;
  }

  release(): void {
    for (const buffer of this.#buffers.splice(0)) this.#pool.release(buffer);
  }
}
