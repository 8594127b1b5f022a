/** Results on their way from the device to the host: while one chunk is looked at, the next is being computed. */
import type { Context } from "./context.ts";
import { GPUUsage } from "./launcher.ts";

/** Chunks under way at a time: one computed, one read. */
const DEPTH = 2;

interface Pending {
  readonly staging: GPUBuffer;
  readonly bytes: number;
  readonly ready: Promise<void>;
  readonly consume: (bytes: Uint8Array) => void;
}

export class ReadStream {
  readonly #context: Context;
  readonly #pending: Pending[] = [];

  constructor(context: Context) {
    this.#context = context;
  }

  /**
   * Has `submit` fill the first `bytes` of a staging buffer by commands it submits (returning the checks of their error
   * scopes), and later shows them to `consume`, in the order of the calls. `what` names the kernel in errors.
   */
  async push(
    what: string,
    bytes: number,
    submit: (staging: GPUBuffer) => Promise<void> | Promise<Promise<void>[]>,
    consume: (bytes: Uint8Array) => void,
  ): Promise<void> {
    while (this.#pending.length >= DEPTH) await this.#drainOne();
    const { pool, device } = this.#context;
    const staging = await pool.acquire("staging", bytes, GPUUsage.MAP_READ | GPUUsage.COPY_DST);
    try {
      const checks = (await submit(staging)) ?? [];
      const mapped = staging.mapAsync(1, 0, roundUp4(bytes));
      mapped.catch(() => {});
      const ready = Promise.all(checks)
        .then(() => mapped)
        .catch(async (error) => {
          throw await device.explain(what, error);
        });
      ready.catch(() => {});
      this.#pending.push({ staging, bytes, ready, consume });
    } catch (error) {
      pool.discard(staging);
      throw await device.explain(what, error);
    }
  }

  /** Waits until everything pushed was consumed. */
  async finish(): Promise<void> {
    while (this.#pending.length > 0) await this.#drainOne();
  }

  /** Drops what is under way after a failure. */
  async abort(): Promise<void> {
    for (const { staging, ready } of this.#pending.splice(0)) {
      await ready.catch(() => {});
      this.#context.pool.discard(staging);
    }
  }

  async #drainOne(): Promise<void> {
    const { staging, bytes, ready, consume } = this.#pending[0];
    await ready;
    consume(new Uint8Array(staging.getMappedRange(0, roundUp4(bytes)), 0, bytes));
    staging.unmap();
    this.#pending.shift();
    this.#context.pool.release(staging);
  }
}

/** Runs `work` with a stream and waits for all of it; after a failure nothing is left under way. */
export async function streaming(context: Context, work: (stream: ReadStream) => Promise<void>): Promise<void> {
  const stream = new ReadStream(context);
  try {
    await work(stream);
    await stream.finish();
  } catch (error) {
    await stream.abort();
    throw error;
  }
}

export function roundUp4(bytes: number): number {
  return Math.ceil(bytes / 4) * 4;
}
