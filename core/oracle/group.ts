import type {
  Backend,
  BufferMemory,
  CombineRequest,
  CombineResult,
  DispatchRequest,
  DispatchResult,
  DispatchSettings,
  Group,
  GroupOptions,
  RoutingInput,
  RowOutputs,
} from "../backend.ts";
import { nowUs } from "../clock.ts";
import { EventOverlap } from "../event.ts";
import {
  type CheckedDispatch,
  checkCast,
  checkCombine,
  checkDispatch,
  checkGroupOptions,
  checkOut,
  checkRouting,
  checkScale,
} from "../functions/validate.ts";
import { Handle, type HandleData } from "../handle/handle.ts";
import { type RankLayout, rankLayout } from "../layout/counts.ts";
import { fusedHandle, hybridEpHandle } from "../layout/positions.ts";
import type { RankRouting } from "../layout/routing.ts";
import { type AnyTensor, bytesOf, type Tensor } from "../tensor.ts";
import { castBack, castToFp8, scaleRows } from "./cast.ts";
import { combineProbs, combineRows, combineWeights } from "./combine.ts";
import { dispatchProbs, dispatchRows, dispatchSlots } from "./dispatch.ts";

/** The oracle: obvious rather than fast, the meaning of the library. Runs anywhere. */
export function createOracleBackend(): Backend {
  return {
    name: "oracle",
    createGroup: async (options) => new OracleGroup(options),
    close: async () => {},
  };
}

class OracleGroup implements Group {
  readonly backend = "oracle";
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly localRanks: readonly number[];

  constructor(options: GroupOptions) {
    const checked = checkGroupOptions(options, "oracle");
    this.numRanks = checked.numRanks;
    this.ranksPerNode = checked.ranksPerNode;
    this.localRanks = checked.localRanks;
  }

  async layout(routing: RoutingInput, numExperts: number): Promise<readonly RankLayout[]> {
    const { routings } = await checkRouting(this, routing, numExperts);
    return routings.map((rank) => rankLayout(rank, { ...this, numExperts }));
  }

  async dispatch(request: DispatchRequest): Promise<DispatchResult> {
    await request.previousEvent?.currentStreamWait();
    const checked = await checkDispatch(this, request);
    const { routings } = checked;
    const startUs = nowUs();
    const data = checked.data ?? this.#newHandle(request, checked);
    const handle = request.handle ?? Handle.of(data);
    const layoutUs = nowUs();
    const numRows = data.ranks.map((rank) => rank.numRows);
    checkOut(this, request.out, checked.x[0].dtype, numRows, checked.x[0].shape[1]);
    const x = dispatchRows("x", data, checked.x, request.out, request.consume);
    const scales = checked.scales && dispatchRows("scales", data, checked.scales, undefined, request.consume);
    const fused = request.kind === "fused";
    const slots =
      routings !== null && fused
        ? dispatchSlots(data, routings, checked.idDtype)
        : { topkIdx: null, topkWeights: null };
    const probs = routings === null || fused ? null : dispatchProbs(data, routings);
    request.progress?.(1);
    const endUs = nowUs();
    return {
      x,
      scales,
      ...slots,
      probs,
      handle,
      event: new EventOverlap(),
      phases: [
        { rank: -1, name: "layout", startUs, durationUs: layoutUs - startUs },
        { rank: -1, name: "dispatch", startUs: layoutUs, durationUs: endUs - layoutUs },
      ],
    };
  }

  async combine(request: CombineRequest): Promise<CombineResult> {
    await request.previousEvent?.currentStreamWait();
    const checked = await checkCombine(this, request);
    const startUs = nowUs();
    const numTokens = checked.data.ranks.map((rank) => rank.numTokens);
    checkOut(this, request.out, checked.x[0].dtype, numTokens, checked.x[0].shape[1]);
    const x = combineRows(checked, request);
    const topkWeights = checked.topkWeights && combineWeights(checked.data, checked.topkWeights);
    const probs = checked.probs && combineProbs(checked.data, checked.probs);
    const durationUs = nowUs() - startUs;
    return {
      x,
      topkWeights,
      probs,
      event: new EventOverlap(),
      phases: [{ rank: -1, name: "combine", startUs, durationUs }],
    };
  }

  async castToFp8(x: readonly AnyTensor[]): Promise<{ x: readonly AnyTensor[]; scales: readonly AnyTensor[] }> {
    const checked = await checkCast(this, x, null);
    const cast = checked.x.map(castToFp8);
    return { x: cast.map((value) => value.x), scales: cast.map((value) => value.scales) };
  }

  async castBack(x: readonly AnyTensor[], scales: readonly AnyTensor[]): Promise<readonly AnyTensor[]> {
    const checked = await checkCast(this, x, scales);
    return checked.x.map((value, i) => castBack(value, (checked.scales as readonly Tensor[])[i]));
  }

  async scaleRows(
    x: readonly AnyTensor[],
    factors: readonly AnyTensor[],
    options: RowOutputs = {},
  ): Promise<readonly AnyTensor[]> {
    const checked = await checkScale(this, x, factors);
    const numRows = checked.x.map((value) => value.shape[0]);
    checkOut(this, options.out, checked.x[0].dtype, numRows, checked.x[0].shape[1]);
    const results = checked.x.map((value, i) => scaleRows(value, checked.factors[i], options.out?.[i]));
    options.progress?.(1);
    if (options.consume === undefined) return results;
    results.forEach((value, i) => {
      const rank = this.localRanks[i];
      options.consume?.({ name: "x", rank, firstRow: 0, numRows: value.shape[0], bytes: bytesOf(value) });
    });
    return [];
  }

  setNumSms(): void {}

  async allocateBuffer(bytes: number): Promise<BufferMemory> {
    const memory = this.localRanks.map(() => new ArrayBuffer(bytes));
    return { bytes, free: () => memory.splice(0) };
  }

  async close(): Promise<void> {}

  #newHandle(request: DispatchRequest, checked: CheckedDispatch): HandleData {
    const routings = checked.routings as readonly RankRouting[];
    const settings = checked.settings as DispatchSettings;
    const shape = { numRanks: this.numRanks, ranksPerNode: this.ranksPerNode, numExperts: settings.numExperts };
    return request.kind === "fused"
      ? fusedHandle(routings, shape, settings)
      : hybridEpHandle(routings, shape, settings);
  }
}
