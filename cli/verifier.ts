/** Replays a run on a reference backend and compares every output while it streams by. */
import type { CombineRequest, CombineResult, DispatchRequest, DispatchResult, Group } from "../core/backend.ts";
import { encodeHandle } from "../core/handle/encode.ts";
import type { HandleData } from "../core/handle/handle.ts";
import { type AnyTensor, type Tensor, toHost } from "../core/tensor.ts";
import { compareWhole, OutputComparison, type OutputReport, placeOfRow, type RowPlace } from "./compare.ts";
import type { Observer } from "./execute.ts";

const PLAIN: RowPlace = () => ({});

export class Verifier implements Observer {
  readonly keepDispatched: boolean;
  readonly reports: OutputReport[] = [];
  /** Milliseconds in this verifier. */
  elapsedMs = 0;
  readonly #reference: Group;
  readonly #progress: ((fraction: number) => void) | undefined;
  #data: HandleData | null = null;
  /** The handle that the reference made. */
  expected: HandleData | null = null;

  constructor(reference: Group, keepDispatched: boolean, progress?: (fraction: number) => void) {
    this.#reference = reference;
    this.keepDispatched = keepDispatched;
    this.#progress = progress;
  }

  async dispatched(request: DispatchRequest, result: DispatchResult): Promise<void> {
    await this.#timed(async () => {
      const ranks = this.#reference.localRanks;
      const data = await result.handle.data();
      this.#data = data;
      const place = placeOfRow(data);
      const x = await OutputComparison.of("dispatched x", ranks, result.x, place);
      const replay = await this.#reference.dispatch({
        ...request,
        x: await hosts(request.x),
        scales: request.scales && (await hosts(request.scales)),
        consume: (chunk) => chunk.name === "x" && x.add(chunk),
        progress: (f) => this.#progress?.(0.4 + f * 0.15),
      });
      this.reports.push(x.report());
      for (const [name, mine, its] of [
        ["dispatched ids", result.topkIdx, replay.topkIdx],
        ["dispatched weights", result.topkWeights, replay.topkWeights],
        ["dispatched probs", result.probs, replay.probs],
      ] as const) {
        if (mine !== null && its !== null) this.reports.push(await compareWhole(name, ranks, mine, its, place));
      }
      await this.#compareScales(request, result, place);
      this.expected = await replay.handle.data();
      await this.#compareHandles(data, this.expected);
    });
  }

  async scaled(x: readonly AnyTensor[], factors: readonly Tensor[], y: readonly AnyTensor[]): Promise<void> {
    await this.#timed(async () => {
      const place = this.#data === null ? PLAIN : placeOfRow(this.#data);
      const comparison = await OutputComparison.of("expert output", this.#reference.localRanks, y, place);
      await this.#reference.scaleRows(await hosts(x), factors, { consume: (chunk) => comparison.add(chunk) });
      this.reports.push(comparison.report());
    });
  }

  async combined(_y: readonly AnyTensor[], request: CombineRequest, result: CombineResult): Promise<void> {
    await this.#timed(async () => {
      const place: RowPlace = (rank, row) => ({ srcRank: rank, token: row });
      const comparison = await OutputComparison.of("combined x", this.#reference.localRanks, result.x, place);
      await this.#reference.combine({
        ...request,
        x: await hosts(request.x),
        consume: (chunk) => comparison.add(chunk),
        progress: (f) => this.#progress?.(0.8 + f * 0.2),
      });
      this.reports.push(comparison.report());
    });
  }

  /** fp8 scales travel as rows of their own: dispatched again alone, so that a streaming reference need not keep them. */
  async #compareScales(request: DispatchRequest, result: DispatchResult, place: RowPlace): Promise<void> {
    if (result.scales === null || request.scales === null) return;
    const { localRanks } = this.#reference;
    const comparison = await OutputComparison.of("dispatched scales", localRanks, result.scales, place);
    const scales = await hosts(request.scales);
    const replay = { ...request, x: scales, scales: null };
    await this.#reference.dispatch({ ...replay, consume: (chunk) => chunk.name === "x" && comparison.add(chunk) });
    this.reports.push(comparison.report());
  }

  /** The handles, array by array: layouts are computed independently on both sides. */
  async #compareHandles(mine: HandleData, its: HandleData): Promise<void> {
    const expected = encodeHandle(its);
    for (const [name, tensor] of encodeHandle(mine)) {
      const other = expected.get(name);
      const rank = Number(/^rank(\d+)/.exec(name)?.[1] ?? 0);
      const output = name.replace(/^rank\d+\./, "");
      const report = await compareWhole(output, [rank], [tensor], other === undefined ? [] : [other], PLAIN);
      const before = this.reports.findIndex((one) => one.output === output);
      if (before < 0) this.reports.push(report);
      else this.reports[before] = merge(this.reports[before], report);
    }
  }

  async #timed(work: () => Promise<void>): Promise<void> {
    const started = performance.now();
    await work();
    this.elapsedMs += performance.now() - started;
  }
}

/** Reports of one output over several ranks or layers as one. */
export function merge(a: OutputReport, b: OutputReport): OutputReport {
  const ulpHistogram: Record<string, number> = { ...a.ulpHistogram };
  for (const [distance, count] of Object.entries(b.ulpHistogram)) {
    ulpHistogram[distance] = (ulpHistogram[distance] ?? 0) + count;
  }
  return {
    output: a.output,
    numElements: a.numElements + b.numElements,
    numDiffering: a.numDiffering + b.numDiffering,
    first: a.first ?? b.first,
    ulpHistogram,
  };
}

function hosts(values: readonly AnyTensor[]): Promise<Tensor[]> {
  return Promise.all(values.map((value) => toHost(value)));
}
