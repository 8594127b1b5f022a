/**
 * inspect and convert end to end: the commands in this process, on files, with what they print and their exit codes.
 * The recorded routing lies beside the repository and is not part of it: without it those tests are skipped, and say so.
 */
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { convert } from "../../cli/convert.ts";
import { openFile } from "../../cli/files.ts";
import { inspect } from "../../cli/inspect.ts";
import { FusedA2AError } from "../../core/errors.ts";
import { openSafetensors, safetensorsBytes } from "../../core/io/safetensors/index.ts";
import { bytesOf, tensor } from "../../core/tensor.ts";

const captured: string[] = [];
vi.mock("node:fs", async (original) => ({
  ...(await original<typeof import("node:fs")>()),
  writeSync: (_: number, bytes: Uint8Array) => captured.push(new TextDecoder().decode(bytes)) && bytes.length,
}));

/** What a command prints; its errors are thrown as the command line's entry would see them. */
async function output(command: ReturnType<typeof inspect>, ...args: string[]): Promise<string> {
  captured.length = 0;
  await command.exitOverride().parseAsync(args, { from: "user" });
  return captured.join("");
}
const json = async (command: ReturnType<typeof inspect>, ...args: string[]) =>
  JSON.parse(await output(command, ...args, "--json"));

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fused-a2a-files-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
beforeEach(() => {
  process.exitCode = undefined;
});
const path = (name: string) => join(folder, name);

const recorded = new URL("../../../shared/routing/gpt-oss-20b.decode.128x64.safetensors", import.meta.url).pathname;

describe.skipIf(!existsSync(recorded))("recorded routing of gpt-oss-20b (skipped where ../shared is absent)", () => {
  /** The ids read by hand: header length, JSON, int16 at the offset it gives. */
  function idsByHand(): Int16Array {
    const bytes = readFileSync(recorded);
    const length = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
    const [begin, end] = header.topk_idx.data_offsets;
    return new Int16Array(
      bytes.buffer.slice(bytes.byteOffset + 8 + length + begin, bytes.byteOffset + 8 + length + end),
    );
  }

  it("inspect --ranks 8 --json agrees with a count done here, for every layer", async () => {
    const result = await json(inspect(), recorded, "--ranks", "8");
    expect(result).toMatchObject({ numLayers: 24, numTokens: 8192, topk: 4, numExperts: 32, numRanks: 8 });
    expect(result.layers.length).toBe(24);
    const ids = idsByHand();
    for (let layer = 0; layer < 24; layer++) {
      const experts = new Array<number>(32).fill(0);
      const ranks = new Array<number>(8).fill(0);
      const rows = new Array<number>(8).fill(0);
      let remote = 0;
      for (let token = 0; token < 8192; token++) {
        const chosen = ids.subarray((layer * 8192 + token) * 4, (layer * 8192 + token + 1) * 4);
        for (const id of chosen) {
          experts[id]++;
          ranks[id >> 2]++;
        }
        for (const rank of new Set(Array.from(chosen, (id) => id >> 2))) {
          rows[rank]++;
          if (rank !== token >> 10) remote++;
        }
      }
      const found = result.layers[layer];
      expect(found.expertLoads).toEqual(experts);
      expect(found.rankLoads).toEqual(ranks);
      expect(found.rankRows).toEqual(rows);
      expect(found.counts.numRemoteRows).toBe(remote);
      const mean = 32768 / 32;
      expect(found.statistics.experts.maxOverMean).toBeCloseTo(Math.max(...experts) / mean, 12);
      expect(found.statistics.experts.excess).toBeCloseTo((Math.max(...experts) - mean) / mean, 12);
      expect(found.statistics.experts.numZero).toBe(experts.filter((load) => load === 0).length);
    }
  });

  it("is clean, sums to 1 within 0.004, and prints a table", async () => {
    const result = await json(inspect(), recorded);
    expect(result.lint).toMatchObject({ numRows: 24 * 8192, numTainted: 0, findings: [] });
    expect(result.lint.weightSums.min).toBeGreaterThan(0.996);
    expect(result.lint.weightSums.max).toBeLessThan(1.004);
    expect(result.nanWeights).toBe(null);
    const text = await output(inspect(), recorded, "--ranks", "8", "--ranks-per-node", "4", "--pad-multiple", "16");
    expect(text).toContain("24 layers x 8,192 tokens x top-4 of 32 experts (stated); 8 ranks on 2 nodes");
    expect(text).toContain("(max-mean)/mean = (max(x) - mean(x)) / mean(x)");
    expect(text).toContain("lint: 0 of 196,608 rows tainted");
  });

  it("convert keeps every id and weight", async () => {
    await output(convert(), recorded, "-o", path("copy.safetensors"));
    const [before, after] = [
      await openSafetensors(await openFile(recorded)),
      await openSafetensors(await openFile(path("copy.safetensors"))),
    ];
    for (const name of ["topk_idx", "topk_weights"]) {
      expect(after.tensors.get(name)?.shape).toEqual(before.tensors.get(name)?.shape);
      expect(Buffer.compare(bytesOf(await after.read(name)), bytesOf(await before.read(name)))).toBe(0);
    }
    expect(after.metadata).toMatchObject({ format: "fused-a2a-routing", num_experts: "32", source_format: "arrays" });
    await before.close();
    await after.close();
  });
});

/** A vLLM logger dump whose first 40 rows are a profile run. */
function dump(): string {
  const lines = ['{"type":"meta","top_k":2,"num_experts":16}'];
  const row = (token: number, ids: number[]) =>
    lines.push(
      JSON.stringify({
        type: "route",
        req_id: "r",
        token_idx: token,
        layer: 3,
        topk_ids: ids,
        topk_weights: [0.75, 0.25],
      }),
    );
  for (let token = 0; token < 40; token++) row(token, [4, 9]);
  for (let token = 40; token < 100; token++)
    row(token, [token % 16, (token * 7 + 3) % 16 === token % 16 ? (token + 1) % 16 : (token * 7 + 3) % 16]);
  return lines.join("\n");
}

describe("convert", () => {
  it("cuts a tainted head, says so, and gives what is left", async () => {
    await writeFile(path("dump.jsonl"), dump());
    const result = await json(convert(), path("dump.jsonl"), "-o", path("clean.safetensors"), "--cut-head", "--strict");
    expect(result).toMatchObject({ format: "vllm-logger", numCutRows: 40, numTokens: 60, numExperts: 16 });
    expect(result.lint.numTainted).toBe(0);
    expect(process.exitCode).toBe(undefined);
    const file = await openSafetensors(await openFile(path("clean.safetensors")));
    expect(file.metadata).toMatchObject({ num_experts: "16", layers: '["3"]', cut_head_rows: "40" });
    expect(file.tensors.get("topk_idx")).toMatchObject({ dtype: "i16", shape: [1, 60, 2] });
    expect((await file.readRows("topk_idx", 0, 1)).data.slice(0, 2)).toEqual(
      new Int16Array([40 % 16, (40 * 7 + 3) % 16]),
    );
    await file.close();
    const inspected = await json(inspect(), path("clean.safetensors"), "--ranks", "4");
    expect(inspected.layers[0].layer).toBe("3");
    expect(inspected.layers[0].counts.numSlots).toBe(120);
  });

  it("--strict writes nothing and answers no while rows are tainted", async () => {
    await writeFile(path("dump.jsonl"), dump());
    const text = await output(convert(), path("dump.jsonl"), "-o", path("tainted.safetensors"), "--strict");
    expect(process.exitCode).toBe(1);
    expect(text).toContain("lint: 40 of 100 rows tainted (40.0 %)");
    expect(text).toContain("identical-rows, layer 3: lines 2-41");
    expect(existsSync(path("tainted.safetensors"))).toBe(false);
    process.exitCode = undefined;
  });

  it("to npy and back gives the same routing", async () => {
    await writeFile(path("dump.jsonl"), dump());
    const result = await json(convert(), path("dump.jsonl"), "-o", path("ids.npy"));
    expect(result.outputs).toEqual([path("ids.npy"), path("ids.weights.npy")]);
    await output(convert(), path("ids.npy"), "--weights", path("ids.weights.npy"), "-o", path("back.safetensors"));
    await output(convert(), path("dump.jsonl"), "-o", path("direct.safetensors"));
    const [back, direct] = [
      await openSafetensors(await openFile(path("back.safetensors"))),
      await openSafetensors(await openFile(path("direct.safetensors"))),
    ];
    for (const name of ["topk_idx", "topk_weights"]) expect(await back.read(name)).toEqual(await direct.read(name));
    await back.close();
    await direct.close();
  });

  it("sums one file of counts per rank, and keeps loads as loads", async () => {
    await writeFile(path("r0.csv"), "layer_id,expert_id,count\n0,0,5\n0,3,1\n");
    await writeFile(path("r1.csv"), "layer_id,expert_id,count\n0,0,2\n0,1,4\n");
    const result = await json(inspect(), path("r0.csv"), path("r1.csv"), "--ranks", "2");
    expect(result.layers[0]).toMatchObject({
      expertLoads: [7, 4, 0, 1],
      rankLoads: [11, 1],
      rankRows: null,
      counts: null,
    });
    await output(convert(), path("r0.csv"), path("r1.csv"), "-o", path("counts.safetensors"));
    const again = await json(inspect(), path("counts.safetensors"), "--ranks", "2");
    expect(again.layers[0].expertLoads).toEqual([7, 4, 0, 1]);
  });

  it("keeps the ranks of a file that knows them", async () => {
    const ids = (data: number[]) => tensor("i32", [data.length / 2, 2], new Int32Array(data));
    const entries = [
      { name: "rank0.topk_idx", tensor: ids([0, 1, 2, 3]) },
      { name: "rank1.topk_idx", tensor: ids([]) },
    ];
    await writeFile(path("ranks.safetensors"), await safetensorsBytes({ num_experts: "4" }, entries));
    await output(convert(), path("ranks.safetensors"), "-o", path("ranks2.safetensors"));
    const result = await json(inspect(), path("ranks2.safetensors"));
    expect(result.numRanks).toBe(2);
    expect(result.layers[0].counts.tokensPerRank).toEqual([2, 0]);
    await expect(
      output(convert(), path("ranks.safetensors"), "-o", path("x.safetensors"), "--layer", "4"),
    ).rejects.toThrow(/layer: expected 0\.\.0, received 4/);
  });
});

describe("inspect", () => {
  it("names NaN weights by layer and row", async () => {
    const weights = tensor("fp32", [2, 3, 2]).data.fill(0.5);
    weights[9] = Number.NaN;
    const entries = [
      { name: "topk_idx", tensor: tensor("i32", [2, 3, 2], new Int32Array([0, 1, 1, 2, 2, 3, 0, 2, 1, 3, 3, 0])) },
      { name: "topk_weights", tensor: tensor("fp32", [2, 3, 2], weights) },
    ];
    await writeFile(path("nan.safetensors"), await safetensorsBytes({ num_experts: "4" }, entries));
    const result = await json(inspect(), path("nan.safetensors"), "--ranks", "2");
    expect(result.nanWeights).toMatchObject({
      rule: "nan-weights",
      numRows: 1,
      places: [{ layer: "1", rows: [[1, 1]] }],
    });
    expect(await output(inspect(), path("nan.safetensors"), "--ranks", "2")).toContain("nan-weights, layer 1: rows 1");
  });

  it("one layer: every rank, with and without padding", async () => {
    const entries = [{ name: "topk_idx", tensor: tensor("i32", [4, 1], new Int32Array([0, 0, 0, 3])) }];
    await writeFile(path("one.safetensors"), await safetensorsBytes({ num_experts: "4" }, entries));
    const result = await json(
      inspect(),
      path("one.safetensors"),
      "--ranks",
      "2",
      "--layer",
      "0",
      "--pad-multiple",
      "4",
    );
    // Experts 3 0 0 1 padded to 4 0 0 4: 4 of 8 rows are padding.
    expect(result.layers[0].statistics.paddingShare).toBe(0.5);
    expect(result.layers[0].statistics.padded.ranks).toMatchObject({ min: 4, max: 4 });
    expect(result.formulas.routing.paddingShare).toBe("(padded slots - slots) / padded slots");
    const text = await output(inspect(), path("one.safetensors"), "--ranks", "2", "--layer", "0");
    expect(text).toMatch(/slots per local expert\n +0 +2 +2 +3 +3 +3 0\n +1 +2 +2 +1 +1 +0 1\n/);
  });

  const refusals: [string, Uint8Array | string, string[], RegExp][] = [
    ["a pickle", new Uint8Array([0x80, 4, 0x95, 0, 0, 0, 0, 0, 0, 0, 0]), [], /pickle.*docs\/formats\.md/],
    ["a truncated safetensors", new Uint8Array([200, 0, 0, 0, 0, 0, 0, 0, 0x7b]), [], /header length/],
    [
      "ranks that do not divide",
      "layer,expert\n0,5\n",
      ["--ranks", "4"],
      /numExperts: expected a multiple of numRanks 4/,
    ],
    ["a layer that is not there", "layer,expert\n0,7\n", ["--layer", "1"], /layer: expected 0\.\.0, received 1/],
  ];
  it.each(refusals)("refuses %s in one line", async (_, content, args, message) => {
    await writeFile(path("bad"), content);
    const error = await output(inspect(), path("bad"), ...args).catch((e) => e);
    expect(error).toBeInstanceOf(FusedA2AError);
    expect(error.message).toMatch(message);
    expect(error.message).not.toContain("\n");
  });

  it("names the option that is no whole number", async () => {
    const write = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    await expect(output(inspect(), path("none"), "--ranks", "1.5")).rejects.toThrow(
      "option '--ranks <n>' argument '1.5' is invalid. Expected a whole number of at least 1.",
    );
    write.mockRestore();
  });

  it("refuses a file that is not there, and an output that cannot be written, leaving nothing behind", async () => {
    await expect(output(inspect(), path("none"))).rejects.toThrow(/input: expected a readable file/);
    await writeFile(path("dump.jsonl"), dump());
    const before = await readdir(folder);
    await expect(output(convert(), path("dump.jsonl"), "-o", path("no/where.npy"))).rejects.toThrow(
      /output: expected a writable path/,
    );
    await expect(output(convert(), path("dump.jsonl"), "-o", path("x.txt"))).rejects.toThrow(
      /ending in \.safetensors or \.npy/,
    );
    const ragged = `${dump()}\n{"type":"route","req_id":"r","token_idx":0,"layer":4,"topk_ids":[1,2]}`;
    await writeFile(path("ragged.jsonl"), ragged);
    await expect(output(convert(), path("ragged.jsonl"), "-o", path("ragged.safetensors"))).rejects.toThrow(
      /layers: expected as many tokens.*received 100 in layer 3, 1 in layer 4.*--layer/,
    );
    expect(await readdir(folder)).toEqual([...before, "ragged.jsonl"].sort());
  });
});
