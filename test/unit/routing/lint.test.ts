import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { memorySource } from "../../../core/io/bytes.ts";
import { safetensorsBytes } from "../../../core/io/safetensors/index.ts";
import { encodeText } from "../../../core/io/text.ts";
import { generateRouting, WORKLOADS } from "../../../core/routing/generate.ts";
import { openRouting } from "../../../core/routing/import/index.ts";
import { type LintReport, type LintRule, lintRouting } from "../../../core/routing/lint/index.ts";
import { tensor } from "../../../core/tensor.ts";

const E = 32;
const K = 4;
const T = 1000;

interface Layer {
  ids: Int32Array;
  weights: Float32Array;
}

/** Clean routing to plant taints in. */
function clean(layer = 0): Layer {
  const [{ topkIdx, topkWeights }] = generateRouting({
    workload: "uniform",
    seed: 11,
    layer,
    numRanks: 1,
    numTokens: T,
    numExperts: E,
    topk: K,
  });
  return { ids: topkIdx.data, weights: topkWeights?.data ?? new Float32Array(0) };
}

async function lint(layers: Layer[], numExperts: number | null = E, withWeights = true): Promise<LintReport> {
  const shape = [layers.length, T, K];
  const ids = new Int32Array(layers.length * T * K);
  const weights = new Float32Array(ids.length);
  layers.forEach((layer, i) => {
    ids.set(layer.ids, i * T * K);
    weights.set(layer.weights, i * T * K);
  });
  const entries = [{ name: "topk_idx", tensor: tensor("i32", shape, ids) }];
  const all = withWeights ? [...entries, { name: "topk_weights", tensor: tensor("fp32", shape, weights) }] : entries;
  const metadata: Record<string, string> = numExperts === null ? {} : { num_experts: `${numExperts}` };
  return lintRouting(await openRouting(memorySource(await safetensorsBytes(metadata, all))));
}

const rules = (report: LintReport) => report.findings.map((finding) => finding.rule);
const finding = (report: LintReport, rule: LintRule) => {
  const found = report.findings.find((f) => f.rule === rule);
  if (found === undefined) throw new Error(`no ${rule} in ${rules(report).join(", ") || "an empty report"}`);
  return found;
};
const rows = (report: LintReport, rule: LintRule) => finding(report, rule).places.flatMap((place) => place.rows);

describe("clean routing", () => {
  it.each([...WORKLOADS.keys()])("%s: nothing is tainted", async (workload) => {
    const [{ topkIdx, topkWeights }] = generateRouting({
      workload,
      seed: 1,
      numRanks: 1,
      numTokens: T,
      numExperts: E,
      topk: K,
    });
    const report = await lint([{ ids: topkIdx.data, weights: topkWeights?.data ?? new Float32Array(0) }]);
    expect(report.numTainted).toBe(0);
    expect(report.findings.filter((f) => f.severity === "error")).toEqual([]);
  });

  it("says what the weights sum to", async () => {
    const { ids, weights } = clean();
    const report = await lint([{ ids, weights: weights.map((w) => w * 2.5) }]);
    expect(rules(report)).toEqual([]);
    expect(report.weightSums?.median).toBeCloseTo(2.5, 5);
    expect((await lint([clean()], E, false)).weightSums).toBe(null);
  });
});

describe("planted taints", () => {
  it("a head of identical rows, and a later run: rows, share, and how much to cut", async () => {
    const layer = clean();
    for (let row = 0; row < 300; row++) layer.ids.set([3, 9, 1, 20], row * K);
    for (let row = 300; row < 420; row++) layer.ids.set([5, 6, 30, 2], row * K);
    for (let row = 600; row < 616; row++) layer.ids.set([7, 1, 30, 2], row * K);
    for (let row = 700; row < 715; row++) layer.ids.set([8, 1, 30, 2], row * K); // 15: not long enough
    const report = await lint([layer, clean(1)]);
    expect(rules(report)).toEqual(["identical-rows"]);
    expect(rows(report, "identical-rows")).toEqual([
      [0, 419],
      [600, 615],
    ]);
    expect(report).toMatchObject({ numRows: 2000, numTainted: 436, taintedShare: 436 / 2000, numHeadRows: 420 });
    expect(finding(report, "identical-rows")).toMatchObject({ numRows: 436, share: 0.218, severity: "error" });
    expect(finding(report, "identical-rows").remedy).toContain("--cut-head");
  });

  it("padding in front of and inside is no run of identical rows", async () => {
    const layer = clean();
    layer.ids.fill(-1, 100 * K, 200 * K);
    const report = await lint([layer]);
    expect(rules(report)).toEqual(["pad-rows"]);
    expect(finding(report, "pad-rows").numRows).toBe(100);
    expect(report.numTainted).toBe(0);
  });

  it("arithmetic ids 4i..4i+3", async () => {
    const layer = clean();
    for (let row = 50; row < 90; row++) for (let k = 0; k < K; k++) layer.ids[row * K + k] = (4 * row + k) % E;
    const report = await lint([layer]);
    expect(rules(report)).toEqual(["arithmetic-ids"]);
    // A row beside the planted ones may be arithmetic by chance.
    expect(report.numTainted).toBeGreaterThanOrEqual(40);
    expect(report.numTainted).toBeLessThan(45);
  });

  it("a handful of arithmetic rows is chance", async () => {
    const layer = clean();
    for (let row = 0; row < 6; row++) layer.ids.set([1, 2, 3, 4], row * 100 * K);
    expect((await lint([layer])).numTainted).toBe(0);
  });

  it("duplicates and ids out of range", async () => {
    const layer = clean();
    layer.ids.set([3, 4, 3, 5], 10 * K);
    layer.ids.set([3, 4, 32, 5], 11 * K);
    layer.ids.set([3, -2, 31, 5], 12 * K);
    const report = await lint([layer]);
    expect(rows(report, "duplicate-ids")).toEqual([[10, 10]]);
    expect(rows(report, "ids-out-of-range")).toEqual([[11, 12]]);
    expect(report.numTainted).toBe(3);
    // With the experts only inferred there is no upper bound to break.
    expect(rows(await lint([layer], null), "ids-out-of-range")).toEqual([[12, 12]]);
  });

  it("weights: uniform, NaN, infinite, negative, zero, unsorted, wandering sums", async () => {
    const layer = clean();
    layer.weights.set([0.25, 0.25, 0.25, 0.25], 1 * K);
    layer.weights.set([Number.NaN, 0.5, 0.3, 0.2], 2 * K);
    layer.weights.set([Number.POSITIVE_INFINITY, 0.5, 0.3, 0.2], 3 * K);
    layer.weights.set([0.8, 0.3, 0.1, -0.2], 4 * K);
    layer.weights.set([0, 0, 0, 0], 5 * K);
    layer.weights.set([0.2, 0.5, 0.2, 0.1], 6 * K);
    layer.weights.set([0.5, 0.3, 0.2, 0.05], 7 * K);
    const report = await lint([layer]);
    expect(rows(report, "uniform-weights")).toEqual([[1, 1]]);
    expect(rows(report, "nan-weights")).toEqual([[2, 3]]);
    expect(rows(report, "negative-weights")).toEqual([[4, 4]]);
    expect(rows(report, "zero-weights")).toEqual([[5, 5]]);
    expect(rows(report, "unsorted-weights")).toEqual([[6, 6]]);
    expect(rows(report, "weight-sums")).toEqual([
      [5, 5],
      [7, 7],
    ]);
    expect(report.weightSums).toMatchObject({
      min: 0,
      max: Math.fround(0.5) + Math.fround(0.3) + Math.fround(0.2) + Math.fround(0.05),
    });
  });

  it("dropped slots keep out of sums and order", async () => {
    const layer = clean();
    layer.ids.set([1, -1, 2, 3], 4 * K);
    layer.weights.set([0.5, 0, 0.2, 0.1], 4 * K);
    const report = await lint([layer]);
    expect(rules(report)).toEqual(["dropped-slots"]);
    expect(rows(report, "dropped-slots")).toEqual([[4, 4]]);
  });

  it("layers that are the same, by ids and weights", async () => {
    const report = await lint([clean(0), clean(1), clean(0)]);
    expect(finding(report, "identical-layers").places).toEqual([
      { layer: "2 = 0", numRows: T, rows: [[0, T - 1]], lines: null },
    ]);
    const other = clean(0);
    other.weights[17] /= 1.001;
    expect(rules(await lint([clean(0), other]))).toEqual([]);
  });

  it("finds a planted run wherever it is", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(T - 64), fc.integer({ min: 16, max: 64 }), async (first, length) => {
        const layer = clean();
        for (let row = first; row < first + length; row++) layer.ids.set([31, 0, 17, 9], row * K);
        const report = await lint([layer]);
        expect(rows(report, "identical-rows")).toEqual([[first, first + length - 1]]);
        expect(report.numHeadRows).toBe(first === 0 ? length : 0);
      }),
      { numRuns: 30 },
    );
  });
});

describe("text dumps", () => {
  it("names lines, and repeated keys", async () => {
    const route = (token: number, ids: number[]) =>
      JSON.stringify({
        type: "route",
        req_id: "a",
        token_idx: token,
        layer: 0,
        topk_ids: ids,
        topk_weights: [0.6, 0.4],
      });
    const lines = ['{"type":"meta","top_k":2,"num_experts":16}'];
    for (let i = 0; i < 20; i++) lines.push(route(i, [3, 11]));
    for (let i = 0; i < 5; i++) lines.push(route(i, [i, 15 - i]));
    const report = await lintRouting(await openRouting(memorySource(encodeText(lines.join("\n")))));
    expect(finding(report, "identical-rows").places).toEqual([
      { layer: "0", numRows: 20, rows: [[0, 19]], lines: [[2, 21]] },
    ]);
    expect(finding(report, "repeated-keys").numRows).toBe(5);
    expect(report).toMatchObject({ numHeadRows: 20, numRows: 25, taintedShare: 0.8 });
  });

  it("counts have layers only", async () => {
    const text = "layer_id,expert_id,count\n0,1,0\n1,1,4\n";
    const report = await lintRouting(await openRouting(memorySource(encodeText(text))));
    expect(finding(report, "empty-layers").places.map((place) => place.layer)).toEqual(["0"]);
    expect(report.numRows).toBe(0);
  });
});
