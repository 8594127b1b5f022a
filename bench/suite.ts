/** Runs one case on one backend: layout, dispatch (with and without routing), combine, beside a memcpy. */
import type { Backend } from "../core/backend.ts";
import { elementBytes, SCALE_BLOCK, SUM_DTYPES } from "../core/dtype/dtype.ts";
import type { HandleData } from "../core/handle/handle.ts";
import type { RoutingFile } from "../core/routing/import/index.ts";
import { tensor } from "../core/tensor.ts";
import type { BenchCase } from "./cases.ts";
import { allocate, benchSettings, fillRows, makeRouting, movedRowBytes, routingInput, stamp } from "./data.ts";
import { measure, type Sample, type Timed } from "./measure.ts";
import type { OperationResult } from "./report.ts";
import { checkCombined, checkDispatched } from "./verify.ts";

const MEMCPY_BYTES = 256 << 20;
/** Small operations are repeated within one sample until they take about this long. */
const SAMPLE_MS = 5;

export interface SuiteOptions {
  readonly backend: Backend;
  readonly numWorkers: number | null;
  readonly routing: RoutingFile | null;
  readonly repeats: number;
  readonly progress?: (fraction: number) => void;
}

export async function runCase(bench: BenchCase, options: SuiteOptions): Promise<OperationResult[]> {
  const { backend } = options;
  const { numRanks, hidden, dtype, style: kind } = bench;
  const group = await backend.createGroup({ numRanks });
  const made = await makeRouting(bench, options.routing);
  const routing = routingInput(made);
  const settings = benchSettings(bench);
  const tokens = made.topkIdx.map((ids) => ids.shape[0]);
  const narrow = tokens.map((rows) => tensor("u8", [rows, 1]));
  const { handle } = await group.dispatch({ kind, x: narrow, scales: null, routing, settings });
  const data = await handle.data();
  const rows = data.ranks.map((rank) => rank.numRows);
  const all = allocate(backend, [
    ...tokens.map((count) => ({ dtype, shape: [count, hidden] })),
    ...rows.map((count) => ({ dtype, shape: [count, hidden] })),
    ...tokens.map((count) => ({ dtype, shape: [count, hidden] })),
  ]);
  const x = all.slice(0, numRanks);
  const out = all.slice(numRanks, 2 * numRanks);
  const y = all.slice(2 * numRanks);
  const blocks = Math.ceil(hidden / SCALE_BLOCK);
  const scales =
    dtype === "fp8e4m3"
      ? allocate(
          backend,
          tokens.map((count) => ({ dtype: "fp32", shape: [count, blocks] })),
        )
      : null;
  fillRows(x, 12345);
  if (scales) fillRows(scales, 999);
  const from = Buffer.from(new ArrayBuffer(MEMCPY_BYTES)).fill(1);
  const to = Buffer.from(new ArrayBuffer(MEMCPY_BYTES)).fill(2);
  const sums = SUM_DTYPES.includes(dtype);
  const operations: Timed[] = [
    { name: "memcpy", run: () => from.copy(to) },
    { name: "layout", run: () => group.layout(routing, bench.numExperts) },
    { name: "dispatch", run: () => group.dispatch({ kind, x, scales, routing, settings, out }) },
    { name: "dispatch-cached", run: () => group.dispatch({ kind, x, scales, handle, out }) },
    ...(sums
      ? [
          {
            name: "combine",
            run: () => group.combine({ handle, x: out, topkWeights: null, probs: null, bias: [], out: y }),
          },
        ]
      : []),
  ];
  const batched = await inBatches(operations);
  const samples = await measure(
    batched.map(({ operation }) => operation),
    { warmUps: 2, repeats: options.repeats, refresh: (round) => stamp(x, round), progress: options.progress },
  );
  checkDispatched(data, x, out);
  if (sums) checkCombined(data, out, y);
  await group.close();
  return results(
    bench,
    options,
    data,
    samples,
    new Map(batched.map(({ operation, times }) => [operation.name, times])),
  );
}

/** An operation of microseconds is timed many at a time. */
async function inBatches(operations: readonly Timed[]): Promise<{ operation: Timed; times: number }[]> {
  const batched = [];
  for (const { name, run } of operations) {
    await run();
    const started = performance.now();
    await run();
    const times = Math.max(1, Math.min(1000, Math.round(SAMPLE_MS / Math.max(1e-3, performance.now() - started))));
    const repeat = async () => {
      for (let i = 0; i < times; i++) await run();
    };
    batched.push({ operation: { name, run: repeat }, times });
  }
  return batched;
}

function results(
  bench: BenchCase,
  { backend, numWorkers }: SuiteOptions,
  data: HandleData,
  samples: ReadonlyMap<string, Sample>,
  batches: ReadonlyMap<string, number>,
): OperationResult[] {
  const rowBytes = movedRowBytes(bench);
  let numPairs = 0;
  let numRemote = 0;
  let numTokens = 0;
  for (const rank of data.ranks) {
    numTokens += rank.numTokens;
    for (let i = 0; i < rank.sendRank.length; i++) {
      const first = i % rank.numEntries === 0 || rank.sendRank[i - 1] !== rank.sendRank[i];
      if (rank.sendRank[i] < 0 || !first) continue;
      numPairs++;
      if (rank.sendRank[i] !== rank.rank) numRemote++;
    }
  }
  const numRows = data.ranks.reduce((sum, rank) => sum + rank.numRows, 0);
  const bytes: Record<string, number> = {
    memcpy: MEMCPY_BYTES,
    layout: numTokens * bench.topk * elementBytes("i32"),
    dispatch: numRows * rowBytes,
    "dispatch-cached": numRows * rowBytes,
    combine: numRows * rowBytes,
  };
  const memcpy = samples.get("memcpy") as Sample;
  const memcpyGBps = MEMCPY_BYTES / (memcpy.medianMs / (batches.get("memcpy") ?? 1)) / 1e6;
  const memcpyCpuMs = memcpy.cpuMs / (batches.get("memcpy") ?? 1);
  return [...samples].map(([operation, sample]) => {
    const batch = batches.get(operation) ?? 1;
    const medianMs = sample.medianMs / batch;
    const moves = operation.startsWith("dispatch") || operation === "combine";
    const logicalBytes = moves ? numPairs * rowBytes : null;
    const wireBytes = moves ? numRemote * rowBytes : null;
    const perSecond = (count: number) => count / medianMs / 1e6;
    return {
      case: bench.name,
      backend: operation === "memcpy" ? "Buffer.copy" : backend.name,
      workers: operation === "memcpy" ? null : numWorkers,
      operation,
      medianMs,
      minMs: sample.minMs / batch,
      maxMs: sample.maxMs / batch,
      repeats: sample.repeats,
      movedBytes: bytes[operation],
      logicalBytes,
      wireBytes,
      movedGBps: perSecond(bytes[operation]),
      logicalGBps: logicalBytes === null ? null : perSecond(logicalBytes),
      wireGBps: wireBytes === null ? null : perSecond(wireBytes),
      memcpyGBps,
      timesMemcpy: perSecond(bytes[operation]) / memcpyGBps,
      floorMs: bytes[operation] / memcpyGBps / 1e6,
      cpuMs: sample.cpuMs / batch,
      timesMemcpyCpu: bytes[operation] / (sample.cpuMs / batch) / (MEMCPY_BYTES / memcpyCpuMs),
    };
  });
}
