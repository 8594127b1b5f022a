import type {
  BufferMemory,
  CombineRequest,
  CombineResult,
  DispatchRequest,
  DispatchResult,
  Group,
  GroupOptions,
  Phase,
  RoutingInput,
  RowOutputs,
  StreamOptions,
} from "../../core/backend.ts";
import { nowUs } from "../../core/clock.ts";
import { SCALE_BLOCK } from "../../core/dtype/dtype.ts";
import { OutOfMemory } from "../../core/errors.ts";
import { EventOverlap } from "../../core/event.ts";
import {
  type CheckedDispatch,
  checkCast,
  checkCombine,
  checkDispatch,
  checkGroupOptions,
  checkNumSms,
  checkOut,
  checkRouting,
  checkScale,
} from "../../core/functions/validate.ts";
import { Handle, type HandleData } from "../../core/handle/handle.ts";
import { type RankLayout, rankLayout } from "../../core/layout/counts.ts";
import { newHandle } from "../../core/layout/positions.ts";
import { Operations, type Turns } from "../../core/operations.ts";
import { type AnyTensor, type Tensor, tensor } from "../../core/tensor.ts";
import { combineRows } from "./combine.ts";
import { consumeDispatch, dispatchRows } from "./dispatch.ts";
import type { Engine, RunOptions } from "./engine.ts";
import { resultTensors } from "./outputs.ts";
import { castBack, castToFp8, scaleRows } from "./rowwise.ts";
import { combineProbs, dispatchProbs, dispatchSlots } from "./slots.ts";

export class WasmGroup implements Group {
  readonly backend = "wasm";
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly localRanks: readonly number[];
  readonly #engine: Engine;
  readonly #operations: Operations;
  #maxThreads = Number.POSITIVE_INFINITY;

  constructor(engine: Engine, groups: Set<Operations>, turns: Turns, options: GroupOptions) {
    const checked = checkGroupOptions(options, "wasm");
    this.numRanks = checked.numRanks;
    this.ranksPerNode = checked.ranksPerNode;
    this.localRanks = checked.localRanks;
    this.#engine = engine;
    this.#operations = new Operations(groups, turns);
  }

  layout(routing: RoutingInput, numExperts: number): Promise<readonly RankLayout[]> {
    return this.#operations.run(async () => {
      const { routings } = await checkRouting(this, routing, numExperts);
      return routings.map((rank) => rankLayout(rank, { ...this, numExperts }));
    });
  }

  dispatch(request: DispatchRequest): Promise<DispatchResult> {
    return this.#operations.start(async () => {
      const checked = await checkDispatch(this, request);
      const { data: cached, routings, settings } = checked;
      const phases: Phase[] = [];
      const layout = () => cached ?? newHandle(request.kind, routings, { ...this, ...settings }, settings);
      const data = timed(phases, "layout", layout);
      const { consume } = request;
      const rows = data.ranks.map((rank) => rank.numRows);
      const x = consume ? [] : this.#rowOutputs(request, checked.x[0], rows);
      const scales = checked.scales && (consume ? [] : this.#rowOutputs({}, checked.scales[0], rows));
      const slots = timed(phases, "slots", () => slotOutputs(data, checked));
      const options = this.#runOptions(request);
      const work = async () => {
        const startUs = nowUs();
        if (consume) await consumeDispatch("x", data, checked.x, request);
        else await dispatchRows(this.#engine, data, checked.x, x, options);
        if (checked.scales && scales) {
          if (consume) await consumeDispatch("scales", data, checked.scales, { consume });
          else await dispatchRows(this.#engine, data, checked.scales, scales, { numThreads: options.numThreads });
        }
        phases.push({ rank: -1, name: "dispatch", startUs, durationUs: nowUs() - startUs });
      };
      const handle = request.handle ?? Handle.of(data);
      return { work, result: (done) => ({ x, scales, ...slots, handle, event: new EventOverlap(done), phases }) };
    }, request);
  }

  combine(request: CombineRequest): Promise<CombineResult> {
    return this.#operations.start(async () => {
      const checked = await checkCombine(this, request);
      const { data, topkWeights: weights } = checked;
      const { consume } = request;
      const phases: Phase[] = [];
      const tokens = data.ranks.map((rank) => rank.numTokens);
      const x = consume ? [] : this.#rowOutputs(request, checked.x[0], tokens);
      const topkWeights = weights && tokens.map((rows) => tensor("fp32", [rows, weights[0].shape[1]]));
      const probs = checked.probs && combineProbs(data, checked.probs);
      const options = this.#runOptions(request);
      const work = async () => {
        const startUs = nowUs();
        await combineRows(this.#engine, data, checked.x, checked.bias, { out: x, consume }, options);
        if (weights && topkWeights) {
          await combineRows(this.#engine, data, weights, [], { out: topkWeights }, { numThreads: options.numThreads });
        }
        phases.push({ rank: -1, name: "combine", startUs, durationUs: nowUs() - startUs });
      };
      return { work, result: (done) => ({ x, topkWeights, probs, event: new EventOverlap(done), phases }) };
    }, request);
  }

  castToFp8(x: readonly AnyTensor[]): Promise<{ x: readonly AnyTensor[]; scales: readonly AnyTensor[] }> {
    return this.#operations.start(async () => {
      const checked = await checkCast(this, x, null);
      const hidden = checked.x[0].shape[1];
      const rows = checked.x.map((value) => value.shape[0]);
      const out = this.#rowOutputs({}, { dtype: "fp8e4m3", shape: [0, hidden] }, rows);
      const scales = this.#rowOutputs({}, { dtype: "fp32", shape: [0, Math.ceil(hidden / SCALE_BLOCK)] }, rows);
      const work = () => castToFp8(this.#engine, checked.x, out, scales, this.#runOptions({}));
      return { work, result: () => ({ x: out, scales }) };
    });
  }

  castBack(x: readonly AnyTensor[], scales: readonly AnyTensor[]): Promise<readonly AnyTensor[]> {
    return this.#operations.start(async () => {
      const checked = await checkCast(this, x, scales);
      const rows = checked.x.map((value) => value.shape[0]);
      const out = this.#rowOutputs({}, { dtype: "bf16", shape: [0, checked.x[0].shape[1]] }, rows);
      const work = () => castBack(this.#engine, checked.x, checked.scales ?? [], out, this.#runOptions({}));
      return { work, result: () => out };
    });
  }

  scaleRows(
    x: readonly AnyTensor[],
    factors: readonly AnyTensor[],
    options: RowOutputs = {},
  ): Promise<readonly AnyTensor[]> {
    return this.#operations.start(async () => {
      const checked = await checkScale(this, x, factors);
      const { consume } = options;
      const rows = checked.x.map((value) => value.shape[0]);
      const out = consume ? [] : this.#rowOutputs(options, checked.x[0], rows);
      const { localRanks } = this;
      const run = this.#runOptions(options);
      const work = () => scaleRows(this.#engine, checked.x, checked.factors, localRanks, { out, consume }, run);
      return { work, result: () => out };
    });
  }

  setNumSms(numSms: number): void {
    this.#operations.expectOpen();
    checkNumSms(numSms);
    this.#maxThreads = numSms;
  }

  /** Ranks share one process: rows need no communication buffer. The memory is there for the caller's accounting. */
  async allocateBuffer(bytes: number): Promise<BufferMemory> {
    this.#operations.expectOpen();
    try {
      const memory = this.localRanks.map(() => new ArrayBuffer(bytes));
      return { bytes, free: () => memory.splice(0) };
    } catch (cause) {
      throw new OutOfMemory(
        {
          name: "buffer",
          expected: `${this.localRanks.length} x ${bytes} bytes of memory`,
          received: String(cause),
          remedy: "ask for a smaller buffer",
        },
        { cause },
      );
    }
  }

  close(): Promise<void> {
    return this.#operations.close();
  }

  /** The caller's `out`, checked, or fresh tensors like `row`. */
  #rowOutputs(
    { out }: RowOutputs,
    row: Pick<Tensor, "dtype" | "shape">,
    numRows: readonly number[],
  ): readonly Tensor[] {
    const specs = numRows.map((rows) => ({ dtype: row.dtype, shape: [rows, row.shape[1]] }));
    checkOut(this, out, row.dtype, numRows, row.shape[1]);
    return out ?? resultTensors(this.#engine, specs);
  }

  #runOptions({ numSms, progress }: StreamOptions & RowOutputs): RunOptions {
    return { numThreads: Math.min(numSms ?? Number.POSITIVE_INFINITY, this.#maxThreads), progress };
  }
}

function timed<T>(phases: Phase[], name: string, work: () => T): T {
  const startUs = nowUs();
  const result = work();
  phases.push({ rank: -1, name, startUs, durationUs: nowUs() - startUs });
  return result;
}

function slotOutputs(
  data: HandleData,
  { routings, idDtype }: CheckedDispatch,
): Pick<DispatchResult, "topkIdx" | "topkWeights" | "probs"> {
  if (routings === null) return { topkIdx: null, topkWeights: null, probs: null };
  if (data.meta.kind === "fused") return { ...dispatchSlots(data, routings, idDtype), probs: null };
  return { topkIdx: null, topkWeights: null, probs: dispatchProbs(data, routings) };
}
