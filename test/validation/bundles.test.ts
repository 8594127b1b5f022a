/** What a replay of bundles makes of them: routing that processes had, handles against the reference's. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { BundleFile } from "../../cli/bundles.ts";
import { checkHandles, describeHandle } from "../../cli/handleCheck.ts";
import { replaysOf } from "../../cli/replay.ts";
import type { BundleHeader, BundleRouting } from "../../core/bundle/format.ts";
import { encodeHandle } from "../../core/handle/encode.ts";
import type { HandleData } from "../../core/handle/handle.ts";
import { fusedHandle, hybridEpHandle } from "../../core/layout/positions.ts";
import { rankRouting } from "../../core/layout/routing.ts";
import { type Tensor, tensor } from "../../core/tensor.ts";
import { type HandleCase, handleCase, makeHandle } from "../unit/handle/handles.ts";

type Kind = "fused" | "hybrid-ep";

const topkOf = (c: HandleCase) => c.topkIdx.flat()[0]?.length ?? 1;

function idsOf(c: HandleCase, rank: number): Tensor<"i32"> {
  const tokens = c.topkIdx[rank];
  return tensor("i32", [tokens.length, topkOf(c)], Int32Array.from(tokens.flat()));
}

/** The bundle of a process that has `localRanks`, and the handle of a run of all ranks. */
function bundleOf(kind: Kind, c: HandleCase, data: HandleData, process: number, localRanks: number[]): BundleFile {
  const header: BundleHeader = {
    producer: "",
    source: "",
    operation: "combine",
    sequence: 1,
    code: "BACKEND_FAILURE",
    message: "",
    waits: [],
    group: "g",
    process,
    numProcesses: c.numRanks,
    shape: { numRanks: c.numRanks, ranksPerNode: c.ranksPerNode, numExperts: c.numExperts },
    localRanks,
    topk: topkOf(c),
    hidden: 8,
    dtype: "bf16",
    style: kind,
    settings: {
      expertAlignment: kind === "fused" ? c.multiple : 1,
      numWorstTokens: kind === "fused" ? c.budget : 0,
      padMultiple: kind === "fused" ? 1 : c.multiple,
      numPermutedTokens: kind === "fused" || c.budget === 0 ? null : c.budget,
    },
    rows: null,
    missing: [],
  };
  const routing = new Map<number, BundleRouting>(
    localRanks.map((rank) => [rank, { topkIdx: idsOf(c, rank), topkWeights: null }]),
  );
  const ranks = data.ranks.filter(({ rank }) => localRanks.includes(rank));
  const handle = new Map(
    [...encodeHandle({ meta: { ...data.meta, localRanks }, ranks })].map(([name, { dtype, shape, data: values }]) => [
      name,
      tensor(dtype, shape, values.slice() as never),
    ]),
  );
  return { file: `process${process}`, header, routing, handle };
}

/** What a reference makes of the layer that is replayed. */
async function replayed(kind: Kind, bundles: readonly BundleFile[]) {
  const replays = replaysOf(bundles, 1);
  expect(replays).toHaveLength(1);
  const [replay] = replays;
  const { shape, settings } = replay.job;
  const layer = await replay.job.layer(0);
  const routings = layer.topkIdx.map((ids, rank) => rankRouting(rank, ids, null, shape.numExperts));
  const data = kind === "fused" ? fusedHandle(routings, shape, settings) : hybridEpHandle(routings, shape, settings);
  return { replay, reports: checkHandles(replay, "oracle", data) };
}

describe.each(["fused", "hybrid-ep"] as const)("handles in bundles, %s", (kind) => {
  test("are equal to the reference's, whichever processes left one", async () => {
    await fc.assert(
      fc.asyncProperty(handleCase, fc.integer({ min: 1, max: 15 }), async (c, mask) => {
        const data = makeHandle(kind, c);
        const living = c.topkIdx.map((_, rank) => rank).filter((rank) => (mask >> rank) & 1);
        fc.pre(living.length > 0);
        const bundles = living.map((rank) => bundleOf(kind, c, data, rank, [rank]));
        const { replay, reports } = await replayed(kind, bundles);
        expect(replay.unknownRanks).toEqual(c.topkIdx.map((_, rank) => rank).filter((rank) => !living.includes(rank)));
        expect(reports.map(({ first }) => first)).toEqual(reports.map(() => null));
        for (const { numElements, notCompared } of reports) {
          if (replay.unknownRanks.length === 0) expect(notCompared).toBeNull();
          else if (c.budget === 0) expect(numElements).toBeGreaterThan(0);
        }
      }),
      { numRuns: 300 },
    );
  });

  test("any changed element is found and named, when all ranks are known", async () => {
    await fc.assert(
      fc.asyncProperty(handleCase, fc.nat(), fc.nat(), async (c, which, where) => {
        const data = makeHandle(kind, c);
        const all = c.topkIdx.map((_, rank) => rank);
        const bundles = all.map((rank) => bundleOf(kind, c, data, rank, [rank]));
        const target = bundles[which % bundles.length];
        const arrays = [...target.handle].filter(([, value]) => value.data.length > 0);
        const [name, { data: values }] = arrays[which % arrays.length];
        const index = where % values.length;
        if (values instanceof BigInt64Array) values[index] += 1n;
        else (values as Int32Array)[index] += 1;
        const { reports } = await replayed(kind, bundles);
        const found = reports.find(({ process }) => process === target.header.process);
        expect(found).toMatchObject({ numDiffering: 1 });
        const [, rank, array] = /^rank(\d+)\.handle\.(.*)$/.exec(name) ?? [];
        expect(found?.first).toMatchObject({ rank: Number(rank), array, index });
        expect(describeHandle(found as never)).toContain(`first at rank ${rank}, ${array}[${index}]: expected`);
      }),
      { numRuns: 200 },
    );
  });
});

const CASE: HandleCase = {
  numRanks: 4,
  ranksPerNode: 2,
  numExperts: 8,
  topkIdx: [
    [[0, 5, 2]],
    [
      [7, 1, -1],
      [3, 4, 6],
    ],
    [],
    [[6, 0, 1]],
  ],
  budget: 0,
  multiple: 1,
};

describe("a replay", () => {
  test("finds rows of known ranks that changed while others are unknown", async () => {
    const data = makeHandle("fused", CASE);
    const bundle = bundleOf("fused", CASE, data, 0, [0, 1]);
    (bundle.handle.get("rank1.handle.row_src_token")?.data as Int32Array)[0] += 1;
    const { reports } = await replayed("fused", [bundle]);
    expect(reports[0].first).toMatchObject({ rank: 1, array: "row_src_token of known ranks", index: 0 });
  });

  test("names routing that two processes had differently, and takes the owner's", async () => {
    const data = makeHandle("fused", CASE);
    const [one, other] = [bundleOf("fused", CASE, data, 0, [0, 1]), bundleOf("fused", CASE, data, 1, [2, 3])];
    const theirs = idsOf(CASE, 1);
    theirs.data[4] = 5;
    (other.routing as Map<number, BundleRouting>).set(1, { topkIdx: theirs, topkWeights: null });
    const [replay] = replaysOf([other, one], 1);
    expect(replay.conflicts).toEqual([
      "routing of rank 1 differs: process 0 and process 1, first at token 1, slot 1: expert 4 and 5",
    ]);
    expect((await replay.job.layer(0)).topkIdx[1]).toEqual(idsOf(CASE, 1));
  });

  test("widens multihot routing of processes whose busiest tokens differ", async () => {
    const data = makeHandle("hybrid-ep", CASE);
    const narrow = bundleOf("hybrid-ep", CASE, data, 0, [0]);
    (narrow.routing as Map<number, BundleRouting>).set(0, {
      topkIdx: tensor("i32", [1, 1], Int32Array.of(5)),
      topkWeights: tensor("fp32", [1, 1], Float32Array.of(0.25)),
    });
    const layer = await replaysOf([narrow], 1)[0].job.layer(0);
    expect([...layer.topkIdx[0].data]).toEqual([5, -1, -1]);
    expect([...layer.topkWeights[0].data]).toEqual([0.25, 0, 0]);
    expect(layer.topkIdx[3].shape).toEqual([0, 3]);
  });

  test("processes an operation apart are replayed one by one", () => {
    const data = makeHandle("fused", CASE);
    const one = bundleOf("fused", CASE, data, 0, [0, 1]);
    const ahead = bundleOf("fused", CASE, data, 1, [2, 3]);
    const later = { ...ahead, header: { ...ahead.header, sequence: 2, operation: "dispatch" as const } };
    expect(replaysOf([one, later], 1).map(({ bundles }) => bundles.map(({ file }) => file))).toEqual([
      ["process0"],
      ["process1"],
    ]);
  });

  test("makes the rows of the run again: seed, layer and dtype are the bundle's", async () => {
    const data = makeHandle("fused", CASE);
    const plain = bundleOf("fused", CASE, data, 0, [0, 1, 2, 3]);
    const rows = { seed: 9, layer: 2, dtype: "fp8e4m3" as const };
    const [{ job }] = replaysOf([{ ...plain, header: { ...plain.header, rows } }], 1);
    expect(job).toMatchObject({ dtype: "fp8e4m3", layers: [2] });
    const { seededRows } = await import("../../cli/job.ts");
    expect(job.rows(await job.layer(2))).toEqual(seededRows(await job.layer(2), "bf16", 8, 9));
    expect(seededRows({ ...(await job.layer(2)), index: 3 }, "bf16", 8, 9)).not.toEqual(job.rows(await job.layer(2)));
  });

  test("without any routing is refused with the reasons", () => {
    const data = makeHandle("fused", CASE);
    const bundle = bundleOf("fused", CASE, data, 0, [0]);
    const empty = { ...bundle, routing: new Map(), header: { ...bundle.header, missing: ["routing: it was freed"] } };
    expect(() => replaysOf([empty], 1)).toThrow(
      /received none in process0 \(routing: it was freed\); add the bundle of/,
    );
  });
});
