/** All ranks of a group, simulated on one device. */
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
import { OutOfMemory } from "../../core/errors.ts";
import { EventOverlap } from "../../core/event.ts";
import {
  checkCast,
  checkCombine,
  checkDispatch,
  checkGroupOptions,
  checkNumSms,
  checkOut,
  checkRouting,
  checkScale,
} from "../../core/functions/validate.ts";
import { Handle } from "../../core/handle/handle.ts";
import type { RankLayout } from "../../core/layout/counts.ts";
import { checkShape } from "../../core/layout/routing.ts";
import { Operations } from "../../core/operations.ts";
import type { AnyTensor } from "../../core/tensor.ts";
import { castBack, castToFp8, scaleRows } from "./cast.ts";
import { combineRows, combineWeights } from "./combine.ts";
import { combineProbs } from "./combine-probs.ts";
import type { Context } from "./context.ts";
import { dispatchProbs, dispatchRows, dispatchSlots } from "./dispatch.ts";
import { GPUUsage } from "./launcher.ts";
import { newHandleData } from "./layout.ts";
import { rankLayouts } from "./tally.ts";

export class WebGpuGroup implements Group {
  readonly backend = "webgpu";
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly localRanks: readonly number[];
  readonly #context: Context;
  readonly #operations: Operations;

  constructor(context: Context, groups: Set<Operations>, options: GroupOptions) {
    const checked = checkGroupOptions(options, "webgpu");
    this.#context = context;
    this.numRanks = checked.numRanks;
    this.ranksPerNode = checked.ranksPerNode;
    this.localRanks = checked.localRanks;
    this.#operations = new Operations(groups, context.device.turns);
  }

  layout(routing: RoutingInput, numExperts: number): Promise<readonly RankLayout[]> {
    return this.#exclusive(async () => {
      const shape = { ...this, numExperts };
      checkShape(shape);
      const { routings } = await checkRouting(this, routing, numExperts);
      return rankLayouts(this.#context, routings, shape);
    });
  }

  dispatch(request: DispatchRequest): Promise<DispatchResult> {
    return this.#exclusive(async () => {
      const checked = await checkDispatch(this, request);
      const { data: cached, routings, settings } = checked;
      const startUs = nowUs();
      const context = this.#context;
      const data = cached ?? (await newHandleData(context, request.kind, routings, { ...this, ...settings }, settings));
      const layoutUs = nowUs();
      const numRows = data.ranks.map((rank) => rank.numRows);
      checkOut(this, request.out, checked.x[0].dtype, numRows, checked.x[0].shape[1]);
      const fused = request.kind === "fused";
      const slots =
        routings !== null && fused
          ? await dispatchSlots(context, data, routings, checked.idDtype)
          : { topkIdx: null, topkWeights: null };
      const probs = routings === null || fused ? null : await dispatchProbs(context, data, routings);
      const { consume } = request;
      const scales = checked.scales && (await dispatchRows(context, "scales", data, checked.scales, { consume }));
      const x = await dispatchRows(context, "x", data, checked.x, request);
      return {
        x,
        scales,
        ...slots,
        probs,
        handle: request.handle ?? Handle.of(data),
        event: new EventOverlap(),
        phases: [phase("layout", startUs, layoutUs), phase("dispatch", layoutUs, nowUs())],
      };
    }, request);
  }

  combine(request: CombineRequest): Promise<CombineResult> {
    return this.#exclusive(async () => {
      const { data, x, bias, topkWeights, probs } = await checkCombine(this, request);
      const numTokens = data.ranks.map((rank) => rank.numTokens);
      checkOut(this, request.out, x[0].dtype, numTokens, x[0].shape[1]);
      const startUs = nowUs();
      const context = this.#context;
      const sums = await combineRows(context, data, x, bias, request);
      return {
        x: sums,
        topkWeights: topkWeights && (await combineWeights(context, data, topkWeights)),
        probs: probs && (await combineProbs(context, data, probs)),
        event: new EventOverlap(),
        phases: [phase("combine", startUs, nowUs())],
      };
    }, request);
  }

  castToFp8(x: readonly AnyTensor[]): Promise<{ x: readonly AnyTensor[]; scales: readonly AnyTensor[] }> {
    return this.#exclusive(async () => castToFp8(this.#context, (await checkCast(this, x, null)).x));
  }

  castBack(x: readonly AnyTensor[], scales: readonly AnyTensor[]): Promise<readonly AnyTensor[]> {
    return this.#exclusive(async () => {
      const checked = await checkCast(this, x, scales);
      return castBack(this.#context, checked.x, checked.scales ?? []);
    });
  }

  scaleRows(
    x: readonly AnyTensor[],
    factors: readonly AnyTensor[],
    options: RowOutputs = {},
  ): Promise<readonly AnyTensor[]> {
    return this.#exclusive(async () => {
      const checked = await checkScale(this, x, factors);
      const numRows = checked.x.map((value) => value.shape[0]);
      checkOut(this, options.out, checked.x[0].dtype, numRows, checked.x[0].shape[1]);
      return scaleRows(this.#context, this.localRanks, checked.x, checked.factors, options);
    });
  }

  /** A device has no SMs to hand out here: checked, and without effect on any result. */
  setNumSms(numSms: number): void {
    this.#operations.expectOpen();
    checkNumSms(numSms);
  }

  /**
   * All ranks share one device, so nothing is staged through this memory: it is reserved so that sizes and failures are
   * those of a real group. Where the device is the CPU, its memory is the process's.
   */
  async allocateBuffer(bytes: number): Promise<BufferMemory> {
    this.#operations.expectOpen();
    const { device } = this.#context;
    device.expectUsable();
    if (device.adapter.isCpu) return reserveHostMemory(bytes, this.localRanks);
    const buffers: GPUBuffer[] = [];
    const free = () => {
      for (const buffer of buffers.splice(0)) buffer.destroy();
    };
    try {
      for (const rank of this.localRanks) {
        for (let at = 0; at < bytes; at += device.maxBufferBytes) {
          const size = Math.min(device.maxBufferBytes, Math.ceil((bytes - at) / 4) * 4);
          const { value, checked } = device.guard(`communication buffer of rank ${rank}, ${bytes} bytes`, () =>
            device.gpu.createBuffer({ label: `buffer of rank ${rank}`, size, usage: GPUUsage.STORAGE }),
          );
          buffers.push(value);
          await checked;
        }
      }
    } catch (error) {
      free();
      throw error;
    }
    return { bytes, free };
  }

  close(): Promise<void> {
    return this.#operations.close();
  }

  #exclusive<T>(work: () => Promise<T>, options?: StreamOptions): Promise<T> {
    return this.#operations.run(() => {
      this.#context.device.expectUsable();
      return work();
    }, options);
  }
}

function reserveHostMemory(bytes: number, localRanks: readonly number[]): BufferMemory {
  const memory: ArrayBuffer[] = [];
  for (const rank of localRanks) {
    try {
      memory.push(new ArrayBuffer(bytes));
    } catch (error) {
      throw new OutOfMemory(
        `communication buffer of rank ${rank}: ${bytes} bytes are not to be had; use fewer tokens`,
        {
          cause: error,
        },
      );
    }
  }
  return { bytes, free: () => memory.splice(0) };
}

function phase(name: string, startUs: number, endUs: number): Phase {
  return { rank: -1, name, startUs, durationUs: endUs - startUs };
}
