/** The rows of all source ranks on the device, in tiles that come and go within the memory budget. */
import type { Lease } from "./context.ts";
import type { Device } from "./device.ts";
import { STORAGE } from "./launcher.ts";
import { type Block, chunkBytes, uploadRows } from "./rows.ts";

/**
 * Global rows: rank 0's rows, then rank 1's, and so on. A tile holds `rowsPerTile` of them; half of the memory budget holds
 * tiles, and what was used longest ago makes room. Rows of 470 MB (8 ranks x 4096 x 7168 bf16) stay resident by default.
 */
export class TileStore {
  readonly rowsPerTile: number;
  /** Tiles that can be resident together. */
  readonly capacity: number;
  readonly #device: Device;
  readonly #lease: Lease;
  readonly #sources: readonly Uint8Array[];
  readonly #rowBytes: number;
  readonly #firstRow: readonly number[];
  readonly #numRows: number;
  readonly #tileBytes: number;
  /** Most recently used last. */
  #resident = new Map<number, GPUBuffer>();
  #block: Block | null = null;
  readonly #spare: GPUBuffer[] = [];

  /** `sources` hold rows of `rowBytes`; `firstRow` has one entry per source and the total at its end. */
  constructor(
    device: Device,
    lease: Lease,
    sources: readonly Uint8Array[],
    rowBytes: number,
    firstRow: readonly number[],
    stride: number,
  ) {
    this.#device = device;
    this.#lease = lease;
    this.#sources = sources;
    this.#rowBytes = rowBytes;
    this.#firstRow = firstRow;
    this.#numRows = firstRow[firstRow.length - 1];
    this.rowsPerTile = Math.max(1, Math.min(this.#numRows, Math.floor(chunkBytes(device) / stride)));
    this.#tileBytes = this.rowsPerTile * stride;
    this.capacity = Math.max(1, Math.floor(device.memoryBudgetBytes / 2 / this.#tileBytes));
  }

  /** The buffer of a tile with the columns of `block`; at most `capacity` tiles asked for between two submits. */
  async tile(index: number, block: Block): Promise<GPUBuffer> {
    if (this.#block !== block) {
      this.#spare.push(...this.#resident.values());
      this.#resident.clear();
      this.#block = block;
    }
    let buffer = this.#resident.get(index);
    if (buffer === undefined) {
      buffer = await this.#room();
      this.#upload(buffer, index, block);
    }
    this.#resident.delete(index);
    this.#resident.set(index, buffer);
    return buffer;
  }

  async #room(): Promise<GPUBuffer> {
    const spare = this.#spare.pop();
    if (spare !== undefined) return spare;
    if (this.#resident.size < this.capacity) return this.#lease.acquire("rows", this.#tileBytes, STORAGE);
    const [oldest, buffer] = this.#resident.entries().next().value as [number, GPUBuffer];
    this.#resident.delete(oldest);
    return buffer;
  }

  #upload(buffer: GPUBuffer, index: number, block: Block): void {
    const first = index * this.rowsPerTile;
    const last = Math.min(this.#numRows, first + this.rowsPerTile);
    this.#sources.forEach((source, i) => {
      const from = Math.max(first, this.#firstRow[i]);
      const to = Math.min(last, this.#firstRow[i + 1]);
      if (from >= to) return;
      const offset = (from - first) * block.stride;
      uploadRows(this.#device, buffer, offset, source, this.#rowBytes, from - this.#firstRow[i], to - from, block);
    });
  }
}
