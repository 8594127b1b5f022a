/**
 * The host half of layout: positions come from the device by counts and prefix sums (layout_*.wgsl), and are put together
 * here into the handle. Tokens of all ranks are numbered through, rank 0's first: that is the order of every row.
 */
import type { DispatchSettings } from "../../core/backend.ts";
import type { HandleData, HandleKind } from "../../core/handle/handle.ts";
import { type GroupShape, numLocalExperts, type RankRouting } from "../../core/layout/routing.ts";
import { fusedData, hybridEpData, type Positions, type Sizes } from "./assemble.ts";
import { type Context, Lease } from "./context.ts";
import { itemKernel } from "./kernels.ts";
import { STORAGE } from "./launcher.ts";
import { chunkBytes } from "./rows.ts";
import { type ReadStream, streaming } from "./stream.ts";

const NO_BUDGET = 0xffffffff;
/** Tokens that one invocation walks, at least: fewer tiles mean fewer counters. */
const LEAST_TOKENS_PER_TILE = 64;
/** Counters of all tiles together, at most (16 MiB, or a chunk). */
const MOST_COUNTERS = 2 ** 22;

export async function newHandleData(
  context: Context,
  kind: HandleKind,
  routings: readonly RankRouting[],
  shape: GroupShape,
  settings: DispatchSettings,
): Promise<HandleData> {
  const sizes = layoutSizes(kind, routings, shape, settings);
  const positions = await new LayoutRun(context, routings, shape, settings, sizes).positions(kind);
  return kind === "fused"
    ? fusedData(routings, shape, settings, sizes, positions)
    : hybridEpData(routings, shape, settings, sizes, positions);
}

function layoutSizes(
  kind: HandleKind,
  routings: readonly RankRouting[],
  shape: GroupShape,
  settings: DispatchSettings,
): Sizes {
  const firstToken = [0];
  for (const { numTokens } of routings) firstToken.push(firstToken[firstToken.length - 1] + numTokens);
  const topk = routings.reduce((most, routing) => Math.max(most, routing.topk), 1);
  const numTokens = firstToken[routings.length];
  const shared = { topk, firstToken, numTokens };
  if (kind === "fused") {
    const budget = settings.numWorstTokens > 0 ? settings.numWorstTokens : NO_BUDGET;
    const divisor = numLocalExperts(shape);
    return { ...shared, width: Math.min(topk, shape.numRanks), numKeys: shape.numRanks, divisor, budget };
  }
  const budget = settings.numPermutedTokens ?? NO_BUDGET;
  return { ...shared, width: topk, numKeys: shape.numExperts, divisor: 1, budget };
}

/** The topkIdx rows of tokens [first, first + count) of all ranks, -1 in columns a rank does not have. */
export function uploadIds(
  context: Context,
  buffer: GPUBuffer,
  routings: readonly RankRouting[],
  firstToken: readonly number[],
  topk: number,
  first: number,
  count: number,
): void {
  const ids = new Int32Array(count * topk).fill(-1);
  routings.forEach((routing, i) => {
    const from = Math.max(first, firstToken[i]);
    const to = Math.min(first + count, firstToken[i + 1]);
    if (from >= to) return;
    if (routing.topk === topk) {
      const own = routing.topkIdx.subarray((from - firstToken[i]) * topk, (to - firstToken[i]) * topk);
      ids.set(own, (from - first) * topk);
      return;
    }
    for (let token = from; token < to; token++) {
      const own = (token - firstToken[i]) * routing.topk;
      ids.set(routing.topkIdx.subarray(own, own + routing.topk), (token - first) * topk);
    }
  });
  context.device.gpu.queue.writeBuffer(buffer, 0, ids);
}

class LayoutRun {
  readonly #context: Context;
  readonly #routings: readonly RankRouting[];
  readonly #shape: GroupShape;
  readonly #settings: DispatchSettings;
  readonly #sizes: Sizes;
  readonly #tokensPerChunk: number;
  readonly #tokensPerTile: number;
  /** Error scopes of what was submitted since the last read. */
  readonly #checks: Promise<void>[] = [];

  constructor(
    context: Context,
    routings: readonly RankRouting[],
    shape: GroupShape,
    settings: DispatchSettings,
    sizes: Sizes,
  ) {
    this.#context = context;
    this.#routings = routings;
    this.#shape = shape;
    this.#settings = settings;
    this.#sizes = sizes;
    const { numTokens, numKeys, topk, width } = sizes;
    const bytesPerToken = 4 * (3 * width + topk);
    const fitting = Math.floor(chunkBytes(context.device) / bytesPerToken);
    this.#tokensPerChunk = Math.max(1, Math.min(numTokens, fitting));
    const mostCounters = Math.min(MOST_COUNTERS, chunkBytes(context.device) / 4);
    const mostTiles = Math.max(1, Math.floor(mostCounters / numKeys));
    this.#tokensPerTile = Math.max(LEAST_TOKENS_PER_TILE, Math.ceil(this.#tokensPerChunk / mostTiles));
  }

  async positions(kind: HandleKind): Promise<Positions> {
    const { device, pool } = this.#context;
    const { numTokens, width, topk, numKeys } = this.#sizes;
    const { numExperts, numRanks } = this.#shape;
    const found = {
      keys: new Int32Array(numTokens * width),
      slots: new Int32Array(numTokens * width),
      rows: new Int32Array(numTokens * width),
      cut: new Uint32Array(numTokens * topk),
      wanted: new Uint32Array(numKeys),
      received: new Uint32Array(numExperts),
      padded: new Uint32Array(numExperts),
      numRows: new Uint32Array(numRanks),
    };
    const lease = new Lease(pool);
    try {
      const list = this.#tokensPerChunk * width * 4;
      const buffers = {
        ids: await lease.acquire("topkIdx", this.#tokensPerChunk * topk * 4, STORAGE),
        keys: await lease.acquire("keys of entries", list, STORAGE),
        slots: await lease.acquire("slots of entries", list, STORAGE),
        rows: await lease.acquire("rows of entries", list, STORAGE),
        cut: await lease.acquire("cut slots", this.#tokensPerChunk * topk * 4, STORAGE),
        counts: await lease.acquire("counts of tiles", this.#numTiles(this.#tokensPerChunk) * numKeys * 4, STORAGE),
        next: await lease.acquire("next rows", numKeys * 4, STORAGE),
        received: await lease.acquire("received slots", numExperts * 4, STORAGE),
        padded: await lease.acquire("padded slots", numExperts * 4, STORAGE),
        numRows: await lease.acquire("rows of ranks", numRanks * 4, STORAGE),
      };
      await streaming(this.#context, async (stream) => {
        await this.#submit("webgpu kernel layout", [], (encoder) => {
          for (const buffer of [buffers.next, buffers.received]) encoder.clearBuffer(buffer);
        });
        if (kind === "hybrid-ep") {
          for (let first = 0; first < numTokens; first += this.#tokensPerChunk) await this.#count(buffers, first);
          await this.#blocks(buffers);
        }
        for (let first = 0; first < numTokens; first += this.#tokensPerChunk) {
          await this.#count(buffers, first);
          await this.#place(buffers, first, kind, stream, found);
        }
        await this.#readTotals(buffers, stream, found);
      });
    } finally {
      lease.release();
    }
    device.expectUsable();
    return found;
  }

  #numTiles(numTokens: number): number {
    return Math.ceil(numTokens / this.#tokensPerTile);
  }

  #chunkTokens(first: number): number {
    return Math.min(this.#tokensPerChunk, this.#sizes.numTokens - first);
  }

  /** Sorted entries of a chunk's tokens, and per tile and key the row of its first one. */
  async #count(buffers: Record<"ids" | "keys" | "slots" | "counts" | "next", GPUBuffer>, first: number): Promise<void> {
    const { topk, width, numKeys, divisor, firstToken } = this.#sizes;
    const numTokens = this.#chunkTokens(first);
    const numTiles = this.#numTiles(numTokens);
    uploadIds(this.#context, buffers.ids, this.#routings, firstToken, topk, first, numTokens);
    await this.#submit("webgpu kernel layout_count", [
      ["layout_entries", numTokens, [numTokens, topk, width, divisor], [buffers.ids, buffers.keys, buffers.slots]],
      ["layout_count", numTiles, [numTokens, width, this.#tokensPerTile, numKeys], [buffers.keys, buffers.counts]],
      ["layout_scan", numKeys, [numTiles, numKeys], [buffers.counts, buffers.next]],
    ]);
  }

  async #blocks(buffers: Record<"next" | "received" | "padded" | "numRows", GPUBuffer>): Promise<void> {
    const { numRanks, numExperts } = this.#shape;
    const pad = Math.max(1, this.#settings.padMultiple);
    await this.#submit("webgpu kernel layout_blocks", [
      [
        "layout_blocks",
        numRanks,
        [numRanks, numExperts / numRanks, pad, this.#sizes.budget],
        [buffers.next, buffers.received, buffers.padded, buffers.numRows],
      ],
    ]);
  }

  async #place(
    buffers: Record<"ids" | "keys" | "slots" | "rows" | "cut" | "counts" | "received", GPUBuffer>,
    first: number,
    kind: HandleKind,
    stream: ReadStream,
    found: Pick<Positions, "keys" | "slots" | "rows" | "cut">,
  ): Promise<void> {
    const { topk, width, numKeys, divisor, budget } = this.#sizes;
    const numTokens = this.#chunkTokens(first);
    const list = numTokens * width * 4;
    const params = [numTokens, width, this.#tokensPerTile, numKeys, topk, divisor, budget];
    const { ids, keys, slots, rows, cut, counts, received } = buffers;
    const steps: Step[] = [["layout_place", this.#numTiles(numTokens), params, [ids, keys, slots, rows, counts, cut]]];
    if (kind === "fused") {
      steps.push(["layout_received", numTokens * topk, [numTokens * topk], [ids, cut, received]]);
    }
    const slotBytes = numTokens * topk * 4;
    await stream.push(
      "webgpu kernel layout_place",
      3 * list + slotBytes,
      async (staging) => {
        await this.#submit("webgpu kernel layout_place", steps, (encoder) => {
          [keys, slots, rows].forEach((buffer, i) => {
            encoder.copyBufferToBuffer(buffer, 0, staging, i * list, list);
          });
          encoder.copyBufferToBuffer(cut, 0, staging, 3 * list, slotBytes);
        });
        return this.#checks.splice(0);
      },
      (bytes) => {
        const part = (i: number) => new Int32Array(bytes.buffer, bytes.byteOffset + i * list, list / 4);
        found.keys.set(part(0), first * width);
        found.slots.set(part(1), first * width);
        found.rows.set(part(2), first * width);
        found.cut.set(new Uint32Array(bytes.buffer, bytes.byteOffset + 3 * list, slotBytes / 4), first * topk);
      },
    );
  }

  async #readTotals(
    buffers: Record<"next" | "received" | "padded" | "numRows", GPUBuffer>,
    stream: ReadStream,
    found: Pick<Positions, "wanted" | "received" | "padded" | "numRows">,
  ): Promise<void> {
    const pairs = [
      [buffers.next, found.wanted],
      [buffers.received, found.received],
      [buffers.padded, found.padded],
      [buffers.numRows, found.numRows],
    ] as const;
    await stream.push(
      "webgpu kernel layout",
      pairs.reduce((bytes, [, target]) => bytes + target.byteLength, 0),
      async (staging) => {
        await this.#submit("webgpu kernel layout", [], (encoder) => {
          let offset = 0;
          for (const [buffer, target] of pairs) {
            encoder.copyBufferToBuffer(buffer, 0, staging, offset, target.byteLength);
            offset += target.byteLength;
          }
        });
        return this.#checks.splice(0);
      },
      (bytes) => {
        let offset = bytes.byteOffset;
        for (const [, target] of pairs) {
          target.set(new Uint32Array(bytes.buffer, offset, target.length));
          offset += target.byteLength;
        }
      },
    );
  }

  async #submit(what: string, steps: readonly Step[], finish?: (encoder: GPUCommandEncoder) => void): Promise<void> {
    const { device, launcher } = this.#context;
    const kernels = steps.map(([name]) => itemKernel(device, name));
    const pipelines = await Promise.all(kernels.map((kernel) => launcher.pipeline(kernel)));
    const { checked } = device.guard(what, () => {
      const encoder = device.gpu.createCommandEncoder();
      const pass = encoder.beginComputePass();
      steps.forEach(([, numItems, params, buffers], i) => {
        launcher.encode(pass, kernels[i], pipelines[i], { params, buffers, numItems });
      });
      pass.end();
      finish?.(encoder);
      device.gpu.queue.submit([encoder.finish()]);
    });
    this.#checks.push(checked);
  }
}

type Step = readonly [name: string, numItems: number, params: readonly number[], buffers: readonly GPUBuffer[]];
