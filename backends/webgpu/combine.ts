/** The host half of combine: chunks of tokens, each with the rows that come back for it, every row uploaded once. */
import type { CombineRequest } from "../../core/backend.ts";
import type { DType } from "../../core/dtype/dtype.ts";
import type { HandleData, RankHandle } from "../../core/handle/handle.ts";
import { bytesOf, rowBytes, type Tensor, tensor } from "../../core/tensor.ts";
import { type Context, Lease } from "./context.ts";
import { gatherEntries, tokenChunks } from "./gather.ts";
import { combineKernel } from "./kernels.ts";
import { STORAGE } from "./launcher.ts";
import { chunkBytes, planRows, type RowSink, rankSinks, uploadRows } from "./rows.ts";
import { streaming } from "./stream.ts";

const ENDS_RANK = 0x80000000;
const ENDS_NODE = 0x40000000;

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
  const { numRanks, ranksPerNode, kind } = data.meta;
  const width = data.ranks.reduce((most, rank) => Math.max(most, rank.numEntries), 1);
  // One token's rows, the zero row and its biases fit into a chunk, or the columns are cut until they do.
  const limit = chunkBytes(device);
  const plan = planRows(sum.rowBytes, 16, Math.max(width + 1, bias.length), limit);
  const { stride } = plan.blocks[0];
  const kernel = combineKernel(device, sum.dtype, stride / 16, {
    NUM_ENTRIES: width,
    PERMUTED: kind === "hybrid-ep",
    MULTI_NODE: ranksPerNode < numRanks,
  });
  const pipeline = await launcher.pipeline(kernel);
  const what = "webgpu kernel combine";
  const maxRows = Math.max(width + 1, Math.floor(limit / stride));
  const maxTokens = Math.max(
    1,
    Math.min(Math.floor(maxRows / Math.max(1, bias.length)), Math.floor(limit / 4 / width)),
  );
  const total = data.ranks.reduce((tokens, rank) => tokens + rank.numTokens, 0);
  let done = 0;
  const lease = new Lease(pool);
  try {
    await streaming(context, async (stream) => {
      for (const [i, rank] of data.ranks.entries()) {
        for (const [firstToken, numTokens] of tokenChunks(rank, maxTokens, maxRows - 1)) {
          const chunk = gatherEntries(data, rank, firstToken, numTokens, 1);
          const x = await lease.acquire("rows to sum", chunk.numRows * stride, STORAGE);
          const table = await lease.acquire("entries", chunk.rows.length * 4, STORAGE);
          const biases = await lease.acquire("bias", bias.length * numTokens * stride, STORAGE);
          const out = await lease.acquire("sums", numTokens * stride, STORAGE);
          const entries = sumEntries(rank, firstToken, chunk.rows, ranksPerNode, width);
          for (const block of plan.blocks) {
            await stream.push(
              what,
              numTokens * block.stride,
              async (staging) => {
                const { checked } = device.guard(what, () => {
                  device.gpu.queue.writeBuffer(x, 0, new Uint8Array(block.stride));
                  for (const { dst, firstRow, numRows, local } of chunk.runs) {
                    const offset = local * block.stride;
                    uploadRows(device, x, offset, sum.rows[dst], sum.rowBytes, firstRow, numRows, block);
                  }
                  bias.forEach((values, b) => {
                    const offset = b * numTokens * block.stride;
                    uploadRows(device, biases, offset, values[i], sum.rowBytes, firstToken, numTokens, block);
                  });
                  device.gpu.queue.writeBuffer(table, 0, entries);
                  const encoder = device.gpu.createCommandEncoder();
                  const pass = encoder.beginComputePass();
                  launcher.encode(pass, kernel, pipeline, {
                    params: [numTokens, block.stride / 16, bias.length],
                    buffers: [table, x, biases, out],
                    numItems: numTokens,
                  });
                  pass.end();
                  encoder.copyBufferToBuffer(out, 0, staging, 0, numTokens * block.stride);
                  device.gpu.queue.submit([encoder.finish()]);
                });
                return [checked];
              },
              (bytes) => {
                sum.sinks[i].write(firstToken, numTokens, block, bytes);
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

/** The kernel's table: rows of the chunk with the ends of ranks and nodes marked; 0, the zero row, behind the last. */
function sumEntries(
  rank: RankHandle,
  firstToken: number,
  rows: Int32Array,
  ranksPerNode: number,
  width: number,
): Uint32Array {
  const own = rank.numEntries;
  const entries = new Uint32Array((rows.length / own) * width);
  for (let i = 0; i < rows.length; i++) {
    if (rows[i] < 0) continue;
    const at = firstToken * own + i;
    const dst = rank.sendRank[at];
    const next = (i + 1) % own === 0 ? -1 : rank.sendRank[at + 1];
    const endsRank = next !== dst ? ENDS_RANK : 0;
    const endsNode = next < 0 || Math.floor(next / ranksPerNode) !== Math.floor(dst / ranksPerNode) ? ENDS_NODE : 0;
    entries[Math.floor(i / own) * width + (i % own)] = (rows[i] | endsRank | endsNode) >>> 0;
  }
  return entries;
}
