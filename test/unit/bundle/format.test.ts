import { describe, expect, test } from "vitest";
import { type Bundle, type BundleHeader, encodeBundle } from "../../../core/bundle/format.ts";
import { readBundle } from "../../../core/bundle/read.ts";
import { encodeHandle } from "../../../core/handle/encode.ts";
import { memorySource } from "../../../core/io/bytes.ts";
import { safetensorsBytes } from "../../../core/io/safetensors/index.ts";
import { fusedHandle } from "../../../core/layout/positions.ts";
import { rankRouting } from "../../../core/layout/routing.ts";
import { type Tensor, tensor } from "../../../core/tensor.ts";

const IDS = [tensor("i32", [2, 2], Int32Array.of(0, 3, -1, 2)), tensor("i32", [1, 2], Int32Array.of(1, 2))];

const HEADER: BundleHeader = {
  producer: "fused-a2a 9.9.9",
  source: "workload uniform, seed 7",
  operation: "combine",
  sequence: 12,
  code: "TIMEOUT",
  message: 'operation 12: after 600 ms process 1 did not come; a "quoted" word',
  waits: [{ rank: 0, srcRank: 1, phase: "network rows", expected: "1024 bytes", received: "nothing" }],
  group: "0123456789abcdef",
  process: 1,
  numProcesses: 2,
  shape: { numRanks: 2, ranksPerNode: 1, numExperts: 4 },
  localRanks: [1],
  topk: 2,
  hidden: 64,
  dtype: "bf16",
  style: "fused",
  settings: { expertAlignment: 8, numWorstTokens: 16, padMultiple: 1, numPermutedTokens: null },
  rows: { seed: 7, layer: 3, dtype: "fp8e4m3" },
  missing: ["handle: the device did not answer"],
};

function bundle(change: Partial<BundleHeader> = {}): Bundle {
  const routings = IDS.map((ids, rank) => rankRouting(rank, ids, null, 4));
  const data = fusedHandle(routings, HEADER.shape, { expertAlignment: 8, numWorstTokens: 16 });
  const weights = tensor("fp32", [2, 2], Float32Array.of(0.5, 0.25, 0, 1));
  return {
    header: { ...HEADER, ...change },
    routing: new Map([
      [0, { topkIdx: IDS[0], topkWeights: weights }],
      [1, { topkIdx: IDS[1], topkWeights: null }],
    ]),
    handle: encodeHandle({ ...data, ranks: data.ranks.slice(1) }),
  };
}

/** Metadata and tensors of a good bundle with some replaced; null takes one away. */
async function read(metadata: Record<string, string | null> = {}, tensors: Record<string, Tensor | null> = {}) {
  const good = encodeBundle(bundle());
  const fields = Object.entries({ ...good.metadata, ...metadata }).filter(([, value]) => value !== null);
  const given = new Map(good.entries.map((entry) => [entry.name, "tensor" in entry ? entry.tensor : null]));
  for (const [name, value] of Object.entries(tensors)) given.set(name, value);
  const entries = [...given].flatMap(([name, value]) => (value === null ? [] : [{ name, tensor: value }]));
  const bytes = await safetensorsBytes(Object.fromEntries(fields) as Record<string, string>, entries);
  return readBundle(memorySource(bytes, "b.safetensors"));
}

describe("the failure bundle", () => {
  test("comes back as it was written", async () => {
    const { header, routing, handle } = await read();
    expect(header).toEqual(HEADER);
    expect([...routing]).toEqual([...bundle().routing]);
    expect(new Map([...handle].sort())).toEqual(new Map([...bundle().handle].sort()));
  });

  test("settings and names are those of the other formats", () => {
    const { metadata, entries } = encodeBundle(bundle());
    expect(metadata).toMatchObject({
      format: "fused-a2a-bundle",
      version: "1",
      num_ranks: "2",
      ranks_per_node: "1",
      num_experts: "4",
      expert_alignment: "8",
      num_worst_tokens: "16",
      pad_multiple: "1",
      local_ranks: "[1]",
      sequence: "12",
      rows_seed: "7",
    });
    expect(metadata.num_permuted_tokens).toBeUndefined();
    const names = entries.map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(["rank0.topk_idx", "rank0.topk_weights", "rank1.topk_idx"]));
    expect(names).not.toContain("rank1.topk_weights");
    expect(names).toContain("rank1.handle.send_row");
  });

  test("int64 ids are read as well", async () => {
    const wide = tensor("i64", [1, 2], BigInt64Array.of(1n, 2n));
    expect((await read({}, { "rank1.topk_idx": wide })).routing.get(1)?.topkIdx).toEqual(IDS[1]);
  });

  test("a handle that contradicts itself is still read: the replay compares it", async () => {
    const wrong = tensor("i32", [1], Int32Array.of(99));
    expect((await read({}, { "rank1.handle.send_row": wrong })).handle.get("rank1.handle.send_row")).toEqual(wrong);
  });

  test.each([
    ["another version", { version: "2" }, "__metadata__.version: expected 1, received 2"],
    ["no version", { version: null }, "__metadata__.version: expected 1, received none"],
    ["another format", { format: "fused-a2a-trace" }, "__metadata__.format: expected fused-a2a-bundle"],
    [
      "an unknown operation",
      { operation: "layout" },
      "__metadata__.operation: expected dispatch, cached dispatch, comb",
    ],
    ["a code that is no failure", { code: "INVALID_FILE" }, "__metadata__.code"],
    ["no hidden", { hidden: null }, "__metadata__.hidden: expected a whole number of at least 1, received nothing"],
    ["a process past the last", { process: "2" }, "__metadata__.process: expected 0..1, received 2"],
    ["waits that are no list", { waits: "{}" }, "__metadata__.waits"],
    ["waits of another form", { waits: '[{"rank":"x"}]' }, "__metadata__.waits"],
    ["ranks that are no JSON", { local_ranks: "0,1" }, "__metadata__.local_ranks"],
    ["a dtype that no row has", { dtype: "i32" }, "__metadata__.dtype"],
    ["ranks that do not divide", { ranks_per_node: "3" }, "ranksPerNode"],
  ])("%s is refused by name", async (_, metadata, message) => {
    await expect(read(metadata)).rejects.toThrow(message);
  });

  test.each([
    [
      "an expert out of range",
      { "rank1.topk_idx": tensor("i32", [1, 2], Int32Array.of(1, 4)) },
      "rank 1, token 0, slot 1",
    ],
    ["weights of another shape", { "rank0.topk_weights": tensor("fp32", [2, 1]) }, "shape [2, 2] as topkIdx"],
    ["a rank past the last", { "rank2.topk_idx": IDS[0] }, "rank2.topk_idx: expected ranks 0..1"],
    ["ids that are no matrix", { "rank0.topk_idx": tensor("i32", [4]) }, "rank0.topk_idx"],
  ])("%s is refused with the file and the tensor", async (_, tensors, message) => {
    const reading = read({}, tensors as Record<string, Tensor>);
    await expect(reading).rejects.toThrow(message);
    await expect(reading).rejects.toThrow("b.safetensors");
  });
});
