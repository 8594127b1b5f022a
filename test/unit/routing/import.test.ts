import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bf16FromNumber } from "../../../core/dtype/bf16.ts";
import { InvalidArgument, InvalidFile } from "../../../core/errors.ts";
import { memorySink, memorySource } from "../../../core/io/bytes.ts";
import { writeNpy } from "../../../core/io/npy.ts";
import { safetensorsBytes } from "../../../core/io/safetensors/index.ts";
import { encodeText } from "../../../core/io/text.ts";
import {
  FORMATS,
  type OpenRoutingOptions,
  openRouting,
  type RoutingFile,
  splitRanks,
} from "../../../core/routing/import/index.ts";
import { type Tensor, tensor } from "../../../core/tensor.ts";
import { fileSource } from "../../../core/topology/index.ts";

type Tensors = Record<string, Tensor>;
const i32 = (shape: number[], data: number[]) => tensor("i32", shape, new Int32Array(data));
const f32 = (shape: number[], data: number[]) => tensor("fp32", shape, new Float32Array(data));

async function openTensors(tensors: Tensors, metadata = {}, options: OpenRoutingOptions = {}): Promise<RoutingFile> {
  const entries = Object.entries(tensors).map(([name, value]) => ({ name, tensor: value }));
  return openRouting(memorySource(await safetensorsBytes(metadata, entries), "f"), options);
}

const openText = (text: string, options: OpenRoutingOptions = {}) =>
  openRouting(memorySource(encodeText(text), "f"), options);

async function npy(value: Tensor): Promise<Uint8Array> {
  const sink = memorySink();
  await writeNpy(sink, value);
  return sink.bytes() ?? new Uint8Array(0);
}

/** All layers as nested lists. */
async function idsOf(file: RoutingFile): Promise<number[][][]> {
  const layers = [];
  for (let i = 0; i < file.numLayers; i++) {
    const { topkIdx } = await file.layer(i);
    const [tokens, topk] = topkIdx.shape;
    layers.push(Array.from({ length: tokens }, (_, t) => [...topkIdx.data.subarray(t * topk, (t + 1) * topk)]));
  }
  return layers;
}

describe("safetensors and npy of arrays", () => {
  const ids = [0, 1, 2, 3, 4, 5, 1, 0, 3, 2, 5, -1];
  const weights = ids.map((_, i) => i / 4);

  it("[layers, tokens, topk] with weights, stated experts and layer names", async () => {
    const tensors = { topk_idx: i32([2, 3, 2], ids), topk_weights: f32([2, 3, 2], weights) };
    const file = await openTensors(tensors, { num_experts: "8", layers: "[4, 9]" });
    expect(file).toMatchObject({ format: "arrays", kind: "tokens", numLayers: 2, numTokens: 3, topk: 2 });
    expect(file).toMatchObject({ numExperts: 8, numExpertsFrom: "stated", layerNames: ["4", "9"], numRanks: null });
    expect(await idsOf(file)).toEqual([
      [
        [0, 1],
        [2, 3],
        [4, 5],
      ],
      [
        [1, 0],
        [3, 2],
        [5, -1],
      ],
    ]);
    expect((await file.layer(1)).topkWeights).toEqual(f32([3, 2], weights.slice(6)));
    expect([...(await file.loads(1))]).toEqual([1, 1, 1, 1, 0, 1, 0, 0]);
    await expect(file.layer(2)).rejects.toThrow(InvalidArgument);
  });

  it("[tokens, topk] in every dtype of ids and weights; experts inferred", async () => {
    const shape = [6, 2];
    const all: Tensor[] = [
      i32(shape, ids),
      tensor("i16", shape, new Int16Array(ids)),
      tensor("i64", shape, new BigInt64Array(ids.map(BigInt))),
    ];
    const bf16 = tensor("bf16", shape, Uint16Array.from(weights, bf16FromNumber));
    for (const topkIdx of all) {
      const file = await openTensors({ topk_idx: topkIdx, topk_weights: bf16 });
      expect(file).toMatchObject({ numLayers: 1, numTokens: 6, numExperts: 6, numExpertsFrom: "inferred" });
      const layer = await file.layer(0);
      expect(layer.topkIdx).toEqual(i32(shape, ids));
      expect(layer.topkWeights).toEqual(f32(shape, weights));
    }
  });

  it("the caller's number of experts wins", async () => {
    const file = await openTensors({ topk_idx: i32([6, 2], ids) }, { num_experts: "8" }, { numExperts: 16 });
    expect(file).toMatchObject({ numExperts: 16, numExpertsFrom: "stated" });
  });

  it("npy, with weights in a second file and with tokens first", async () => {
    const idFile = await npy(i32([2, 3, 2], ids));
    const options = { weights: memorySource(await npy(f32([2, 3, 2], weights))) };
    const file = await openRouting(memorySource(idFile), options);
    expect(file).toMatchObject({ format: "npy", numLayers: 2, numTokens: 3, numExperts: 6 });
    expect((await file.layer(0)).topkWeights).toEqual(f32([3, 2], weights.slice(0, 6)));
    const first = await openRouting(memorySource(await npy(i32([3, 2, 2], ids))), { tokensFirst: true });
    expect(await idsOf(first)).toEqual([
      [
        [0, 1],
        [4, 5],
        [3, 2],
      ],
      [
        [2, 3],
        [1, 0],
        [5, -1],
      ],
    ]);
  });

  it.each([
    ["floats as ids", { topk_idx: f32([1, 2], [0, 1]) }, /topk_idx: expected whole numbers.*received fp32 \[1, 2\]/],
    ["one dimension", { topk_idx: i32([2], [0, 1]) }, /topk_idx: expected \[tokens, topk\] or/],
    ["no slots", { topk_idx: i32([2, 0], []) }, /topk_idx: expected at least one slot/],
    [
      "weights of another shape",
      { topk_idx: i32([1, 2], [0, 1]), topk_weights: f32([2, 1], [1, 1]) },
      /topk_weights: expected the shape/,
    ],
    [
      "ids of 64 bits",
      { topk_idx: tensor("i64", [2, 1], new BigInt64Array([1n, 1n << 40n])) },
      /1099511627776 at token 1, slot 0/,
    ],
  ])("refuses %s", async (_, tensors: Tensors, message) => {
    await expect(openTensors(tensors)).rejects.toThrow(message);
    await expect(openTensors(tensors)).rejects.toThrow(InvalidFile);
  });

  it("refuses a number of experts that is none", async () => {
    await expect(openTensors({ topk_idx: i32([1, 1], [0]) }, { num_experts: "many" })).rejects.toThrow(/num_experts/);
  });

  it("refuses a routing file of an unknown version by name", async () => {
    const metadata = { format: "fused-a2a-routing", version: "2" };
    await expect(openTensors({ topk_idx: i32([1, 1], [0]) }, metadata)).rejects.toThrow(
      /__metadata__\.version: expected 1, received 2 at f; update fused-a2a/,
    );
  });

  it("names npy weights given first", async () => {
    await expect(openRouting(memorySource(await npy(f32([1, 1], [1]))))).rejects.toThrow(/--weights/);
  });
});

describe("tensors per rank", () => {
  it("keeps the ranks apart, empty ones too", async () => {
    const file = await openTensors({
      "rank0.topk_idx": i32([2, 2], [0, 1, 2, 3]),
      "rank0.topk_weights": f32([2, 2], [1, 2, 3, 4]),
      "rank1.topk_idx": i32([0, 2], []),
      "rank1.topk_weights": f32([0, 2], []),
      "rank2.topk_idx": i32([1, 2], [3, -1]),
      "rank2.topk_weights": f32([1, 2], [5, 0]),
      "rank0.x": f32([2, 1], [0, 0]),
    });
    expect(file).toMatchObject({ format: "per-rank", numRanks: 3, numTokens: 3, numExperts: 4 });
    const layer = await file.layer(0);
    expect(layer.firstToken).toEqual([0, 2, 2, 3]);
    const ranks = splitRanks(layer, 3);
    expect(ranks.map((rank) => rank.topkIdx.shape[0])).toEqual([2, 0, 1]);
    expect(ranks[2]).toEqual({ topkIdx: i32([1, 2], [3, -1]), topkWeights: f32([1, 2], [5, 0]) });
    expect(() => splitRanks(layer, 2)).toThrow(/ranks: expected 3, the ranks the file holds, received 2/);
  });

  it("in multihot form, with as many slots as the busiest token of all ranks", async () => {
    const file = await openTensors({
      "rank0.routing_map": tensor("bool", [1, 4], new Uint8Array([1, 0, 1, 1])),
      "rank0.probs": f32([1, 4], [0.5, 0, 0.25, 0.125]),
      "rank1.routing_map": tensor("bool", [2, 4], new Uint8Array([0, 1, 0, 0, 0, 0, 0, 0])),
      "rank1.probs": f32([2, 4], [0, 1, 0, 0, 0, 0, 0, 0]),
    });
    expect(file).toMatchObject({ topk: 3, numExperts: 4, numRanks: 2 });
    expect(await idsOf(file)).toEqual([
      [
        [0, 2, 3],
        [1, -1, -1],
        [-1, -1, -1],
      ],
    ]);
    expect((await file.layer(0)).topkWeights?.data.slice(0, 6)).toEqual(new Float32Array([0.5, 0.25, 0.125, 1, 0, 0]));
  });

  it.each([
    [
      "a rank that is missing",
      { "rank0.topk_idx": i32([1, 1], [0]), "rank2.topk_idx": i32([1, 1], [0]), x: f32([1], [0]) },
      /rank1\.topk_idx/,
    ],
    ["a far rank", { "rank0.topk_idx": i32([1, 1], [0]), "rank99999999.topk_idx": i32([1, 1], [0]) }, /rank99999999/],
    [
      "ranks of another topk",
      { "rank0.topk_idx": i32([1, 1], [0]), "rank1.topk_idx": i32([1, 2], [0, 1]) },
      /rank 1: expected 1 layers of top-1/,
    ],
  ])("refuses %s", async (_, tensors: Tensors, message) => {
    await expect(openTensors(tensors)).rejects.toThrow(message);
  });
});

describe("splitting tokens over ranks", () => {
  it("gives rank r rows [r T / R, (r + 1) T / R)", async () => {
    const file = await openTensors({
      topk_idx: i32([5, 1], [0, 1, 2, 3, 4]),
      topk_weights: f32([5, 1], [5, 6, 7, 8, 9]),
    });
    const ranks = splitRanks(await file.layer(0), 3);
    expect(ranks.map((rank) => [...rank.topkIdx.data])).toEqual([[0], [1, 2], [3, 4]]);
    expect(ranks.map((rank) => [...(rank.topkWeights?.data ?? [])])).toEqual([[5], [6, 7], [8, 9]]);
  });
});

describe("Megatron routing_map", () => {
  it("with probs and layers", async () => {
    const map = tensor("u8", [2, 2, 3], new Uint8Array([1, 0, 1, 0, 1, 0, 0, 0, 0, 1, 1, 0]));
    const probs = f32([2, 2, 3], [0.75, 0, 0.25, 0, 1, 0, 0, 0, 0, 0.5, 0.5, 0]);
    const file = await openTensors({ routing_map: map, probs });
    expect(file).toMatchObject({ format: "megatron", numLayers: 2, numTokens: 2, topk: 2, numExperts: 3 });
    expect(await idsOf(file)).toEqual([
      [
        [0, 2],
        [1, -1],
      ],
      [
        [-1, -1],
        [0, 1],
      ],
    ]);
    expect((await file.layer(0)).topkWeights).toEqual(f32([2, 2], [0.75, 0.25, 1, 0]));
  });

  it("refuses floats as a map and probs of another shape", async () => {
    await expect(openTensors({ routing_map: f32([1, 1], [1]) })).rejects.toThrow(/routing_map: expected bool or u8/);
    const map = tensor("bool", [1, 2], new Uint8Array([1, 0]));
    await expect(openTensors({ routing_map: map, probs: f32([2, 1], [1, 1]) })).rejects.toThrow(/probs: expected/);
  });
});

describe("SGLang", () => {
  it("logical_count: sums steps, counts unused ones, and has no tokens", async () => {
    const counts = tensor("i64", [3, 2, 2], new BigInt64Array([1n, 2n, 3n, 4n, 0n, 0n, 0n, 0n, 10n, 20n, 30n, 40n]));
    const file = await openTensors({ logical_count: counts });
    expect(file).toMatchObject({ format: "sglang-counts", kind: "counts", numLayers: 2, numExperts: 2, topk: 0 });
    expect([...(await file.loads(0)), ...(await file.loads(1))]).toEqual([11, 22, 33, 44]);
    expect(file.remarks).toEqual(["1 of 3 steps are all zero (the recorder's ring buffer was not full)"]);
    await expect(file.layer(0)).rejects.toThrow(/tokens: expected a file that says which token.*loads per expert only/);
  });

  it("refuses negative counts", async () => {
    await expect(openTensors({ logical_count: i32([1, 1, 1], [-1]) })).rejects.toThrow(/logical_count.*-1 at step 0/);
  });

  it("topk_ids_of_layer [layers, tokens, topk], -1 kept", async () => {
    const file = await openTensors({ topk_ids_of_layer: i32([1, 2, 2], [3, 1, -1, -1]) });
    expect(file.format).toBe("sglang-per-token");
    expect(await idsOf(file)).toEqual([
      [
        [3, 1],
        [-1, -1],
      ],
    ]);
  });

  it("routed_experts [tokens, layers, topk]", async () => {
    const file = await openTensors({ routed_experts: tensor("i16", [2, 2, 1], new Int16Array([0, 1, 2, 3])) });
    expect(file.format).toBe("routed-experts");
    expect(await idsOf(file)).toEqual([
      [[0], [2]],
      [[1], [3]],
    ]);
  });

  it("CSV of counts", async () => {
    const file = await openText("layer_id,expert_id,count\r\n3,1,5\r\n0,0,7\r\n3,1,2\r\n");
    expect(file).toMatchObject({ format: "sglang-csv", kind: "counts", layerNames: ["0", "3"], numExperts: 2 });
    expect([...(await file.loads(0))]).toEqual([7, 0]);
    expect([...(await file.loads(1))]).toEqual([0, 7]);
    await expect(openText("layer_id,expert_id,count\n1,2\n")).rejects.toThrow(/line 2: expected 3 whole numbers/);
    await expect(openText("layer_id,expert_id,count\n1,999999999,1\n")).rejects.toThrow(/line 2/);
    await expect(openText("layer_id,expert_id,count\n")).rejects.toThrow(/rows: expected at least one/);
  });
});

describe("routed_experts in responses", () => {
  it("nested lists of vLLM, the prompt first", async () => {
    const lines = [
      {
        prompt_routed_experts: [
          [
            [0, 1],
            [2, 3],
          ],
        ],
        routed_experts: [
          [
            [1, 0],
            [3, 2],
          ],
        ],
      },
      {
        choices: [
          {
            routed_experts: [
              [
                [2, 1],
                [0, 3],
              ],
            ],
          },
        ],
      },
    ];
    const file = await openText(lines.map((line) => JSON.stringify(line)).join("\n"));
    expect(file).toMatchObject({ format: "routed-experts-json", numLayers: 2, numTokens: 3, topk: 2 });
    expect(await idsOf(file)).toEqual([
      [
        [0, 1],
        [1, 0],
        [2, 1],
      ],
      [
        [2, 3],
        [3, 2],
        [0, 3],
      ],
    ]);
  });

  it("SGLang's base64, whose shape the caller states", async () => {
    const ids = new Int32Array([5, 6, 7, 8, 1, 2, 300, 4]);
    const base64 = Buffer.from(ids.buffer).toString("base64");
    const text = JSON.stringify({ text: "hi", meta_info: { routed_experts: base64 } });
    const file = await openText(text, { numLayers: 2, topk: 2 });
    expect(await idsOf(file)).toEqual([
      [
        [5, 6],
        [1, 2],
      ],
      [
        [7, 8],
        [300, 4],
      ],
    ]);
    await expect(openText(text)).rejects.toThrow(/--layers and --topk/);
    await expect(openText(text, { numLayers: 3, topk: 2 })).rejects.toThrow(
      /expected base64 of int32 \[tokens, 3, 2\]/,
    );
  });

  it("refuses other shapes", async () => {
    await expect(openText('{"routed_experts":[[1]]}')).rejects.toThrow(/line 1: expected routed_experts as lists/);
  });
});

describe("vLLM logger", () => {
  const meta = '{"type":"meta","model_id":"m","layers_logged":[0],"top_k":2}';
  const route = (token: number, ids: string, weights: string, layer = 0) =>
    `{"type":"route","req_id":"r","token_idx":${token},"layer":${layer},"topk_ids":${ids},"topk_weights":${weights}}`;

  it("reads rows with their lines, weights and repeated keys; Python's NaN becomes NaN", async () => {
    const text = [
      meta,
      route(0, "[3,1]", "[0.75,0.25]"),
      "",
      route(0, "[0,2]", "[NaN, 0.5]"),
      route(1, "[0,2]", "[1,0]"),
    ];
    const file = await openText(`${text.join("\n")}\n`);
    expect(file).toMatchObject({ format: "vllm-logger", topk: 2, numTokens: 3, numExperts: 4, layerNames: ["0"] });
    const layer = await file.layer(0);
    expect(layer.topkIdx).toEqual(i32([3, 2], [3, 1, 0, 2, 0, 2]));
    expect(layer.topkWeights).toEqual(f32([3, 2], [0.75, 0.25, Number.NaN, 0.5, 1, 0]));
    expect([...(layer.lines ?? [])]).toEqual([2, 4, 5]);
    expect(layer.numRepeatedKeys).toBe(1);
  });

  it("keeps layers apart", async () => {
    const file = await openText([meta, route(0, "[1,0]", "[1,0]", 7), route(0, "[2,3]", "[1,0]", 2)].join("\n"));
    expect(file.layerNames).toEqual(["2", "7"]);
    expect(await idsOf(file)).toEqual([[[2, 3]], [[1, 0]]]);
  });

  it.each([
    ["another number of ids", route(0, "[1]", "[1]"), /line 2: expected topk_ids with 2 ids, received 1 ids/],
    ["no ids", '{"type":"route","layer":0}', /line 2: expected topk_ids/],
    ["too few weights", route(0, "[1,0]", "[1]"), /line 2: expected 2 weights/],
    ["ids that are no numbers", route(0, '["a",0]', "[1,0]"), /line 2: expected expert ids.*"a"/],
    ["a layer that is no number", '{"type":"route","layer":"x","topk_ids":[1,2]}', /line 2: expected a layer number/],
    ["a line cut off", '{"type":"route","lay', /line 2: expected a JSON object/],
    ["another type", '{"type":"rout"}', /line 2: expected type meta or route, received "rout"/],
    ["no rows", "", /rows: expected at least one route line/],
  ])("refuses %s", async (_, line, message) => {
    const error = await openText(`${meta}\n${line}`).catch((e) => e);
    expect(error).toBeInstanceOf(InvalidFile);
    expect(error.message).toMatch(message);
  });
});

describe("moe-cache-lab", () => {
  const head = (version: number) =>
    `{"record_type":"metadata","format":"moe-cache-lab.routing-jsonl","format_version":${version},"model_id":"m","num_experts":8,"experts_per_token":2}`;
  const record = (fields: object) => JSON.stringify({ record_type: "routing_selection", phase: "prompt", ...fields });

  it("version 1: prompt layer-major, then generated", async () => {
    const text = [
      head(1),
      record({ token_position: 0, layer: 0, selected_experts: [1, 2], selected_probabilities: [0.75, 0.25] }),
      record({ token_position: 1, layer: 0, selected_experts: [3, 4], selected_probabilities: [0.5, 0.5] }),
      record({ token_position: 0, layer: 1, selected_experts: [5, 6] }),
      record({ token_position: 1, layer: 1, selected_experts: [7, 0] }),
      record({
        phase: "generated",
        token_position: 0,
        layer: 0,
        selected_experts: [2, 1],
        selected_probabilities: [1, 0],
      }),
      record({ phase: "generated", token_position: 0, layer: 1, selected_experts: [6, 5] }),
    ];
    const file = await openText(text.join("\n"));
    expect(file).toMatchObject({
      format: "moe-cache-lab",
      numLayers: 2,
      topk: 2,
      numExperts: 8,
      numExpertsFrom: "stated",
    });
    expect(await idsOf(file)).toEqual([
      [
        [1, 2],
        [3, 4],
        [2, 1],
      ],
      [
        [5, 6],
        [7, 0],
        [6, 5],
      ],
    ]);
    expect((await file.layer(0)).topkWeights).toEqual(f32([3, 2], [0.75, 0.25, 0.5, 0.5, 1, 0]));
    expect((await file.layer(1)).topkWeights).toBe(null);
    expect((await file.layer(0)).numRepeatedKeys).toBe(0);
  });

  it("version 2: unassigned tokens are rows of -1", async () => {
    const text = [
      head(2),
      record({
        token_position: 0,
        layer: 0,
        selected_experts: [1, 2],
        assignment_state: "assigned",
        routing_stage: "x",
      }),
      record({ token_position: 1, layer: 0, assignment_state: "unassigned", unassigned_reason: "capacity" }),
    ];
    const file = await openText(text.join("\n"));
    expect(await idsOf(file)).toEqual([
      [
        [1, 2],
        [-1, -1],
      ],
    ]);
    expect(file.remarks).toEqual(["1 records are unassigned: tokens without experts"]);
  });

  it.each([
    ["another version", [head(3)], /format_version: expected 1 or 2, received 3/],
    ["another record", [head(1), '{"record_type":"x"}'], /line 2: expected record_type routing_selection/],
    [
      "another phase",
      [head(1), record({ phase: "train", token_position: 0, layer: 0, selected_experts: [1] })],
      /phase/,
    ],
    ["too many experts", [head(1), record({ token_position: 0, layer: 0, selected_experts: [1, 2, 3] })], /3 experts/],
    ["nothing", [head(1)], /rows/],
  ])("refuses %s", async (_, lines, message) => {
    await expect(openText(lines.join("\n"))).rejects.toThrow(message);
  });
});

describe("llama.cpp moe-trace", () => {
  const text = "layer,expert\n0,1\n0,2\n1,3\n1,0\n0,3\n0,1\n";

  it("gives loads, and says why no tokens", async () => {
    const file = await openText(text);
    expect(file).toMatchObject({ format: "llama-cpp", kind: "counts", numLayers: 2, numExperts: 4 });
    expect([...(await file.loads(0))]).toEqual([0, 2, 1, 1]);
    expect(file.remarks[0]).toContain("no token boundaries");
    await expect(file.layer(0)).rejects.toThrow(InvalidFile);
    const refused = await file.layer(0).catch((error) => error);
    const simulate = () => fileSource(file, { numRanks: 2, ranksPerNode: 2 }, { numSteps: 1, layers: [0] });
    expect(simulate).toThrow(InvalidFile);
    expect(simulate).toThrow(refused.message);
    expect(refused.message).toContain("or generate routing with --workload");
  });

  it("gives tokens when topk is stated", async () => {
    const file = await openText(text, { topk: 2 });
    expect(await idsOf(file)).toEqual([
      [
        [1, 2],
        [3, 1],
      ],
      [[3, 0]],
    ]);
    await expect(openText(text, { topk: 3 })).rejects.toThrow(/layer 0: expected a multiple of topk 3.*1 over/);
  });
});

describe("tables of loads", () => {
  it("one table of several, its outer dimensions as layers", async () => {
    const tensors = {
      a_counts: i32([2, 2, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
      b_counts: i32([1, 2], [5, 6]),
    };
    const file = await openTensors(tensors);
    expect(file).toMatchObject({ format: "expert-loads", kind: "counts", layerNames: ["0.0", "0.1", "1.0", "1.1"] });
    expect([...(await file.loads(2))]).toEqual([7, 8, 9]);
    expect(file.remarks[0]).toContain("b_counts");
    expect((await openTensors(tensors, {}, { table: "b_counts" })).numExperts).toBe(2);
    await expect(openTensors(tensors, {}, { table: "c" })).rejects.toThrow(
      /table: expected a_counts, b_counts, received c/,
    );
  });
});

describe("files of no known format", () => {
  const refusals: [string, Uint8Array, RegExp][] = [
    [
      "a torch.save archive",
      new Uint8Array([0x50, 0x4b, 3, 4, 0, 0, 0, 0]),
      /PyTorch or Python pickle.*docs\/formats\.md/,
    ],
    ["a plain pickle", new Uint8Array([0x80, 2, 0x7d]), /pickle/],
    ["parquet", encodeText("PAR1xxxx"), /parquet/],
    ["prose", encodeText("hello world\n"), /text that begins "hello world"/],
    ["nothing", new Uint8Array(0), /text that begins ""/],
    ["zeros in text", new Uint8Array([0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0]), /binary data/],
    ["bytes that are no text", new Uint8Array([0xff, 0xfe, 0x41, 0x42]), /UTF-8/],
  ];
  it.each(refusals)("%s", async (_, bytes, message) => {
    let closed = 0;
    const source = { ...memorySource(bytes, "x.bin"), close: async () => void closed++ };
    const error = await openRouting(source).catch((e) => e);
    expect(error).toBeInstanceOf(InvalidFile);
    expect(error.message).toMatch(message);
    expect(error.message).toContain("x.bin");
    expect(closed).toBeGreaterThan(0);
  });

  it("safetensors without routing names its tensors", async () => {
    await expect(openTensors({ x: f32([1], [1]) })).rejects.toThrow(/received safetensors with x/);
  });

  it("every format has a name and a description", () => {
    expect(new Set(FORMATS.map((format) => format.name)).size).toBe(FORMATS.length);
    for (const { description } of FORMATS) expect(description.length).toBeGreaterThan(10);
  });

  it("random bytes and random text are refused, never otherwise", async () => {
    const heads = [
      '{"type":"meta"',
      "layer,expert\n",
      "layer_id,expert_id,count\n",
      '{"routed_experts":',
      "\x93NUMPY",
      "",
    ];
    const input = fc.tuple(fc.constantFrom(...heads), fc.uint8Array({ maxLength: 200 }), fc.string());
    await fc.assert(
      fc.asyncProperty(input, async ([head, tail, text]) => {
        const bytes = Uint8Array.from([...Buffer.from(head, "latin1"), ...encodeText(text), ...tail]);
        const outcome = await openRouting(memorySource(bytes)).then(
          () => null,
          (error) => error,
        );
        if (outcome !== null) expect(outcome).toBeInstanceOf(InvalidFile);
      }),
      { numRuns: 500 },
    );
  });
});
