/**
 * Rows between host and device. On the device a row takes a whole number of units (16 bytes, or 4 where the kernel allows
 * it), so kernels never see an odd size; rows that are not such a number are padded on the way up and cut on the way down.
 * Rows too long for a buffer are cut into blocks of columns.
 */
import type { OutputChunk } from "../../core/backend.ts";
import type { HandleData } from "../../core/handle/handle.ts";
import { roundUp } from "../../core/layout/counts.ts";
import { bytesOf, type Tensor } from "../../core/tensor.ts";
import type { Device } from "./device.ts";

/** Columns [first, first + bytes) of every row, which take `stride` bytes each on the device. */
export interface Block {
  readonly first: number;
  readonly bytes: number;
  readonly stride: number;
}

export interface RowPlan {
  readonly rowBytes: number;
  /** Rows (of the output) per chunk. */
  readonly numRows: number;
  readonly blocks: readonly Block[];
}

/** Bytes that one chunk may take on the device: an eighth of the budget, as every operation keeps a few chunks at a time. */
export function chunkBytes(device: Device): number {
  const most = Math.min(device.maxBufferBytes, device.memoryBudgetBytes / 8, 64 * 2 ** 20);
  return Math.floor(most / 256) * 256;
}

/**
 * Splits rows of `rowBytes` so that `fanIn` rows per output row fit into `limit` bytes: whole rows where possible, else
 * one row at a time in blocks of columns, multiples of `align` bytes.
 */
export function planRows(rowBytes: number, unit: number, fanIn: number, limit: number, align = unit): RowPlan {
  const stride = roundUp(rowBytes, unit);
  const numRows = Math.floor(limit / (stride * fanIn));
  if (numRows >= 1) return { rowBytes, numRows, blocks: [{ first: 0, bytes: rowBytes, stride }] };
  const width = Math.max(align, Math.floor(limit / fanIn / align) * align);
  const blocks: Block[] = [];
  for (let first = 0; first < rowBytes; first += width) {
    const bytes = Math.min(width, rowBytes - first);
    blocks.push({ first, bytes, stride: roundUp(bytes, unit) });
  }
  return { rowBytes, numRows: 1, blocks };
}

const SCRATCH_BYTES = 4 * 2 ** 20;
let scratch = new Uint8Array(0);

/**
 * Writes the block's columns of rows [firstRow, firstRow + numRows) of `source` to `buffer` at `offset`. Shared memory goes
 * through a copy: Dawn's Node binding crashes the process when writeBuffer is given any.
 */
export function uploadRows(
  device: Device,
  buffer: GPUBuffer,
  offset: number,
  source: Uint8Array,
  rowBytes: number,
  firstRow: number,
  numRows: number,
  block: Block,
): void {
  const { queue } = device.gpu;
  const whole = block.bytes === rowBytes && block.stride === rowBytes;
  if (numRows === 0) return;
  if (whole && source.buffer instanceof ArrayBuffer) {
    queue.writeBuffer(buffer, offset, source as BufferSource, firstRow * rowBytes, numRows * rowBytes);
    return;
  }
  const rowsAtOnce = Math.max(1, Math.min(numRows, Math.floor(SCRATCH_BYTES / block.stride)));
  if (scratch.length < rowsAtOnce * block.stride) scratch = new Uint8Array(rowsAtOnce * block.stride);
  // What lies behind a padded row must be zero: the fp8 cast takes the maximum of whole units.
  if (block.stride !== block.bytes) scratch.fill(0, 0, rowsAtOnce * block.stride);
  for (let done = 0; done < numRows; done += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, numRows - done);
    const first = (firstRow + done) * rowBytes;
    if (whole) scratch.set(source.subarray(first, first + count * rowBytes));
    else {
      for (let row = 0; row < count; row++) {
        const from = first + row * rowBytes + block.first;
        scratch.set(source.subarray(from, from + block.bytes), row * block.stride);
      }
    }
    queue.writeBuffer(buffer, offset + done * block.stride, scratch, 0, count * block.stride);
  }
}

/** Where the rows of one rank go: into `target`, or to `consume` chunk by chunk. */
export class RowSink {
  readonly #name: string;
  readonly #rank: number;
  readonly #rowBytes: number;
  readonly #target: Uint8Array | null;
  readonly #consume: ((chunk: OutputChunk) => void) | null;
  #scratch = new Uint8Array(0);

  constructor(
    name: string,
    rank: number,
    rowBytes: number,
    target: Uint8Array | null,
    consume: ((chunk: OutputChunk) => void) | null,
  ) {
    this.#name = name;
    this.#rank = rank;
    this.#rowBytes = rowBytes;
    this.#target = target;
    this.#consume = consume;
  }

  /** Takes one block of rows [firstRow, firstRow + numRows) as it lies on the device. Blocks of a chunk come in order. */
  write(firstRow: number, numRows: number, block: Block, bytes: Uint8Array): void {
    const rowBytes = this.#rowBytes;
    const whole = block.bytes === rowBytes && block.stride === rowBytes;
    const length = numRows * rowBytes;
    let rows: Uint8Array;
    if (this.#target !== null) {
      rows = this.#target.subarray(firstRow * rowBytes, firstRow * rowBytes + length);
      if (whole) rows.set(bytes.subarray(0, length));
    } else if (whole) {
      rows = bytes.subarray(0, length);
    } else {
      if (this.#scratch.length < length) this.#scratch = new Uint8Array(length);
      rows = this.#scratch.subarray(0, length);
    }
    if (!whole) {
      for (let row = 0; row < numRows; row++) {
        const from = row * block.stride;
        rows.set(bytes.subarray(from, from + block.bytes), row * rowBytes + block.first);
      }
    }
    if (this.#consume === null || block.first + block.bytes < rowBytes) return;
    this.#consume({ name: this.#name, rank: this.#rank, firstRow, numRows, bytes: rows });
  }
}

/** One sink per local rank of `data`: into the tensors of `out` where given. */
export function rankSinks(
  data: HandleData,
  name: string,
  bytes: number,
  out: readonly Tensor[],
  consume: ((chunk: OutputChunk) => void) | null,
): RowSink[] {
  return data.ranks.map(({ rank }, i) => new RowSink(name, rank, bytes, out[i] ? bytesOf(out[i]) : null, consume));
}
