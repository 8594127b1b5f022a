import { describe, expect, it } from "vitest";
import { InvalidArgument } from "../../../core/errors.ts";
import { memorySink, memorySource } from "../../../core/io/bytes.ts";
import { safetensorsBytes } from "../../../core/io/safetensors/index.ts";
import { encodeText } from "../../../core/io/text.ts";
import { hasWeights, writeRouting } from "../../../core/routing/export.ts";
import { joinRoutingFiles, openRouting, type RoutingFile, splitRanks } from "../../../core/routing/import/index.ts";
import { viewRouting } from "../../../core/routing/view.ts";
import { tensor } from "../../../core/tensor.ts";
import { writeTrace } from "../../../core/trace/write.ts";

/** [layers, tokens, 1] ids counting up from `first`, weights the same numbers. */
async function counting(first: number, numLayers: number, numTokens: number, metadata = {}): Promise<RoutingFile> {
  const data = Array.from({ length: numLayers * numTokens }, (_, i) => first + i);
  const shape = [numLayers, numTokens, 1];
  const entries = [
    { name: "topk_idx", tensor: tensor("i32", shape, new Int32Array(data)) },
    { name: "topk_weights", tensor: tensor("fp32", shape, new Float32Array(data)) },
  ];
  return openRouting(memorySource(await safetensorsBytes(metadata, entries), `f${first}`));
}

describe("a trace as routing", () => {
  it("every (step, layer) is a layer whose ranks are kept apart", async () => {
    const sink = memorySink();
    const sizes = { numSteps: 2, numLayers: 2, numRanks: 2, ranksPerNode: 2, numExperts: 4, topk: 2 };
    const settings = { expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null };
    const header = {
      ...sizes,
      producer: "test",
      clock: "none",
      hidden: 8,
      dtype: "bf16",
      rowBytes: 16,
      style: "fused",
      settings,
    } as const;
    await writeTrace(sink, header, (step, layer) => ({
      topkIdx: [Int32Array.of(step, 3), layer ? Int32Array.of(layer, 2, -1, 3) : new Int32Array(0)],
      topkWeights: [Float32Array.of(0.75, 0.25), new Float32Array(layer ? 4 : 0).fill(0.5)],
      phases: [],
      waitUs: null,
    }));
    const file = await openRouting(memorySource(sink.bytes() ?? new Uint8Array(0)));
    expect(file).toMatchObject({ format: "trace", numLayers: 4, numTokens: 3, numRanks: 2, topk: 2, numExperts: 4 });
    expect(file.layerNames).toEqual(["0.0", "0.1", "1.0", "1.1"]);
    const [rank0, rank1] = splitRanks(await file.layer(3), 2);
    expect([...rank0.topkIdx.data]).toEqual([1, 3]);
    expect([...rank1.topkIdx.data]).toEqual([1, 2, -1, 3]);
    expect([...(rank1.topkWeights?.data ?? [])]).toEqual([0.5, 0.5, 0.5, 0.5]);
    expect((await file.layer(2)).firstToken).toEqual([0, 1, 1]);
  });
});

describe("joining one file per rank", () => {
  it("tokens become ranks", async () => {
    const joined = await joinRoutingFiles([await counting(0, 2, 3), await counting(6, 2, 1)]);
    expect(joined).toMatchObject({
      numRanks: 2,
      numTokens: 4,
      numExperts: 8,
      numExpertsFrom: "inferred",
      name: "f0 + f6",
    });
    const layer = await joined.layer(1);
    expect([...layer.topkIdx.data]).toEqual([3, 4, 5, 7]);
    expect(layer.firstToken).toEqual([0, 3, 4]);
  });

  it("states the experts only when every file does", async () => {
    const stated = await counting(0, 1, 1, { num_experts: "16" });
    expect(await joinRoutingFiles([stated, await counting(1, 1, 1, { num_experts: "16" })])).toMatchObject({
      numExperts: 16,
      numExpertsFrom: "stated",
    });
    expect((await joinRoutingFiles([stated, await counting(1, 1, 1)])).numExpertsFrom).toBe("inferred");
  });

  it("refuses files that do not belong together, and leaves one file alone", async () => {
    const one = await counting(0, 1, 2);
    expect(await joinRoutingFiles([one])).toBe(one);
    await expect(joinRoutingFiles([one, await counting(0, 2, 2)])).rejects.toThrow(InvalidArgument);
    const loads = await openRouting(memorySource(encodeText("layer,expert\n0,1\n")));
    await expect(joinRoutingFiles([one, loads])).rejects.toThrow(/files: expected tokens of layers 0/);
  });
});

describe("a part of a routing file", () => {
  it("one layer, without its first rows", async () => {
    const view = viewRouting(await counting(0, 3, 4), { layer: 1, cutRows: 3 });
    expect(view).toMatchObject({ numLayers: 1, numTokens: 1, layerNames: ["1"] });
    expect([...(await view.layer(0)).topkIdx.data]).toEqual([7]);
    expect([...((await view.layer(0)).topkWeights?.data ?? [])]).toEqual([7]);
    expect((await view.loads(0)).reduce((a, b) => a + b)).toBe(1);
    await expect(view.layer(1)).rejects.toThrow(InvalidArgument);
  });

  it("refuses a layer that is not there and a head of ranks or loads", async () => {
    const file = await counting(0, 1, 2);
    expect(() => viewRouting(file, { layer: 1 })).toThrow(InvalidArgument);
    const joined = await joinRoutingFiles([file, await counting(0, 1, 2)]);
    expect(() => viewRouting(joined, { cutRows: 1 })).toThrow(/cut-head: expected a file without ranks/);
    const loads = await openRouting(memorySource(encodeText("layer,expert\n0,1\n")));
    expect(() => viewRouting(loads, { cutRows: 1 })).toThrow(/cut-head: expected a file of tokens/);
  });
});

describe("writing routing", () => {
  it("gives back what was read, ids above 32767 too", async () => {
    for (const first of [0, 40000]) {
      const file = await counting(first, 2, 3);
      const sink = memorySink();
      await writeRouting(sink, file, { note: "x" });
      const again = await openRouting(memorySource(sink.bytes() ?? new Uint8Array(0)));
      expect(again).toMatchObject({
        numLayers: 2,
        numTokens: 3,
        topk: 1,
        numExperts: first + 6,
        numExpertsFrom: "inferred",
      });
      for (let i = 0; i < 2; i++) expect(await again.layer(i)).toEqual(await file.layer(i));
      expect(await hasWeights(again)).toBe(true);
    }
  });
});
