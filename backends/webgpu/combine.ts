/** The host half of combine: chunks of tokens, each with the rows that come back for it, every row uploaded once. */
import type { CombineRequest } from "../../core/backend.ts";
import type { DType } from "../../core/dtype/dtype.ts";
import type { HandleData } from "../../core/handle/handle.ts";
import { bytesOf, rowBytes, type Tensor, tensor } from "../../core/tensor.ts";
import { type Context, Lease } from "./context.ts";
import { gatherEntries, tokenChunks } from "./gather.ts";
import { combineKernel } from "./kernels.ts";
import { STORAGE } from "./launcher.ts";
import { chunkBytes, planRows, type RowSink, rankSinks, uploadRows } from "./rows.ts";
import { streaming } from "./stream.ts";
import { sumTree } from "./tree.ts";

interface Sum {
  readonly data: HandleData;
  readonly dtype: DType;
  /** Rows of each rank as a destination, one per row of the handle. */
  readonly rows: readonly Uint8Array[];
  readonly rowBytes: number;
  /** Per bias, the rows of each rank as a source. */
  readonly bias: readonly (readonly Uint8Array[])[];
  readonly sinks: readonly RowSink[];
  readonly progress?: (fraction: number) => void;
}

/** Sums rows back to their tokens (design 2.4, 2.5). */
export async function combineRows(
  context: Context,
  data: HandleData,
  x: readonly Tensor[],
  bias: readonly (readonly Tensor[])[],
  request: Pick<CombineRequest, "out" | "consume" | "progress">,
): Promise<Tensor[]> {
  const { dtype, shape } = x[0];
  const consume = request.consume ?? null;
  const out = consume ? [] : (request.out ?? data.ranks.map(({ numTokens }) => tensor(dtype, [numTokens, shape[1]])));
  await sumRows(context, {
    data,
    dtype,
    rows: x.map(bytesOf),
    rowBytes: rowBytes(x[0]),
    bias: bias.map((values) => values.map(bytesOf)),
    sinks: rankSinks(data, "x", rowBytes(x[0]), out, consume),
    progress: request.progress,
  });
  return [...out];
}

/** Fused: float32 sums of every slot's weight, in the same tree as the rows. */
export async function combineWeights(
  context: Context,
  data: HandleData,
  weights: readonly Tensor<"fp32">[],
): Promise<Tensor<"fp32">[]> {
  const bytes = rowBytes(weights[0]);
  const out = data.ranks.map(({ numTokens }) => tensor("fp32", [numTokens, weights[0].shape[1]]));
  const rows = weights.map(bytesOf);
  if (bytes > 0) {
    await sumRows(context, {
      data,
      dtype: "fp32",
      rows,
      rowBytes: bytes,
      bias: [],
      sinks: rankSinks(data, "topkWeights", bytes, out, null),
    });
  }
  return out;
}

async function sumRows(context: Context, sum: Sum): Promise<void> {
  const { device, pool, launcher } = context;
  const { data, bias } = sum;
  const width = data.ranks.reduce((most, rank) => Math.max(most, rank.numEntries), 1);
  // Per token: its rows, at most half as many rank rows and node rows each, its biases and its total; and the zero row.
  const staged = data.meta.kind === "hybrid-ep" || data.meta.ranksPerNode < data.meta.numRanks;
  const cost = (numEntries: number) => (staged ? 2 : 1) * numEntries + bias.length + 1;
  const limit = chunkBytes(device);
  const plan = planRows(sum.rowBytes, 16, cost(width) + 1, limit);
  const { stride } = plan.blocks[0];
  const maxRows = Math.max(cost(width) + 1, Math.floor(limit / stride));
  const maxTokens = Math.max(1, Math.floor(limit / 8 / (width + bias.length + 1)));
  const what = "webgpu kernel combine";
  const total = data.ranks.reduce((tokens, rank) => tokens + rank.numTokens, 0);
  let done = 0;
  const lease = new Lease(pool);
  try {
    await streaming(context, async (stream) => {
      for (const [i, rank] of data.ranks.entries()) {
        for (const [firstToken, numTokens] of tokenChunks(rank, maxTokens, maxRows - 1, cost)) {
          const chunk = gatherEntries(data, rank, firstToken, numTokens, 1);
          const tree = sumTree(data, rank, firstToken, chunk, bias.length);
          const rows = await lease.acquire("rows to sum", tree.numRows * stride, STORAGE);
          const launches = await Promise.all(
            tree.launches.map(async ({ numEntries, numSegments, table }) => {
              const kernel = combineKernel(device, sum.dtype, stride / 16, numEntries);
              const segments = await lease.acquire("segments", table.byteLength, STORAGE);
              return { kernel, pipeline: await launcher.pipeline(kernel), segments, table, numSegments };
            }),
          );
          for (const block of plan.blocks) {
            const submit = () => {
              device.gpu.queue.writeBuffer(rows, 0, new Uint8Array(block.stride));
              for (const { dst, firstRow, numRows, local } of chunk.runs) {
                const offset = local * block.stride;
                uploadRows(device, rows, offset, sum.rows[dst], sum.rowBytes, firstRow, numRows, block);
              }
              bias.forEach((values, b) => {
                const offset = (tree.firstBias + b * numTokens) * block.stride;
                uploadRows(device, rows, offset, values[i], sum.rowBytes, firstToken, numTokens, block);
              });
              const encoder = device.gpu.createCommandEncoder();
              const pass = encoder.beginComputePass();
              for (const { kernel, pipeline, segments, table, numSegments } of launches) {
                device.gpu.queue.writeBuffer(segments, 0, table);
                launcher.encode(pass, kernel, pipeline, {
                  params: [numSegments, block.stride / 16],
                  buffers: [segments, rows],
                  numItems: numSegments,
                });
              }
              pass.end();
              return encoder;
            };
            const bytes = numTokens * block.stride;
            await stream.push(
              what,
              bytes,
              async (staging) => {
                const { checked } = device.guard(what, () => {
                  const encoder = submit();
                  encoder.copyBufferToBuffer(rows, tree.firstTotal * block.stride, staging, 0, bytes);
                  device.gpu.queue.submit([encoder.finish()]);
                });
                return [checked];
              },
              (result) => {
                sum.sinks[i].write(firstToken, numTokens, block, result);
                const last = block === plan.blocks[plan.blocks.length - 1];
                if (last) sum.progress?.((done += numTokens) / total);
              },
            );
          }
          // The queue runs in order, so the next chunk may have the same buffers.
          lease.release();
        }
      }
    });
  } finally {
    lease.release();
  }
}
