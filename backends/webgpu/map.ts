/** Operations that make one row of each row: scaleRows and the casts. */
import { roundUp } from "../../core/layout/counts.ts";
import { type Context, Lease } from "./context.ts";
import { type Kernel, STORAGE } from "./launcher.ts";
import { type Block, chunkBytes, type RowSink, uploadRows } from "./rows.ts";
import { streaming } from "./stream.ts";

/** One input or output of every row: an element per `columns` columns of x, or one element per row (Infinity). */
export interface Plane {
  readonly elementBytes: number;
  readonly columns: number;
  /** Device rows are multiples of this many bytes. */
  readonly unit: 4 | 16;
}

export interface RankRows {
  readonly numRows: number;
  /** One per input plane. */
  readonly inputs: readonly Uint8Array[];
  /** One per output plane. */
  readonly sinks: readonly RowSink[];
}

export interface RowMap {
  readonly kernel: Kernel;
  readonly hidden: number;
  /** Blocks of columns are multiples of this. */
  readonly columnStep: number;
  readonly inputs: readonly Plane[];
  readonly outputs: readonly Plane[];
  readonly ranks: readonly RankRows[];
  /** The kernel's Params from the blocks of its planes. */
  readonly params: (numRows: number, inputs: readonly Block[], outputs: readonly Block[]) => readonly number[];
  /** Items of the launch; default one per row. */
  readonly numItems?: (numRows: number, outputs: readonly Block[]) => number;
  readonly progress?: (fraction: number) => void;
}

/** The part of a plane's row that belongs to columns [first, first + count). */
function planeBlock(plane: Plane, first: number, count: number): Block {
  const elements = Math.max(1, Math.ceil(count / plane.columns));
  const bytes = elements * plane.elementBytes;
  return { first: Math.floor(first / plane.columns) * plane.elementBytes, bytes, stride: roundUp(bytes, plane.unit) };
}

export async function mapRows(context: Context, map: RowMap): Promise<void> {
  const { device, pool, launcher } = context;
  const what = `webgpu kernel ${map.kernel.name}`;
  const total = map.ranks.reduce((rows, { numRows }) => rows + numRows, 0);
  if (total === 0) return;
  const pipeline = await launcher.pipeline(map.kernel);
  const planes = [...map.inputs, ...map.outputs];
  const limit = chunkBytes(device);
  const widest = (count: number) => Math.max(...planes.map((plane) => planeBlock(plane, 0, count).stride));
  const rowsAtOnce = Math.max(1, Math.floor(limit / widest(map.hidden)));
  let width = map.hidden;
  while (widest(width) > limit && width > map.columnStep) width = roundUp(Math.ceil(width / 2), map.columnStep);
  let done = 0;
  const lease = new Lease(pool);
  const rowBytes = (plane: Plane) => planeBlock(plane, 0, map.hidden).bytes;
  try {
    await streaming(context, async (stream) => {
      for (const rank of map.ranks) {
        for (let firstRow = 0; firstRow < rank.numRows; firstRow += rowsAtOnce) {
          const numRows = Math.min(rowsAtOnce, rank.numRows - firstRow);
          for (let column = 0; column < map.hidden; column += width) {
            const count = Math.min(width, map.hidden - column);
            const inputs = map.inputs.map((plane) => planeBlock(plane, column, count));
            const outputs = map.outputs.map((plane) => planeBlock(plane, column, count));
            const buffers: GPUBuffer[] = [];
            for (const { stride } of [...inputs, ...outputs]) {
              buffers.push(await lease.acquire(map.kernel.name, numRows * stride, STORAGE));
            }
            const ends: number[] = [];
            for (const { stride } of outputs) ends.push((ends.at(-1) ?? 0) + numRows * stride);
            await stream.push(
              what,
              ends[ends.length - 1],
              async (staging) => {
                const { checked } = device.guard(what, () => {
                  inputs.forEach((block, i) => {
                    const source = rank.inputs[i];
                    uploadRows(device, buffers[i], 0, source, rowBytes(map.inputs[i]), firstRow, numRows, block);
                  });
                  const encoder = device.gpu.createCommandEncoder();
                  const pass = encoder.beginComputePass();
                  launcher.encode(pass, map.kernel, pipeline, {
                    params: map.params(numRows, inputs, outputs),
                    buffers,
                    numItems: map.numItems?.(numRows, outputs) ?? numRows,
                  });
                  pass.end();
                  outputs.forEach(({ stride }, i) => {
                    const bytes = numRows * stride;
                    encoder.copyBufferToBuffer(buffers[inputs.length + i], 0, staging, ends[i] - bytes, bytes);
                  });
                  device.gpu.queue.submit([encoder.finish()]);
                });
                return [checked];
              },
              (bytes) => {
                outputs.forEach((block, i) => {
                  const first = ends[i] - numRows * block.stride;
                  rank.sinks[i].write(firstRow, numRows, block, bytes.subarray(first, ends[i]));
                });
                if (column + count === map.hidden) map.progress?.((done += numRows) / total);
              },
            );
            lease.release();
          }
        }
      }
    });
  } finally {
    lease.release();
  }
}
