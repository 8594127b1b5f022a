import type { Backend, CombineResult, DispatchResult, Group, Phase } from "../../core/backend.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import { generateRouting } from "../../core/routing/generate.ts";
import { type AnyTensor, bytesOf, type Tensor, tensor, toHost } from "../../core/tensor.ts";
import type { TraceHeader } from "../../core/trace/format.ts";
import type { Dataset } from "./dataset.ts";
import { countedDataset } from "./memory.ts";

export interface RunRequest {
  readonly numRanks: number;
  readonly numNodes: number;
  readonly numExperts: number;
  readonly topk: number;
  readonly tokensPerRank: number;
  readonly hidden: number;
  readonly padMultiple: number;
  readonly seed: number;
  readonly style: "fused" | "hybrid-ep";
  readonly workload: string;
}

export interface RunCheck {
  readonly name: string;
  readonly numRanks: number;
  readonly numBytes: number;
  readonly numDifferent: number;
}

export interface RunResult {
  readonly ok: boolean;
  readonly verdict: string;
  readonly checks: readonly RunCheck[];
  readonly numRows: number;
  readonly dataset: Dataset;
}

interface Outputs {
  readonly named: readonly (readonly [name: string, values: readonly AnyTensor[]])[];
  readonly phases: readonly Phase[];
  readonly numRows: number;
}

/** Dispatch, a stand-in expert, combine: on `backend` and on the oracle, every output compared byte by byte. */
export async function runOnce(backend: Backend, request: RunRequest): Promise<RunResult> {
  const { numRanks, numExperts, topk, hidden, style } = request;
  const ranksPerNode = numRanks / Math.max(1, request.numNodes);
  const routing = generateRouting({
    workload: request.workload,
    seed: request.seed,
    numRanks,
    ranksPerNode,
    numTokens: request.tokensPerRank,
    numExperts,
    topk,
  });
  const x = Array.from({ length: numRanks }, (_, rank) => rows(rank, request.tokensPerRank, hidden));
  const run = async (on: Backend): Promise<Outputs> => {
    const group = await on.createGroup({ numRanks, ranksPerNode });
    try {
      return await runGroup(group, request, x, routing);
    } finally {
      await group.close();
    }
  };
  const ours = await run(backend);
  const oracle = createOracleBackend();
  const reference = await run(oracle);
  const checks: RunCheck[] = [];
  for (const [i, [name, values]] of ours.named.entries())
    checks.push(await compare(name, values, reference.named[i][1]));
  const different = checks.reduce((total, { numDifferent }) => total + numDifferent, 0);
  const header: TraceHeader = {
    producer: `the viewer, ${backend.name}`,
    clock: "measured",
    numSteps: 1,
    numLayers: 1,
    numRanks,
    ranksPerNode,
    numExperts,
    topk,
    hidden,
    dtype: "bf16",
    rowBytes: hidden * 2,
    style,
    settings: settingsOf(request),
  };
  const topkIdx = routing.map((rank) => rank.topkIdx.data);
  const weights = routing.map((rank) => rank.topkWeights?.data ?? new Float32Array(rank.topkIdx.data.length));
  const chunk = { topkIdx, topkWeights: weights, phases: ours.phases };
  const about = {
    name: `run on ${backend.name}`,
    kind: "trace" as const,
    notes: ["Run in this page: times are its own clock, all ranks on one device."],
    hasWeights: true,
    close: async () => {},
  };
  return {
    ok: different === 0,
    verdict:
      different === 0
        ? `${backend.name} equals the oracle bit for bit in all ${checks.length} outputs`
        : `${backend.name} differs from the oracle in ${different} bytes`,
    checks,
    numRows: ours.numRows,
    dataset: countedDataset(about, header, async () => chunk),
  };
}

function settingsOf(request: RunRequest): TraceHeader["settings"] {
  const padMultiple = request.style === "fused" ? 1 : request.padMultiple;
  return { expertAlignment: 1, numWorstTokens: 0, padMultiple, numPermutedTokens: null };
}

async function runGroup(
  group: Group,
  request: RunRequest,
  x: readonly Tensor[],
  routing: ReturnType<typeof generateRouting>,
): Promise<Outputs> {
  const phases: Phase[] = [];
  const timed = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const before = performance.now();
    const result = await work();
    const durationUs = (performance.now() - before) * 1000;
    phases.push({ rank: -1, name, startUs: (before - started) * 1000, durationUs });
    return result;
  };
  const started = performance.now();
  const kind = request.style;
  const dispatched: DispatchResult = await timed("dispatch", () =>
    group.dispatch({
      kind,
      x,
      scales: null,
      routing: { topkIdx: routing.map((r) => r.topkIdx), topkWeights: routing.flatMap((r) => r.topkWeights ?? []) },
      settings: { numExperts: request.numExperts, ...settingsOf(request) },
    }),
  );
  // The stand-in expert of `run`: rows times 0.5, so that combine's sums are not of the inputs themselves.
  const factors = dispatched.x.map((value) =>
    tensor("fp32", [value.shape[0]], new Float32Array(value.shape[0]).fill(0.5)),
  );
  const scaled = await timed("experts", async () => ({ x: await group.scaleRows(dispatched.x, factors) }));
  const combined: CombineResult = await timed("combine", () =>
    group.combine({
      handle: dispatched.handle,
      x: scaled.x,
      topkWeights: kind === "fused" ? dispatched.topkWeights : null,
      probs: kind === "fused" ? null : dispatched.probs,
      bias: [],
    }),
  );
  const { ranks } = await dispatched.handle.data();
  const ints = (pick: (rank: (typeof ranks)[number]) => Int32Array) =>
    ranks.map((rank) => tensor("i32", [pick(rank).length], Int32Array.from(pick(rank))));
  const named: [string, readonly AnyTensor[] | null][] = [
    ["dispatched rows", dispatched.x],
    ["dispatched expert ids", dispatched.topkIdx],
    ["dispatched weights", dispatched.topkWeights],
    ["dispatched probs", dispatched.probs],
    ["tokens per expert", ints((rank) => rank.tokensPerExpert)],
    ["row positions", ints((rank) => rank.sendRow)],
    ["rows after the experts", scaled.x],
    ["combined rows", combined.x],
    ["combined weights", combined.topkWeights],
    ["combined probs", combined.probs],
  ];
  return {
    named: named.flatMap(([name, values]) => (values ? [[name, values] as const] : [])),
    phases,
    numRows: ranks.reduce((total, rank) => total + rank.numRows, 0),
  };
}

async function compare(name: string, ours: readonly AnyTensor[], theirs: readonly AnyTensor[]): Promise<RunCheck> {
  let numBytes = 0;
  let numDifferent = 0;
  for (const [rank, value] of ours.entries()) {
    const [a, b] = [bytesOf(await toHost(value)), bytesOf(await toHost(theirs[rank]))];
    numBytes += a.length;
    numDifferent += Math.abs(a.length - b.length);
    for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) numDifferent++;
  }
  return { name, numRanks: ours.length, numBytes, numDifferent };
}

/** bf16 rows that are a pure function of (rank, token, column): exponents around 1, both signs. */
function rows(rank: number, numTokens: number, hidden: number): Tensor<"bf16"> {
  const data = new Uint16Array(numTokens * hidden);
  for (let i = 0; i < data.length; i++) {
    const mixed = Math.imul(i + 1, 2654435761) ^ Math.imul(rank + 1, 40503);
    data[i] = 0x3e00 | (mixed >>> 22) | ((mixed & 1) << 15);
  }
  return tensor("bf16", [numTokens, hidden], data);
}
