import { describe, expect, it } from "vitest";
import { encodeHandle } from "../../../core/handle/encode.ts";
import { memorySource } from "../../../core/io/bytes.ts";
import { safetensorsBytes } from "../../../core/io/safetensors/index.ts";
import { fusedHandle, hybridEpHandle } from "../../../core/layout/positions.ts";
import { tensor } from "../../../core/tensor.ts";
import { loadFrame } from "../../../viz/model/dataset.ts";
import { openDataset } from "../../../viz/model/open.ts";
import { DEFAULT_PLACEMENT } from "../../../viz/model/state.ts";
import { twoNodes } from "./by-hand.ts";

const { header, chunk } = twoNodes;
const routings = chunk.topkIdx.map((topkIdx, rank) => ({
  rank,
  numTokens: topkIdx.length / 2,
  topk: 2,
  topkIdx,
  topkWeights: null,
}));
const open = async (bytes: Uint8Array, placement = DEFAULT_PLACEMENT) =>
  openDataset(memorySource(bytes, "f.safetensors"), { placement });
const file = (tensors: Iterable<[string, ReturnType<typeof tensor>]>, metadata = {}) =>
  safetensorsBytes(
    metadata,
    [...tensors].map(([name, value]) => ({ name, tensor: value })),
  );

describe("files the viewer opens", () => {
  it("a permuted handle gives the routing back, what overflow cut included", async () => {
    for (const numPermutedTokens of [null, 2]) {
      const data = hybridEpHandle(routings, header, { padMultiple: 2, numPermutedTokens });
      const dataset = await open(await file(encodeHandle(data)));
      expect(dataset.kind).toBe("handle");
      expect((await dataset.chunk(0, 0)).topkIdx).toEqual(chunk.topkIdx);
      const { bufferRows } = await dataset.summary(0);
      expect(bufferRows[3]).toBe(numPermutedTokens === null ? 0 : 1);
    }
  });

  it("a fused handle alone shows each rank as one expert, and says so", async () => {
    const dataset = await open(
      await file(encodeHandle(fusedHandle(routings, header, { expertAlignment: 1, numWorstTokens: 0 }))),
    );
    expect(dataset.header.numExperts).toBe(4);
    expect(dataset.notes.join(" ")).toMatch(/each rank is shown as one expert/);
    const { traffic } = await dataset.summary(0);
    expect([...(traffic?.rows ?? [])]).toEqual([1, 1, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  });

  it("a fused dispatch's output gives experts and weights back from its rows", async () => {
    const data = fusedHandle(routings, header, { expertAlignment: 1, numWorstTokens: 0 });
    const tensors = encodeHandle(data);
    for (const { rank, numRows, rowSrcRank, rowSrcToken } of data.ranks) {
      const ids = tensor("i32", [numRows, 2]);
      const weights = tensor("fp32", [numRows, 2]);
      for (let row = 0; row < numRows; row++) {
        for (let slot = 0; slot < 2; slot++) {
          const at = rowSrcToken[row] * 2 + slot;
          const expert = chunk.topkIdx[rowSrcRank[row]][at];
          const here = Math.floor(expert / 2) === rank && expert >= 0;
          ids.data[row * 2 + slot] = here ? expert - rank * 2 : -1;
          weights.data[row * 2 + slot] = here ? (chunk.topkWeights?.[rowSrcRank[row]][at] ?? 0) : 0;
        }
      }
      tensors.set(`rank${rank}.recv_topk_idx`, ids);
      tensors.set(`rank${rank}.recv_topk_weights`, weights);
    }
    const given = await (await open(await file(tensors))).chunk(0, 0);
    expect(given.topkIdx).toEqual(chunk.topkIdx);
    expect(given.topkWeights).toEqual(chunk.topkWeights);
  });

  it("a routing file is laid on the ranks the reader chose", async () => {
    const ids = tensor(
      "i32",
      [2, 6, 2],
      Int32Array.from({ length: 24 }, (_, i) => (i * 5) % 12),
    );
    const placement = { ...DEFAULT_PLACEMENT, ranks: 3, nodes: 3, style: "hybrid-ep" as const, pad: 8 };
    const dataset = await open(await file([["topk_idx", ids]]), placement);
    expect(dataset.header).toMatchObject({
      numLayers: 2,
      numRanks: 3,
      ranksPerNode: 1,
      numExperts: 12,
      style: "hybrid-ep",
    });
    const frame = await loadFrame(dataset, 0, 1, true);
    expect(frame.chunk?.topkIdx.map((rank) => rank.length)).toEqual([4, 4, 4]);
    expect(dataset.hasWeights).toBe(false);
  });

  const ok = tensor("i32", [4, 2], Int32Array.of(0, 1, 2, 3, 0, 2, 1, 3));
  it.each([
    ["an empty file", async () => new Uint8Array(0), /received 0 bytes at f.safetensors, offset 0/],
    ["text", async () => new TextEncoder().encode("hello there, this is no routing\n"), /f\.safetensors/],
    ["a truncated file", async () => (await file([["topk_idx", ok]])).slice(0, 90), /f\.safetensors, offset \d+/],
    ["other tensors", () => file([["weights", ok]]), /weights/],
    [
      "an expert twice",
      () => file([["topk_idx", tensor("i32", [1, 2], Int32Array.of(1, 1))]]),
      /expert 1 a second time at f\.safetensors, rank \d, token 0, slot 1/,
    ],
    ["an id below -1", () => file([["topk_idx", tensor("i32", [1, 2], Int32Array.of(1, -4))]]), /received -4/],
    [
      "NaN weights",
      () =>
        file([
          ["topk_idx", ok],
          ["topk_weights", tensor("fp32", [4, 2], new Float32Array(8).fill(Number.NaN))],
        ]),
      /received NaN/,
    ],
    ["a newer trace", () => file([], { format: "fused-a2a-trace", version: "9" }), /version: expected 1, received 9/],
    ["a damaged handle", () => file([["rank0.handle.meta", tensor("i64", [2])]]), /handle/],
  ])("refuses %s by name", async (_name, make, message) => {
    await expect(open(await make(), { ...DEFAULT_PLACEMENT, ranks: 1 })).rejects.toThrow(message);
  });

  it("stops when it is cancelled", async () => {
    const source = memorySource(await file([["topk_idx", ok]]), "f");
    const signal = AbortSignal.abort(new Error("cancelled"));
    await expect(openDataset(source, { placement: DEFAULT_PLACEMENT, signal })).rejects.toThrow("cancelled");
  });
});
