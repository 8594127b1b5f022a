/** Gathers rows on the device: the work of dispatch, for x, scales, ids, weights and probs alike. */
import { OutOfMemory } from "../../core/errors.ts";
import type { Context } from "./context.ts";
import { Lease } from "./context.ts";
import { dispatchKernel } from "./kernels.ts";
import { type Kernel, type Launch, STORAGE } from "./launcher.ts";
import { type Block, chunkBytes, planRows, type RowPlan, type RowSink } from "./rows.ts";
import { type ReadStream, streaming } from "./stream.ts";
import { TileStore } from "./tiles.ts";

/** Rows of one destination: row n is global source row from[n], or zeros where that is -1. */
export interface Destination {
  readonly rank: number;
  readonly from: Int32Array;
  readonly sink: RowSink;
}

export interface Move {
  /** Names the work in errors. */
  readonly what: string;
  /** Rows of each source rank, `rowBytes` each. */
  readonly sources: readonly Uint8Array[];
  readonly rowBytes: number;
  readonly destinations: readonly Destination[];
  /** Chunks in the order of their first source row instead of rank by rank: each source row is uploaded about once. */
  readonly bySource: boolean;
  /** A kernel over the moved rows (binding 1: from, binding 2: rows) before they are read; rows must fit into a chunk. */
  readonly after?: { kernel: Kernel; launch: (rank: number, numRows: number) => Omit<Launch, "buffers"> };
  readonly progress?: (fraction: number) => void;
}

/** A software adapter copies rows from here on faster by copy commands than by a kernel (docs/webgpu.md). */
const LEAST_COPY_BYTES = 2048;
const PADDING = -1;
const OTHER_TILE = -2;

interface Chunk {
  readonly destination: Destination;
  readonly firstRow: number;
  readonly numRows: number;
}

export async function moveRows(context: Context, move: Move): Promise<void> {
  if (move.destinations.every(({ from }) => from.length === 0)) return;
  const lease = new Lease(context.pool);
  try {
    const mover = new RowMover(context, move, lease);
    await streaming(context, (stream) => mover.run(stream));
  } finally {
    lease.release();
  }
}

class RowMover {
  readonly #context: Context;
  readonly #move: Move;
  readonly #lease: Lease;
  readonly #plan: RowPlan;
  /** Rows of the largest chunk. */
  readonly #chunkRows: number;
  readonly #tiles: TileStore;
  readonly #unitBytes: 4 | 16;
  readonly #byCopies: boolean;
  readonly #kernel: Kernel;
  readonly #buffers = new Map<string, GPUBuffer>();

  constructor(context: Context, move: Move, lease: Lease) {
    const { device } = context;
    const { rowBytes } = move;
    this.#context = context;
    this.#move = move;
    this.#lease = lease;
    this.#unitBytes = rowBytes % 16 !== 0 && rowBytes % 4 === 0 ? 4 : 16;
    this.#plan = planRows(rowBytes, this.#unitBytes, 1, chunkBytes(device));
    if (move.after !== undefined && this.#plan.blocks.length > 1) {
      throw new OutOfMemory(`${move.what}: a row of ${rowBytes} bytes is more than a chunk; raise memoryBudgetBytes`);
    }
    const most = move.destinations.reduce((rows, { from }) => Math.max(rows, from.length), 0);
    this.#chunkRows = Math.min(this.#plan.numRows, most);
    const { stride } = this.#plan.blocks[0];
    const firstRow = [0];
    for (const source of move.sources) firstRow.push(firstRow[firstRow.length - 1] + source.byteLength / rowBytes);
    this.#tiles = new TileStore(device, lease, move.sources, rowBytes, firstRow, stride);
    this.#byCopies = device.adapter.isCpu && stride >= LEAST_COPY_BYTES && move.after === undefined;
    this.#kernel = dispatchKernel(device, this.#unitBytes, stride / this.#unitBytes);
  }

  async run(stream: ReadStream): Promise<void> {
    const { progress, what } = this.#move;
    const chunks = this.#chunks();
    const total = chunks.reduce((sum, { numRows }) => sum + numRows, 0);
    let done = 0;
    for (const chunk of chunks) {
      for (const block of this.#plan.blocks) {
        const last = block === this.#plan.blocks[this.#plan.blocks.length - 1];
        await stream.push(
          what,
          chunk.numRows * block.stride,
          (staging) => (this.#byCopies ? this.#copy(chunk, block, staging) : this.#launch(chunk, block, staging)),
          (bytes) => {
            chunk.destination.sink.write(chunk.firstRow, chunk.numRows, block, bytes);
            if (last) progress?.((done += chunk.numRows) / total);
          },
        );
      }
    }
  }

  #chunks(): Chunk[] {
    const chunks = this.#move.destinations.flatMap((destination) => {
      const count = Math.ceil(destination.from.length / this.#plan.numRows);
      return Array.from({ length: count }, (_, i) => {
        const firstRow = i * this.#plan.numRows;
        return { destination, firstRow, numRows: Math.min(this.#plan.numRows, destination.from.length - firstRow) };
      });
    });
    if (!this.#move.bySource) return chunks;
    const key = ({ destination, firstRow }: Chunk) =>
      destination.from[firstRow] < 0 ? Number.POSITIVE_INFINITY : destination.from[firstRow];
    // Stable, and rows of a destination ascend by source: the chunks of one rank stay in order.
    return chunks.sort((a, b) => (key(a) === key(b) ? 0 : key(a) - key(b)));
  }

  /** The tiles that rows of the chunk lie in, in groups that are resident together. */
  #tileGroups(from: Int32Array): number[][] {
    const wanted = new Set<number>();
    for (const row of from) if (row >= 0) wanted.add(Math.floor(row / this.#tiles.rowsPerTile));
    const list = [...wanted].sort((a, b) => a - b);
    const groups: number[][] = [];
    for (let i = 0; i < list.length; i += this.#tiles.capacity) groups.push(list.slice(i, i + this.#tiles.capacity));
    return groups;
  }

  #from({ destination, firstRow, numRows }: Chunk): Int32Array {
    return destination.from.subarray(firstRow, firstRow + numRows);
  }

  /** Row by row with copy commands, neighbours together. */
  async #copy(chunk: Chunk, block: Block, staging: GPUBuffer): Promise<Promise<void>[]> {
    const { device } = this.#context;
    const { rowsPerTile } = this.#tiles;
    const from = this.#from(chunk);
    const checks: Promise<void>[] = [];
    const groups = this.#tileGroups(from);
    for (const group of groups.length > 0 ? groups : [[]]) {
      const buffers = new Map<number, GPUBuffer>();
      for (const index of group) buffers.set(index, await this.#tiles.tile(index, block));
      const { checked } = device.guard(this.#move.what, () => {
        const encoder = device.gpu.createCommandEncoder();
        for (let row = 0; row < from.length; ) {
          const first = from[row];
          const tile = Math.floor(first / rowsPerTile);
          let next = row + 1;
          if (first < 0) {
            while (next < from.length && from[next] < 0) next++;
            if (group === (groups[0] ?? group))
              encoder.clearBuffer(staging, row * block.stride, (next - row) * block.stride);
          } else {
            const end = (tile + 1) * rowsPerTile;
            while (next < from.length && from[next] === first + next - row && from[next] < end) next++;
            const buffer = buffers.get(tile);
            const offset = (first - tile * rowsPerTile) * block.stride;
            const bytes = (next - row) * block.stride;
            if (buffer) encoder.copyBufferToBuffer(buffer, offset, staging, row * block.stride, bytes);
          }
          row = next;
        }
        device.gpu.queue.submit([encoder.finish()]);
      });
      checks.push(checked);
    }
    return checks;
  }

  async #launch(chunk: Chunk, block: Block, staging: GPUBuffer): Promise<Promise<void>[]> {
    const { device, launcher } = this.#context;
    const { rowsPerTile } = this.#tiles;
    const from = this.#from(chunk);
    const out = await this.#buffer("moved rows", this.#chunkRows * this.#plan.blocks[0].stride);
    const table = await this.#buffer("source of rows", this.#chunkRows * 4);
    const pipeline = await launcher.pipeline(this.#kernel);
    const after = this.#move.after;
    const afterPipeline = after && (await launcher.pipeline(after.kernel));
    const checks: Promise<void>[] = [];
    const tiles = this.#tileGroups(from).flat();
    const steps = tiles.length > 0 ? tiles : [-1];
    const last = steps[steps.length - 1];
    for (const index of steps) {
      const x = index < 0 ? await this.#buffer("no rows", 256) : await this.#tiles.tile(index, block);
      const local = from.map((row) => {
        if (row < 0) return index === steps[0] ? PADDING : OTHER_TILE;
        return Math.floor(row / rowsPerTile) === index ? row - index * rowsPerTile : OTHER_TILE;
      });
      const { checked } = device.guard(`webgpu kernel ${this.#kernel.name}`, () => {
        device.gpu.queue.writeBuffer(table, 0, local);
        const encoder = device.gpu.createCommandEncoder();
        const pass = encoder.beginComputePass();
        launcher.encode(pass, this.#kernel, pipeline, {
          params: [from.length, block.stride / this.#unitBytes],
          buffers: [table, x, out],
          numItems: from.length,
        });
        pass.end();
        if (index === last && !after) encoder.copyBufferToBuffer(out, 0, staging, 0, from.length * block.stride);
        device.gpu.queue.submit([encoder.finish()]);
      });
      checks.push(checked);
    }
    if (after && afterPipeline) {
      const { checked } = device.guard(`webgpu kernel ${after.kernel.name}`, () => {
        device.gpu.queue.writeBuffer(table, 0, from);
        const encoder = device.gpu.createCommandEncoder();
        const pass = encoder.beginComputePass();
        const launch = after.launch(chunk.destination.rank, from.length);
        launcher.encode(pass, after.kernel, afterPipeline, { ...launch, buffers: [table, out] });
        pass.end();
        encoder.copyBufferToBuffer(out, 0, staging, 0, from.length * block.stride);
        device.gpu.queue.submit([encoder.finish()]);
      });
      checks.push(checked);
    }
    return checks;
  }

  async #buffer(label: string, bytes: number): Promise<GPUBuffer> {
    let buffer = this.#buffers.get(label);
    if (buffer === undefined) {
      buffer = await this.#lease.acquire(label, bytes, STORAGE);
      this.#buffers.set(label, buffer);
    }
    return buffer;
  }
}
