import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createFile } from "../../cli/files.ts";
import { type SafetensorsEntry, writeSafetensors } from "../../core/io/safetensors/index.ts";
import { type Tensor, tensor } from "../../core/tensor.ts";
import { fusedA2A, scratch } from "../cli/run.ts";

/** A legal input of fused-dispatch on 2 ranks, to be spoiled one thing at a time. */
function legal(change: Record<string, Tensor | null> = {}): SafetensorsEntry[] {
  const tensors: Record<string, Tensor | null> = {};
  for (const rank of [0, 1]) {
    tensors[`rank${rank}.x`] = tensor(
      "bf16",
      [2, 4],
      Uint16Array.from({ length: 8 }, (_, i) => i),
    );
    tensors[`rank${rank}.topk_idx`] = tensor("i64", [2, 2], BigInt64Array.from([0n, 3n, -1n, 2n]));
    tensors[`rank${rank}.topk_weights`] = tensor("fp32", [2, 2], Float32Array.of(0.5, 0.5, 0, 1));
  }
  return Object.entries({ ...tensors, ...change }).flatMap(([name, value]) => (value ? [{ name, tensor: value }] : []));
}

const METADATA = { num_ranks: "2", num_experts: "4" };

async function apply(entries: SafetensorsEntry[], metadata: Record<string, string> = METADATA, op = "fused-dispatch") {
  const folder = scratch();
  const input = join(folder, "in.safetensors");
  const output = join(folder, "out.safetensors");
  await writeSafetensors(await createFile(input), metadata, entries);
  return { ...fusedA2A("apply", op, input, "-o", output, "--backend", "oracle"), output, folder };
}

/** One line on stderr, exit code 2, and no file but the input. */
function expectRefused(result: Awaited<ReturnType<typeof apply>>, ...parts: string[]): void {
  expect({ status: result.status, stdout: result.stdout }).toEqual({ status: 2, stdout: "" });
  expect(result.stderr.trimEnd().split("\n")).toHaveLength(1);
  for (const part of parts) expect(result.stderr).toContain(part);
  expect(readdirSync(result.folder).filter((name) => !name.startsWith("in."))).toEqual([]);
}

const ids = (...values: bigint[]) => tensor("i64", [2, 2], BigInt64Array.from(values));

describe("apply refuses bad input with one line and leaves no file", () => {
  test("the control case passes", async () => {
    const result = await apply(legal());
    expect({ status: result.status, stderr: result.stderr }).toEqual({ status: 0, stderr: "" });
    expect(existsSync(result.output)).toBe(true);
  });

  test("expert id E", async () => {
    const result = await apply(legal({ "rank1.topk_idx": ids(0n, 4n, 1n, 2n) }));
    expectRefused(result, "topkIdx", "expected -1..3", "received 4", "rank 1, token 0, slot 1");
  });

  test("expert id -2", async () => {
    const result = await apply(legal({ "rank0.topk_idx": ids(0n, 1n, -2n, 2n) }));
    expectRefused(result, "received -2", "rank 0, token 1, slot 0");
  });

  test("an id beyond 32 bits", async () => {
    const result = await apply(legal({ "rank0.topk_idx": ids(0n, 1n, 2n ** 32n, 2n) }));
    expectRefused(result, "received 4294967296", "rank 0, token 1, slot 0");
  });

  test("the same expert twice in a row", async () => {
    const result = await apply(legal({ "rank1.topk_idx": ids(0n, 1n, 3n, 3n) }));
    expectRefused(result, "expert 3 a second time", "rank 1, token 1, slot 1");
  });

  test("wrong dtype", async () => {
    const result = await apply(legal({ "rank0.topk_idx": tensor("fp32", [2, 2]) }));
    expectRefused(result, "topkIdx", "expected i32 or i64", "received fp32 [2, 2]", "rank 0");
  });

  test("wrong shape", async () => {
    const result = await apply(legal({ "rank1.topk_weights": tensor("fp32", [2, 3]) }));
    expectRefused(result, "topkWeights", "[2, 3]", "rank 1");
  });

  test("rows that do not fit the routing", async () => {
    const result = await apply(legal({ "rank1.x": tensor("bf16", [3, 4]) }));
    expectRefused(result, "expected 3 rows as x", "received 2", "rank 1");
  });

  test("ranks with different hidden", async () => {
    const result = await apply(legal({ "rank1.x": tensor("bf16", [2, 5]) }));
    expectRefused(result, "x: expected bf16 [any, 4]", "received bf16 [2, 5]", "rank 1");
  });

  test("E not divisible by R", async () => {
    const result = await apply(legal(), { ...METADATA, num_experts: "5" });
    expectRefused(result, "numExperts: expected a multiple of numRanks 2, received 5", "use 6");
  });

  test("a missing rank", async () => {
    const result = await apply(legal({ "rank1.x": null }));
    expectRefused(result, "rank1.x");
  });

  test("a setting that is no number", async () => {
    const result = await apply(legal(), { ...METADATA, expert_alignment: "eight" });
    expectRefused(result, "expert_alignment", "received eight");
  });

  test("a handle of an unknown version", async () => {
    const dispatched = await apply(legal());
    expect(dispatched.status).toBe(0);
    const meta = tensor("i64", [13]);
    meta.data.fill(99n);
    const handle = ["meta"].flatMap((name) =>
      [0, 1].map((rank) => ({ name: `rank${rank}.handle.${name}`, tensor: meta })),
    );
    const x = [0, 1].map((rank) => ({ name: `rank${rank}.x`, tensor: tensor("bf16", [2, 4]) }));
    const other = tensor("i32", [0, 4]);
    const cut = [0, 1].map((rank) => ({ name: `rank${rank}.handle.overflow_cut`, tensor: other }));
    const result = await apply([...x, ...handle, ...cut], { num_ranks: "2", ranks_per_node: "2" }, "fused-combine");
    expectRefused(result, "handle version", "99");
  });

  test("a truncated file", () => {
    const folder = scratch();
    const input = join(folder, "in.safetensors");
    writeFileSync(input, Uint8Array.of(200, 0, 0, 0, 0, 0, 0, 0, 123));
    const output = join(folder, "out.safetensors");
    const run = fusedA2A("apply", "layout", input, "-o", output);
    expectRefused({ ...run, output, folder }, "in.safetensors");
  });

  test("an unwritable output", async () => {
    const folder = scratch();
    const input = join(folder, "in.safetensors");
    await writeSafetensors(await createFile(input), METADATA, legal());
    const run = fusedA2A("apply", "fused-dispatch", input, "-o", join(folder, "absent", "out.safetensors"));
    expectRefused({ ...run, output: "", folder }, "output: expected a writable path");
  });

  test("an input that is not there, a backend that does not exist, an operation that does not exist", () => {
    expect(fusedA2A("apply", "layout", "absent.safetensors", "-o", "x")).toMatchObject({ status: 2, stdout: "" });
    expect(fusedA2A("run", "--backend", "abacus").stderr).toContain("received abacus");
    expect(fusedA2A("apply", "juggle", "in", "-o", "out").status).toBe(2);
  });
});

describe("run and verify", () => {
  const SMALL = ["--tokens", "32", "--hidden", "24", "--experts", "16", "--topk", "4", "--ranks", "4"];

  test.each([
    ["fused", []],
    ["hybrid-ep", ["--pad-multiple", "8"]],
    ["fused", ["--dtype", "fp8e4m3", "--ranks-per-node", "2"]],
    ["hybrid-ep", ["--dtype", "fp16", "--num-permuted-tokens", "64"]],
  ])("verify %s %s: the embedded executor equals the oracle", (style, more) => {
    const args = ["verify", ...SMALL, "--style", style, ...more, "--backend", "wasm", "--against", "oracle", "--json"];
    const { status, stdout, stderr } = fusedA2A(...args);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const report = JSON.parse(stdout);
    expect(report.ok).toBe(true);
    expect(report.laws.every((law: { ok: boolean }) => law.ok)).toBe(true);
    const outputs = report.references[0].outputs.map((one: { output: string }) => one.output);
    expect(outputs).toContain("dispatched x");
    expect(outputs).toContain("combined x");
  });

  test("run counts rows and bytes as the workload says", () => {
    // Every token of 4 ranks chooses expert 0 and nothing else: one row per token, all to rank 0.
    const folder = scratch();
    const input = join(folder, "one.jsonl");
    const routes = Array.from({ length: 8 }, (_, token_idx) =>
      JSON.stringify({ type: "route", req_id: "a", token_idx, layer: 0, topk_ids: [0], topk_weights: [1] }),
    );
    writeFileSync(input, [JSON.stringify({ type: "meta", top_k: 1, layers_logged: [0] }), ...routes].join("\n"));
    const { status, stdout, stderr } = fusedA2A(
      "run",
      input,
      "--ranks",
      "4",
      "--experts",
      "4",
      "--hidden",
      "8",
      "--backend",
      "oracle",
      "--json",
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const { traffic, numCut } = JSON.parse(stdout).layers[0];
    expect(traffic).toMatchObject({
      numTokens: 8,
      numRows: 8,
      numRemoteRows: 6,
      rowBytes: 16,
      logicalBytes: 128,
      wireBytes: 96,
      maxOverMeanRank: 4,
    });
    expect(numCut).toBe(0);
  });

  test("a budget that is too small is reported as degraded", () => {
    const { status, stdout } = fusedA2A("run", ...SMALL, "--num-worst-tokens", "10", "--backend", "oracle", "--json");
    expect(status).toBe(0);
    expect(JSON.parse(stdout).degraded).toBe(true);
  });

  test("every command has help", () => {
    for (const command of ["run", "verify", "apply", "inspect", "convert", "simulate", "check", "doctor"]) {
      const { status, stdout } = fusedA2A(command, "--help");
      expect(status).toBe(0);
      expect(stdout).toContain("--json");
    }
  });
});
