import type {
  BufferMemory,
  CombineResult,
  DispatchResult,
  Group,
  RoutingInput,
  RowOutputs,
  StreamOptions,
} from "../../core/backend.ts";
import { nowUs } from "../../core/clock.ts";
import type { DType } from "../../core/dtype/dtype.ts";
import { InvalidArgument } from "../../core/errors.ts";
import type { EventOverlap } from "../../core/event.ts";
import { checkCast, checkNumSms, checkOut, checkRouting, checkScale } from "../../core/functions/validate.ts";
import type { RankLayout } from "../../core/layout/counts.ts";
import { Operations, type Prepared } from "../../core/operations.ts";
import type { AnyTensor, Tensor } from "../../core/tensor.ts";
import { type FailureBundles, keepFailure } from "./bundle.ts";
import { type CudaCombineRequest, fetchCombine, prepareCombine } from "./combine.ts";
import type { Context } from "./context.ts";
import { type CudaDispatchRequest, fetchDispatch, prepareDispatch } from "./dispatch.ts";
import { native } from "./errors.ts";
import { deviceEvent } from "./event.ts";
import { CudaGraph } from "./graph.ts";
import { isResident, localise, localiseRouting, nativeArrays, standIns } from "./inputs.ts";
import { deviceLayout } from "./layout.ts";
import type { ClusterLink } from "./link.ts";
import type { NativeAddon, NativeGroup, NativeGroupOptions, NativeMemory, NativeNetwork } from "./native.ts";
import { Delivery } from "./outputs.ts";
import { prepareRouting } from "./routing.ts";
import { CudaTensor, dtypeIndex, matrixOf, type TensorOwner } from "./tensor.ts";

/**
 * The ranks of this process. Native calls run one after the other: the library enqueues work in the order in which it gets
 * calls, and worker threads would mix them.
 */
export class CudaGroup implements Group {
  readonly backend: "cuda" | "cuda-emulated";
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly localRanks: readonly number[];
  readonly #addon: NativeAddon;
  readonly #group: NativeGroup;
  readonly #owner: TensorOwner;
  readonly #context: Context;
  readonly #operations: Operations;
  readonly #buffers = new Set<BufferMemory>();
  readonly #link: ClusterLink | null;
  /** Where failed operations are kept, if anywhere. */
  readonly #bundles: FailureBundles | null;

  constructor(
    backend: "cuda" | "cuda-emulated",
    addon: NativeAddon,
    group: NativeGroup,
    options: NativeGroupOptions,
    groups: Set<Operations>,
    link: ClusterLink | null = null,
    bundles: FailureBundles | null = null,
  ) {
    this.#link = link;
    this.#bundles = bundles;
    this.backend = backend;
    this.numRanks = options.numRanks;
    this.ranksPerNode = options.ranksPerNode;
    this.localRanks = options.localRanks;
    this.#addon = addon;
    this.#group = group;
    this.#operations = new Operations(groups, undefined, () => {
      link?.close();
      return native(() => addon.groupClose(group));
    });
    this.#owner = { addon, backend, turns: this.#operations.turns };
    this.#context = {
      self: this,
      owner: this.#owner,
      group,
      recordTimings: options.recordTimings !== 0,
      link,
      uploaded: new WeakMap(),
    };
  }

  dispatch(request: CudaDispatchRequest): Promise<DispatchResult> {
    const fetched = fetchDispatch(this.#context, request);
    const { kind: style, handle, settings } = request;
    const operation = handle === undefined ? "dispatch" : "cached dispatch";
    return this.#collective(operation, request, fetched, (inputs) => {
      const failing = () => ({ operation, style, handle, settings, x: inputs.x, routing: inputs.routing }) as const;
      return keepFailure(this.#bundles, this.#context, failing, () => prepareDispatch(this.#context, request, inputs));
    });
  }

  combine(request: CudaCombineRequest): Promise<CombineResult> {
    const fetched = fetchCombine(this.#context, request);
    return this.#collective("combine", request, fetched, (inputs) => {
      const { handle } = request;
      const failing = () => ({ operation: "combine", style: handle.meta.kind, handle, x: inputs.x }) as const;
      return keepFailure(this.#bundles, this.#context, failing, () => prepareCombine(this.#context, request, inputs));
    });
  }

  layout(routing: RoutingInput, numExperts: number): Promise<readonly RankLayout[]> {
    const fetched = localiseRouting(this.#owner, routing, "hybrid-ep");
    return this.#enqueue({}, fetched, async (given) => {
      const prepared = await prepareRouting(this.#context, given, "hybrid-ep", numExperts, false);
      const { routings } = await checkRouting(this, prepared.checked, numExperts);
      const numTokens = routings.map((rank) => rank.numTokens);
      return finished(await deviceLayout(this.#context, await prepared.arrays(), numTokens, numExperts));
    });
  }

  castToFp8(x: readonly AnyTensor[]): Promise<{ x: readonly AnyTensor[]; scales: readonly AnyTensor[] }> {
    return this.#enqueue({}, localise(this.#owner, x), async (rows) => {
      await checkCast(this, standIns(rows), null);
      const made = await this.#addon.castToFp8(this.#group, nativeArrays(rows));
      const delivery = this.#delivery(rows);
      const result = { x: delivery.put(made.x), scales: delivery.put(made.scales) };
      return { work: () => delivery.run(), result: () => result };
    });
  }

  castBack(x: readonly AnyTensor[], scales: readonly AnyTensor[]): Promise<readonly AnyTensor[]> {
    const fetched = Promise.all([localise(this.#owner, x), localise(this.#owner, scales)]);
    return this.#enqueue({}, fetched, async ([rows, factors]) => {
      await checkCast(this, standIns(rows), standIns(factors));
      // Raw u8 rows are the same codes.
      const codes = nativeArrays(rows).map((one) => ("data" in one ? { ...one, dtype: dtypeIndex("fp8e4m3") } : one));
      const made = await this.#addon.castBack(this.#group, codes, nativeArrays(factors));
      const delivery = this.#delivery(rows);
      const result = delivery.put(made);
      return { work: () => delivery.run(), result: () => result };
    });
  }

  scaleRows(
    x: readonly AnyTensor[],
    factors: readonly AnyTensor[],
    options: RowOutputs = {},
  ): Promise<readonly AnyTensor[]> {
    const fetched = Promise.all([localise(this.#owner, x), localise(this.#owner, factors)]);
    return this.#enqueue({}, fetched, async ([rows, scale]) => {
      await checkScale(this, standIns(rows), standIns(scale));
      const numRows = rows.map((value) => value.shape[0]);
      checkOut(this, options.out, rows[0].dtype, numRows, rows[0].shape[1]);
      const made = await this.#addon.scaleRows(this.#group, nativeArrays(rows), nativeArrays(scale));
      const delivery = this.#delivery(rows, options);
      const result = delivery.rows("x", made);
      return { work: () => delivery.run(), result: () => result };
    });
  }

  setNumSms(numSms: number): void {
    this.#operations.expectOpen();
    checkNumSms(numSms);
    // Takes its turn like any call; a group that failed meanwhile has no use for it.
    void this.#operations.run(() => this.#addon.groupSetNumSms(this.#group, numSms)).catch(() => {});
  }

  /**
   * One JSON value of every process, by process ([value] when there is one process). Every process calls it, in the order
   * of the operations; throws ContractMismatch, Timeout and BackendFailure like them.
   */
  exchange<T>(name: string, value: T): Promise<T[]> {
    return this.#collective(`exchange ${name}`, {}, Promise.resolve(), async () =>
      finished(this.#link === null ? [value] : await this.#link.exchange(name, value)),
    );
  }

  /** Communication memory of exactly `bytes` per local rank, or what was there when that is more. Throws OutOfMemory. */
  allocateBuffer(bytes: number): Promise<BufferMemory> {
    const contract = { operation: "allocate buffer", bytes };
    return this.#collective(contract.operation, {}, Promise.resolve(), async () => {
      await this.#link?.agree(contract, nowUs());
      await this.#addon.groupReserve(this.#group, bytes);
      const memory: BufferMemory = {
        bytes,
        free: () => {
          if (!this.#buffers.delete(memory) || this.#buffers.size > 0) return;
          void this.#operations.turns.take(() => this.#addon.groupRelease(this.#group)).catch(() => {});
        },
      };
      this.#buffers.add(memory);
      return finished(memory);
    });
  }

  /** Communication memory and tensor pool of each local rank, in bytes. */
  memory(): Promise<readonly NativeMemory[]> {
    return this.#run(() => Promise.all(this.localRanks.map((_, i) => this.#addon.groupMemory(this.#group, i))));
  }

  /** What each local rank has sent to other processes since the group was made; zeros when there are none. */
  network(): Promise<readonly NativeNetwork[]> {
    return this.#run(() => Promise.all(this.localRanks.map((_, i) => this.#addon.groupNetwork(this.#group, i))));
  }

  /** A tensor on the device of `rank`, contents undefined. Throws OutOfMemory, InvalidArgument. */
  tensor<D extends DType>(rank: number, dtype: D, shape: readonly number[]): Promise<CudaTensor<D>> {
    return this.#run(async () => {
      const { rows, columns } = matrixOf(shape);
      const made = await this.#addon.tensorCreate(this.#group, this.#local(rank), dtypeIndex(dtype), rows, columns);
      return new CudaTensor<D>(this.#owner, made, [...shape]);
    });
  }

  /** A copy of `host` on the device of `rank`. */
  async upload<D extends DType>(rank: number, host: Tensor<D>): Promise<CudaTensor<D>> {
    const made = await this.tensor(rank, host.dtype, host.shape);
    await made.upload(host);
    return made;
  }

  /** cudaStream_t of `rank`, for other addons: operations run on "comm", after what "compute" holds when they are called. */
  stream(rank: number, which: "comm" | "compute"): Promise<bigint> {
    return this.#run(() => this.#addon.groupStream(this.#group, this.#local(rank), which === "comm" ? 0 : 1));
  }

  /** An event after everything the compute streams hold now (DeepEP's EventOverlap of `Buffer.capture()`). */
  recordEvent(): Promise<EventOverlap> {
    return this.#run(async () => deviceEvent(this.#addon, await this.#addon.eventRecord(this.#group)));
  }

  /** Waits until the devices have done everything that was enqueued. */
  synchronize(): Promise<void> {
    return this.#run(() => this.#addon.groupSynchronize(this.#group));
  }

  /**
   * Records what `operations` enqueues as a CUDA graph: dispatch and combine with `into`, `asyncFinish` and device-resident
   * inputs only. Nothing of it runs until `launch`.
   */
  async capture(operations: () => Promise<unknown>): Promise<CudaGraph> {
    await this.#run(() => this.#addon.graphBegin(this.#group));
    let failure: { error: unknown } | null = null;
    try {
      await operations();
    } catch (error) {
      failure = { error };
    }
    const ended = this.#run(() => this.#addon.graphEnd(this.#group));
    if (failure !== null) {
      await ended.then((graph) => this.#addon.graphFree(graph)).catch(() => {});
      throw failure.error;
    }
    return new CudaGraph(this.#owner, await ended);
  }

  /** Waits for everything that was called before. Tensors, handles and events stay valid. */
  close(): Promise<void> {
    return this.#operations.close();
  }

  #delivery(x: readonly AnyTensor[], options: RowOutputs = {}): Delivery {
    const resident = x.some((value) => isResident(this.#owner, value));
    return new Delivery(this.#owner, resident, null, options);
  }

  #local(rank: number): number {
    const local = this.localRanks.indexOf(rank);
    if (local >= 0) return local;
    throw new InvalidArgument({
      name: "rank",
      expected: `a local rank (${this.localRanks.join(", ")})`,
      received: `${rank}`,
      remedy: "pass a rank that lives in this process",
    });
  }

  #run<T>(work: () => Promise<T>): Promise<T> {
    return this.#enqueue({}, Promise.resolve(), async () => finished(await work()));
  }

  /** An operation that every process calls: one that refuses it tells the others. */
  #collective<I, T>(
    operation: string,
    options: StreamOptions,
    fetched: Promise<I>,
    prepare: (inputs: I) => Promise<Prepared<T>>,
  ): Promise<T> {
    const link = this.#link;
    if (link === null) return this.#enqueue(options, fetched, prepare);
    fetched.catch(() => {});
    return this.#enqueue(options, Promise.resolve(), () =>
      link.collective(operation, async () => prepare(await fetched)),
    );
  }

  /** With asyncFinish the caller goes on while outputs travel. */
  #enqueue<I, T>(
    { asyncFinish }: StreamOptions,
    fetched: Promise<I>,
    prepare: (inputs: I) => Promise<Prepared<T>>,
  ): Promise<T> {
    // Awaited in the operation's turn, which may come long after it failed.
    fetched.catch(() => {});
    const prepared = async () => {
      const { work, result } = await native(async () => prepare(await fetched));
      return { work: () => native(work), result };
    };
    // The devices wait for a previous event, not this thread.
    return this.#operations.start(prepared, { asyncFinish });
  }
}

function finished<T>(value: T): Prepared<T> {
  return { work: async () => {}, result: () => value };
}
