import type {
  Backend,
  BufferMemory,
  CombineRequest,
  CombineResult,
  DispatchRequest,
  DispatchResult,
  Group,
  GroupOptions,
  RoutingInput,
  RowOutputs,
} from "../backend.ts";
import { nowUs } from "../clock.ts";
import { EventOverlap } from "../event.ts";
import {
  checkCast,
  checkCombine,
  checkDispatch,
  checkGroupOptions,
  checkNumSms,
  checkOut,
  checkRouting,
  checkScale,
} from "../functions/validate.ts";
import { Handle } from "../handle/handle.ts";
import { type RankLayout, rankLayout } from "../layout/counts.ts";
import { newHandle } from "../layout/positions.ts";
import { closeAll, Operations } from "../operations.ts";
import { type AnyTensor, bytesOf, type Tensor } from "../tensor.ts";
import { castBack, castToFp8, scaleRows } from "./cast.ts";
import { combineProbs, combineRows, combineWeights } from "./combine.ts";
import { dispatchProbs, dispatchRows, dispatchSlots } from "./dispatch.ts";

/** The oracle: obvious rather than fast, the meaning of the library. Runs anywhere. */
export function createOracleBackend(): Backend {
  const groups = new Set<Operations>();
  return {
    name: "oracle",
    createGroup: async (options) => new OracleGroup(options, groups),
    close: () => closeAll(groups),
  };
}

class OracleGroup implements Group {
  readonly backend = "oracle";
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly localRanks: readonly number[];
  readonly #operations: Operations;

  constructor(options: GroupOptions, groups: Set<Operations>) {
    const checked = checkGroupOptions(options, "oracle");
    this.numRanks = checked.numRanks;
    this.ranksPerNode = checked.ranksPerNode;
    this.localRanks = checked.localRanks;
    this.#operations = new Operations(groups);
  }

  layout(routing: RoutingInput, numExperts: number): Promise<readonly RankLayout[]> {
    return this.#operations.run(async () => {
      const { routings } = await checkRouting(this, routing, numExperts);
      return routings.map((rank) => rankLayout(rank, { ...this, numExperts }));
    });
  }

  dispatch(request: DispatchRequest): Promise<DispatchResult> {
    return this.#operations.run(async () => {
      const checked = await checkDispatch(this, request);
      const { data: cached, routings, settings } = checked;
      const startUs = nowUs();
      const data = cached ?? newHandle(request.kind, routings, { ...this, ...settings }, settings);
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
    }, request);
  }

  combine(request: CombineRequest): Promise<CombineResult> {
    return this.#operations.run(async () => {
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
    }, request);
  }

  castToFp8(x: readonly AnyTensor[]): Promise<{ x: readonly AnyTensor[]; scales: readonly AnyTensor[] }> {
    return this.#operations.run(async () => {
      const checked = await checkCast(this, x, null);
      const cast = checked.x.map(castToFp8);
      return { x: cast.map((value) => value.x), scales: cast.map((value) => value.scales) };
    });
  }

  castBack(x: readonly AnyTensor[], scales: readonly AnyTensor[]): Promise<readonly AnyTensor[]> {
    return this.#operations.run(async () => {
      const checked = await checkCast(this, x, scales);
      return checked.x.map((value, i) => castBack(value, (checked.scales as readonly Tensor[])[i]));
    });
  }

  scaleRows(
    x: readonly AnyTensor[],
    factors: readonly AnyTensor[],
    options: RowOutputs = {},
  ): Promise<readonly AnyTensor[]> {
    return this.#operations.run(async () => {
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
    });
  }

  setNumSms(numSms: number): void {
    this.#operations.expectOpen();
    checkNumSms(numSms);
  }

  allocateBuffer(bytes: number): Promise<BufferMemory> {
    return this.#operations.run(async () => {
      const memory = this.localRanks.map(() => new ArrayBuffer(bytes));
      return { bytes, free: () => memory.splice(0) };
    });
  }

  close(): Promise<void> {
    return this.#operations.close();
  }
}
