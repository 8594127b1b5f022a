/** The host half of `layout()`: what each rank sends, counted on the device (design 2.2). */
import type { RankLayout } from "../../core/layout/counts.ts";
import { type GroupShape, numLocalExperts, numNodes, type RankRouting } from "../../core/layout/routing.ts";
import { type Context, Lease } from "./context.ts";
import { itemKernel } from "./kernels.ts";
import { STORAGE } from "./launcher.ts";
import { uploadIds } from "./layout.ts";
import { chunkBytes } from "./rows.ts";
import { streaming } from "./stream.ts";

interface Tally {
  readonly counts: Int32Array;
  /** [tokens, words]: bit key % 32 of word key / 32. */
  readonly mask: Uint32Array;
}

export async function rankLayouts(
  context: Context,
  routings: readonly RankRouting[],
  shape: GroupShape,
): Promise<RankLayout[]> {
  const expertsPerRank = numLocalExperts(shape);
  const nodes = numNodes(shape);
  const layouts: RankLayout[] = [];
  for (const routing of routings) {
    const byRank = await tally(context, routing, shape.numRanks, expertsPerRank, true);
    const byExpert = await tally(context, routing, shape.numExperts, 1, false);
    const byNode = nodes > 1 ? await tally(context, routing, nodes, expertsPerRank * shape.ranksPerNode, false) : null;
    layouts.push({
      rank: routing.rank,
      numTokens: routing.numTokens,
      numTokensPerRank: byRank.counts,
      numTokensPerNode: byNode?.counts ?? null,
      numTokensPerExpert: byExpert.counts,
      isTokenInRank: () => expandMask(byRank.mask, routing.numTokens, shape.numRanks),
    });
  }
  return layouts;
}

function expandMask(mask: Uint32Array, numTokens: number, numRanks: number): Uint8Array {
  const words = Math.ceil(numRanks / 32);
  const result = new Uint8Array(numTokens * numRanks);
  for (let token = 0; token < numTokens; token++) {
    for (let rank = 0; rank < numRanks; rank++) {
      result[token * numRanks + rank] = (mask[token * words + (rank >> 5)] >>> (rank & 31)) & 1;
    }
  }
  return result;
}

/** How many tokens have at least one slot with each key (= expert / divisor), and optionally which. */
async function tally(
  context: Context,
  routing: RankRouting,
  numKeys: number,
  divisor: number,
  masked: boolean,
): Promise<Tally> {
  const { device, pool, launcher } = context;
  const { numTokens, topk } = routing;
  const maskWords = masked ? Math.ceil(numKeys / 32) : 0;
  const width = Math.min(topk, numKeys);
  const result = { counts: new Int32Array(numKeys), mask: new Uint32Array(numTokens * maskWords) };
  const bytesPerToken = 4 * Math.max(topk, maskWords);
  const tokensPerChunk = Math.max(1, Math.min(numTokens, Math.floor(chunkBytes(device) / bytesPerToken)));
  const kernels = [itemKernel(device, "layout_entries"), itemKernel(device, "layout_tally")] as const;
  const pipelines = await Promise.all(kernels.map((kernel) => launcher.pipeline(kernel)));
  const what = "webgpu kernel layout_tally";
  const lease = new Lease(pool);
  try {
    const ids = await lease.acquire("topkIdx", tokensPerChunk * topk * 4, STORAGE);
    const keys = await lease.acquire("keys of entries", tokensPerChunk * width * 4, STORAGE);
    const slots = await lease.acquire("slots of entries", tokensPerChunk * width * 4, STORAGE);
    const counts = await lease.acquire("counts", numKeys * 4, STORAGE);
    const mask = await lease.acquire("mask", tokensPerChunk * maskWords * 4, STORAGE);
    await streaming(context, async (stream) => {
      for (let first = 0; first < numTokens; first += tokensPerChunk) {
        const count = Math.min(tokensPerChunk, numTokens - first);
        const maskBytes = count * maskWords * 4;
        uploadIds(context, ids, [routing], [0, numTokens], topk, first, count);
        await stream.push(
          what,
          numKeys * 4 + maskBytes,
          async (staging) => {
            const { checked } = device.guard(what, () => {
              const encoder = device.gpu.createCommandEncoder();
              encoder.clearBuffer(counts);
              const pass = encoder.beginComputePass();
              const entries = { params: [count, topk, width, divisor], buffers: [ids, keys, slots], numItems: count };
              launcher.encode(pass, kernels[0], pipelines[0], entries);
              const sums = { params: [count, width, maskWords], buffers: [keys, counts, mask], numItems: count };
              launcher.encode(pass, kernels[1], pipelines[1], sums);
              pass.end();
              encoder.copyBufferToBuffer(counts, 0, staging, 0, numKeys * 4);
              if (maskBytes > 0) encoder.copyBufferToBuffer(mask, 0, staging, numKeys * 4, maskBytes);
              device.gpu.queue.submit([encoder.finish()]);
            });
            return [checked];
          },
          (bytes) => {
            const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
            for (let key = 0; key < numKeys; key++) result.counts[key] += words[key];
            result.mask.set(words.subarray(numKeys), first * maskWords);
          },
        );
      }
    });
  } finally {
    lease.release();
  }
  return result;
}
