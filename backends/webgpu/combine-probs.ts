import type { HandleData, RankHandle } from "../../core/handle/handle.ts";
import { bytesOf, type Tensor, tensor } from "../../core/tensor.ts";
import { type Context, Lease } from "./context.ts";
import { gatherEntries, tokenChunks } from "./gather.ts";
import { itemKernel } from "./kernels.ts";
import { STORAGE } from "./launcher.ts";
import { type Block, chunkBytes, planRows, rankSinks, uploadRows } from "./rows.ts";
import { streaming } from "./stream.ts";

/** Hybrid-ep: every permuted row's prob back to [token, global expert], bits unchanged; 0 elsewhere. */
export async function combineProbs(
  context: Context,
  data: HandleData,
  probs: readonly Tensor<"fp32">[],
): Promise<Tensor<"fp32">[]> {
  const { device, pool, launcher } = context;
  const { numExperts } = data.meta;
  const out = data.ranks.map(({ numTokens }) => tensor("fp32", [numTokens, numExperts]));
  const outSinks = rankSinks(data, "probs", numExperts * 4, out, null);
  const sources = probs.map(bytesOf);
  const plan = planRows(numExperts * 4, 4, 1, chunkBytes(device));
  const kernel = itemKernel(device, "combine_probs");
  const pipeline = await launcher.pipeline(kernel);
  const one: Block = { first: 0, bytes: 4, stride: 4 };
  const lease = new Lease(pool);
  try {
    await streaming(context, async (stream) => {
      for (const [i, rank] of data.ranks.entries()) {
        const maxTokens = Math.min(plan.numRows, Math.floor(chunkBytes(device) / 8 / rank.numEntries) || 1);
        for (const [firstToken, numTokens] of tokenChunks(rank, maxTokens, chunkBytes(device) / 4)) {
          const chunk = gatherEntries(data, rank, firstToken, numTokens, 0);
          const values = await lease.acquire("probs", chunk.numRows * 4, STORAGE);
          const entries = await lease.acquire("entries of probs", chunk.rows.length * 8, STORAGE);
          const table = await lease.acquire("dense probs", numTokens * plan.blocks[0].stride, STORAGE);
          for (const block of plan.blocks) {
            const submit = async () => {
              for (const run of chunk.runs)
                uploadRows(device, values, run.local * 4, sources[run.dst], 4, run.firstRow, run.numRows, one);
              device.gpu.queue.writeBuffer(entries, 0, probEntries(rank, firstToken, chunk.rows, block));
              return [];
            };
            await stream.push(
              "webgpu kernel combine_probs",
              numTokens * block.stride,
              async (staging) => {
                await submit();
                const { checked } = device.guard("webgpu kernel combine_probs", () => {
                  const encoder = device.gpu.createCommandEncoder();
                  encoder.clearBuffer(table, 0, numTokens * block.stride);
                  const pass = encoder.beginComputePass();
                  launcher.encode(pass, kernel, pipeline, {
                    params: [chunk.rows.length],
                    buffers: [entries, values, table],
                    numItems: chunk.rows.length,
                  });
                  pass.end();
                  encoder.copyBufferToBuffer(table, 0, staging, 0, numTokens * block.stride);
                  device.gpu.queue.submit([encoder.finish()]);
                });
                return [checked];
              },
              (bytes) => outSinks[i].write(firstToken, numTokens, block, bytes),
            );
          }
          lease.release();
        }
      }
    });
  } finally {
    lease.release();
  }
  return out;
}

/** Pairs (row of the chunk's probs or -1, place in the dense table) for every entry of the chunk. */
function probEntries(rank: RankHandle, firstToken: number, rows: Int32Array, block: Block): Int32Array {
  const width = rank.numEntries;
  const firstExpert = block.first / 4;
  const numExperts = block.bytes / 4;
  const pairs = new Int32Array(rows.length * 2).fill(-1);
  for (let i = 0; i < rows.length; i++) {
    const expert = (rank.sendExpert?.[firstToken * width + i] ?? -1) - firstExpert;
    if (rows[i] < 0 || expert < 0 || expert >= numExperts) continue;
    pairs[2 * i] = rows[i];
    pairs[2 * i + 1] = (Math.floor(i / width) * block.stride) / 4 + expert;
  }
  return pairs;
}
