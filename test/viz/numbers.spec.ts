/** Every view's numbers equal core's statistics on the same file, read from its table. */
import { memorySource } from "../../core/io/bytes.ts";
import { fusedHandle, hybridEpHandle } from "../../core/layout/positions.ts";
import { countRouting, loadStatistics, routingStatistics } from "../../core/routing/statistics/index.ts";
import type { TraceChunk, TraceHeader } from "../../core/trace/format.ts";
import { openTrace } from "../../core/trace/read.ts";
import { expect, FILES, test } from "./support/viewer.ts";

const LAYER = 3;

async function reference(name: keyof typeof FILES, layer = LAYER) {
  const trace = await openTrace(memorySource(await FILES[name](), name));
  const chunk = await trace.chunk(0, layer);
  return { header: trace.header, chunk, ...counted(trace.header, chunk) };
}

/** Core's own counting of the layer, from the tokens alone. */
function counted(header: TraceHeader, chunk: TraceChunk) {
  const ids = Int32Array.from(chunk.topkIdx.flatMap((rank) => [...rank]));
  const firstToken = [0];
  for (const rank of chunk.topkIdx) firstToken.push(firstToken[firstToken.length - 1] + rank.length / header.topk);
  const counts = countRouting(ids, header.topk, { ...header, firstToken });
  return { counts, statistics: routingStatistics(counts, header.settings.padMultiple) };
}

function handleOf(header: TraceHeader, chunk: TraceChunk) {
  const routings = chunk.topkIdx.map((topkIdx, rank) => ({
    rank,
    numTokens: topkIdx.length / header.topk,
    topk: header.topk,
    topkIdx,
    topkWeights: null,
  }));
  return header.style === "fused"
    ? fusedHandle(routings, header, header.settings)
    : hybridEpHandle(routings, header, header.settings);
}

test("overview", async ({ viewer }) => {
  const { counts, statistics } = await reference("fused");
  await viewer.open(`layer=${LAYER}`, "fused");
  const values = Object.fromEntries((await viewer.table()).map(([name, , value]) => [name, value]));
  expect(values).toEqual({
    Tokens: counts.numTokens,
    Slots: counts.numSlots,
    "Remote share": statistics.remoteShare,
    "Dedup factor": statistics.dedupFactor,
    "Max/mean rank load": statistics.ranks.maxOverMean,
    "Padding waste": 0,
  });
  await viewer.open(`layer=1`, "hybrid");
  const hybrid = await reference("hybrid", 1);
  const { ranks } = handleOf(hybrid.header, hybrid.chunk);
  const padded = ranks.reduce((sum, rank) => sum + rank.tokensPerExpert.reduce((a, b) => a + b, 0), 0);
  const used = ranks.reduce((sum, rank) => sum + rank.numTokensPerExpert.reduce((a, b) => a + b, 0), 0);
  const waste = (await viewer.table()).find(([name]) => name === "Padding waste");
  expect(waste?.[2]).toBeCloseTo((padded - used) / padded, 12);
});

test("traffic, in each metric and at node level", async ({ viewer }) => {
  const { header, chunk, counts } = await reference("fused");
  const { numRanks, numExperts, topk, rowBytes } = header;
  const slots = new Map<string, number>();
  const rows = new Map<string, Set<number>>();
  chunk.topkIdx.forEach((ids, src) => {
    ids.forEach((expert, i) => {
      if (expert < 0) return;
      const key = `${src},${Math.floor(expert / (numExperts / numRanks))}`;
      slots.set(key, (slots.get(key) ?? 0) + 1);
      rows.set(key, (rows.get(key) ?? new Set()).add(Math.floor(i / topk)));
    });
  });
  for (const [metric, of] of [
    ["slots", (key: string) => slots.get(key) ?? 0],
    ["rows", (key: string) => rows.get(key)?.size ?? 0],
    ["bytes", (key: string) => (rows.get(key)?.size ?? 0) * rowBytes],
  ] as const) {
    await viewer.open(`view=traffic&layer=${LAYER}&metric=${metric}`, "fused");
    const table = await viewer.table();
    expect(table).toHaveLength(numRanks * numRanks);
    for (const [s, d, value] of table) expect(value, `${metric} from ${s} to ${d}`).toBe(of(`${s},${d}`));
    if (metric === "rows") expect(table.reduce((sum, [, , value]) => sum + Number(value), 0)).toBe(counts.numRows);
  }
  await viewer.open(`view=traffic&layer=${LAYER}&metric=slots&level=node`, "fused");
  const nodes = await viewer.table();
  const received = [0, 1].map((node) =>
    nodes.filter(([, d]) => d === node).reduce((sum, [, , value]) => sum + Number(value), 0),
  );
  expect(received).toEqual([...counts.slotsPerNode]);
});

test("load of experts, ranks and nodes, with padding, and its description", async ({ viewer }) => {
  const { counts, statistics } = await reference("hybrid");
  for (const [unit, loads] of [
    ["expert", counts.slotsPerExpert],
    ["rank", counts.slotsPerRank],
    ["node", counts.slotsPerNode],
  ] as const) {
    await viewer.open(`view=load&layer=${LAYER}&unit=${unit}`, "hybrid");
    const table = await viewer.table();
    const byItem = Object.fromEntries(table.map(([item, , value]) => [item, value]));
    expect(byItem).toEqual(Object.fromEntries([...loads].map((load, i) => [i, load])));
    // Largest first, as the bars.
    expect(table.map(([, , value]) => value)).toEqual([...loads].sort((a, b) => b - a));
    const { maxOverMean, gini } = loadStatistics(loads);
    const text = (value: number | null) => String(Number((value ?? 0).toPrecision(4)));
    await expect(viewer.page.locator("#description")).toContainText(
      `max/mean ${text(maxOverMean)}, Gini ${text(gini)}`,
    );
  }
  await viewer.open(`view=load&layer=${LAYER}&unit=expert&padding=1`, "hybrid");
  const total = (await viewer.table()).reduce((sum, [, , value]) => sum + Number(value), 0);
  expect(total).toBe(statistics.padded?.experts.total);
});

test("buffers", async ({ viewer }) => {
  for (const name of ["fused", "hybrid"] as const) {
    const { header, chunk } = await reference(name);
    await viewer.open(`view=buffers&layer=${LAYER}`, name);
    const expected = handleOf(header, chunk).ranks.map((rank) => {
      const used = rank.rowSrcRank.filter((src) => src >= 0).length;
      return [rank.rank, used, rank.numRows, rank.overflow.numCut, rank.numRows * header.rowBytes];
    });
    const table = await viewer.table();
    expect(table.map(([rank, used, , , rows, , cut, bytes]) => [rank, used, rows, cut, bytes])).toEqual(expected);
    expect(table.every(([, used, padding, tail, rows]) => Number(used) + Number(padding) + Number(tail) === rows)).toBe(
      true,
    );
  }
});

test("token", async ({ viewer }) => {
  for (const name of ["fused", "hybrid"] as const) {
    const { header, chunk } = await reference(name);
    const [rank, token] = [5, 40];
    await viewer.open(`view=token&layer=${LAYER}&token=${rank},${token}`, name);
    const source = handleOf(header, chunk).ranks[rank];
    const { topk, numExperts, numRanks } = header;
    const expected = [...chunk.topkIdx[rank].subarray(token * topk, (token + 1) * topk)].map((expert, slot) => {
      const dst = Math.floor(expert / (numExperts / numRanks));
      const entries = [...source.sendRank.subarray(token * source.numEntries, (token + 1) * source.numEntries)];
      const at = entries.findIndex(
        (to, i) => to === dst && (!source.sendExpert || source.sendExpert[token * source.numEntries + i] === expert),
      );
      return [
        slot,
        expert,
        dst,
        chunk.topkWeights?.[rank][token * topk + slot],
        at < 0 ? "" : source.sendRow[token * source.numEntries + at],
      ];
    });
    const table = await viewer.table();
    expect(table.map(([slot, expert, , dst, , weight, row]) => [slot, expert, dst, weight, row])).toEqual(expected);
  }
});

test("timeline", async ({ viewer }) => {
  const { chunk } = await reference("fused");
  await viewer.open(`view=timeline&layer=${LAYER}`, "fused");
  const table = await viewer.table();
  const names = [...new Set(chunk.phases.map(({ name }) => name))];
  expect(table.map(([name]) => name).sort()).toEqual(names.sort());
  for (const [name, kind, ranks, min, median, max] of table) {
    const mine = chunk.phases.filter((phase) => phase.name === name);
    const times = mine.map(({ durationUs }) => durationUs).sort((a, b) => a - b);
    expect(kind).toBe(mine[0].waiting ? "waiting" : "working");
    expect([ranks, min, max]).toEqual([16, times[0], times[15]]);
    expect(median).toBeCloseTo((times[7] + times[8]) / 2, 9);
  }
});

test("compare joins both files by key", async ({ viewer }) => {
  const [a, b] = [await reference("fused"), await reference("balanced")];
  await viewer.open(`view=compare&layer=${LAYER}`, "fused", "balanced");
  const table = await viewer.table();
  const row = (kind: string, item: string) => table.find(([k, i]) => k === kind && i === item)?.slice(2, 5);
  expect(row("overview", "Slots")).toEqual([
    a.counts.numSlots,
    b.counts.numSlots,
    b.counts.numSlots - a.counts.numSlots,
  ]);
  const changed = [...a.counts.slotsPerExpert.keys()].filter(
    (e) => a.counts.slotsPerExpert[e] !== b.counts.slotsPerExpert[e],
  );
  expect(table.filter(([kind]) => kind === "slots per expert")).toHaveLength(changed.length);
  for (const e of changed) {
    const [x, y] = [a.counts.slotsPerExpert[e], b.counts.slotsPerExpert[e]];
    expect(row("slots per expert", `expert ${e}`)).toEqual([x, y, y - x]);
  }
  await viewer.open(`view=load&compare=1&layer=${LAYER}&unit=rank`, "fused", "balanced");
  await expect(viewer.page.locator(".stage")).toHaveCount(3);
  for (const [rank, , x, y, difference] of await viewer.table()) {
    expect([x, y]).toEqual([a.counts.slotsPerRank[Number(rank)], b.counts.slotsPerRank[Number(rank)]]);
    expect(difference).toBe(Number(y) - Number(x));
  }
});
