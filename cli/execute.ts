/** One layer through dispatch, the stand-in expert and combine, timed stage by stage; `run` and `verify` share it. */
import type { CombineResult, DispatchRequest, DispatchResult, Group, Phase } from "../core/backend.ts";
import type { HandleData } from "../core/handle/handle.ts";
import { numLocalExperts } from "../core/layout/routing.ts";
import { type AnyTensor, type Tensor, tensor, toHost } from "../core/tensor.ts";
import type { Job, JobLayer } from "./job.ts";

/** Milliseconds per stage, by this process's clock around the calls. */
export interface StageTimes {
  readonly generateMs: number;
  readonly castMs: number;
  readonly dispatchMs: number;
  readonly expertMs: number;
  readonly combineMs: number;
}

/** What a single run takes again when it is repeated. */
export type RunTimes = Pick<StageTimes, "dispatchMs" | "expertMs" | "combineMs">;

/** Of a layer that ran several times: `times` are medians of that many, without the first. */
export interface Repeats {
  readonly numRepeats: number;
  readonly firstTimes: RunTimes;
}

export interface LayerRun {
  readonly layer: JobLayer;
  readonly data: HandleData;
  readonly times: StageTimes;
  readonly phases: readonly Phase[];
  readonly repeats?: Repeats;
}

/** Called between the stages, while the tensors are at hand; what they take is not part of the stage times. */
export interface Observer {
  dispatched?(request: DispatchRequest, result: DispatchResult): Promise<void>;
  scaled?(x: readonly AnyTensor[], factors: readonly Tensor[], y: readonly AnyTensor[]): Promise<void>;
  combined?(y: readonly AnyTensor[], request: Parameters<Group["combine"]>[0], result: CombineResult): Promise<void>;
  /** Keep the dispatched rows beside the expert's output, so that `scaled` can compare: doubles the memory. */
  readonly keepDispatched?: boolean;
  readonly progress?: (fraction: number) => void;
}

/** What a layer dispatches. Runs of it leave it as it is. */
export interface PreparedLayer {
  readonly layer: JobLayer;
  readonly request: DispatchRequest;
  readonly times: Pick<StageTimes, "generateMs" | "castMs">;
}

export async function prepareLayer(group: Group, job: Job, index: number): Promise<PreparedLayer> {
  const watch = stopwatch();
  const layer = await job.layer(index);
  const own = <T>(values: readonly T[]): T[] => group.localRanks.map((rank) => values[rank]);
  const rows = own(job.rows(layer));
  const generateMs = watch();
  const cast = job.dtype === "fp8e4m3" ? await group.castToFp8(rows) : { x: rows, scales: null };
  const castMs = watch();
  const request: DispatchRequest = {
    kind: job.style,
    x: cast.x,
    scales: cast.scales,
    routing: { topkIdx: own(layer.topkIdx), topkWeights: own(layer.topkWeights) },
    settings: job.settings,
  };
  return { layer, request, times: { generateMs, castMs } };
}

export async function executeLayer(group: Group, job: Job, index: number, observer?: Observer): Promise<LayerRun> {
  return executePrepared(group, job, await prepareLayer(group, job, index), observer);
}

export async function executePrepared(
  group: Group,
  job: Job,
  { layer, request, times }: PreparedLayer,
  observer: Observer = {},
): Promise<LayerRun> {
  const watch = stopwatch();
  const dispatched = await group.dispatch({ ...request, progress: (f) => observer.progress?.(f * 0.4) });
  const dispatchMs = watch();
  const data = await dispatched.handle.data();
  await observer.dispatched?.(request, dispatched);
  const factors = await expertFactors(job, data, dispatched);
  watch();
  const x = dispatched.scales === null ? dispatched.x : await group.castBack(dispatched.x, dispatched.scales);
  const inPlace = observer.keepDispatched || dispatched.scales !== null ? undefined : (x as Tensor[]);
  const onHost = x.every((value) => "data" in value);
  const y = await group.scaleRows(x, factors, onHost ? { out: inPlace } : {});
  const expertMs = watch();
  if (observer.keepDispatched) await observer.scaled?.(x, factors, y);
  const combine = { handle: dispatched.handle, x: y, topkWeights: null, probs: null, bias: [] };
  watch();
  const combined = await group.combine({ ...combine, progress: (f) => observer.progress?.(0.6 + f * 0.4) });
  const combineMs = watch();
  await observer.combined?.(y, combine, combined);
  return {
    layer,
    data,
    times: { ...times, dispatchMs, expertMs, combineMs },
    phases: [...dispatched.phases, ...combined.phases],
  };
}

/**
 * The stand-in expert multiplies a row by its weight and by (1 + e) / E, so that every expert leaves its mark. A fused row
 * that several local experts share gets the float32 sum over its slots, in slot order: what they would add up to.
 */
async function expertFactors(job: Job, data: HandleData, result: DispatchResult): Promise<Tensor<"fp32">[]> {
  const { numExperts } = data.meta;
  const perRank = numLocalExperts(data.meta);
  const scale = (expert: number) => Math.fround((1 + expert) / numExperts);
  if (job.style === "hybrid-ep") {
    const probs = await Promise.all((result.probs ?? []).map((value) => toHost(value)));
    return data.ranks.map((rank, i) => {
      const factors = tensor("fp32", [rank.numRows]);
      let row = 0;
      rank.tokensPerExpert.forEach((count, local) => {
        const factor = scale(rank.rank * perRank + local);
        for (const end = row + count; row < end; row++) factors.data[row] = (probs[i].data[row] as number) * factor;
      });
      return factors;
    });
  }
  const ids = await Promise.all((result.topkIdx ?? []).map((value) => toHost(value)));
  const weights = await Promise.all((result.topkWeights ?? []).map((value) => toHost(value)));
  return data.ranks.map((rank, i) => {
    const factors = tensor("fp32", [rank.numRows]);
    const topk = ids[i].shape[1];
    for (let slot = 0; slot < rank.numRows * topk; slot++) {
      const expert = Number(ids[i].data[slot]);
      if (expert < 0) continue;
      const part = Math.fround((weights[i].data[slot] as number) * scale(rank.rank * perRank + expert));
      factors.data[Math.floor(slot / topk)] += part;
    }
    return factors;
  });
}

/** Milliseconds since the last call. */
function stopwatch(): () => number {
  let last = performance.now();
  return () => {
    const now = performance.now();
    const elapsed = now - last;
    last = now;
    return elapsed;
  };
}
