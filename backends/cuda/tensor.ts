/** Tensors in the memory of one rank's device (core/tensor.ts's DeviceTensor, and what only CUDA has). */
import { DTYPES, type DType } from "../../core/dtype/dtype.ts";
import { InvalidArgument } from "../../core/errors.ts";
import type { Turns } from "../../core/operations.ts";
import { type DeviceTensor, expectTensor, numElements, type Tensor, tensor } from "../../core/tensor.ts";
import { native } from "./errors.ts";
import type { NativeAddon, NativeEvent, NativeTensor, NativeTensorRef } from "./native.ts";

/** What a tensor needs of its group; it outlives the group's end. */
export interface TensorOwner {
  readonly addon: NativeAddon;
  readonly backend: string;
  readonly turns: Turns;
}

export class CudaTensor<D extends DType = DType> implements DeviceTensor<D> {
  readonly dtype: D;
  readonly shape: readonly number[];
  readonly backend: string;
  /** Rank whose device holds it. */
  readonly rank: number;
  /** CUDA device number. */
  readonly device: number;
  readonly bytes: number;
  readonly owner: TensorOwner;
  /** The library's object, for calls of this backend. */
  readonly ref: NativeTensorRef;
  readonly #pointer: bigint;
  readonly #event: NativeEvent | null;
  #live = true;

  /** `event`: the operation that writes the tensor, whose failure a download reports. */
  constructor(owner: TensorOwner, made: NativeTensor, shape: readonly number[], event: NativeEvent | null = null) {
    this.owner = owner;
    this.backend = owner.backend;
    this.dtype = DTYPES[made.dtype] as D;
    this.shape = shape;
    this.rank = made.rank;
    this.device = made.device;
    this.bytes = made.bytes;
    this.ref = made.tensor;
    this.#pointer = made.pointer;
    this.#event = event;
  }

  /**
   * Device address, for other addons; order your work after this group's with `CudaGroup.stream`. Throws InvalidArgument
   * once freed.
   */
  get pointer(): bigint {
    this.#requireLive();
    return this.#pointer;
  }

  get isFreed(): boolean {
    return !this.#live;
  }

  /** Copies the contents to the host, after everything enqueued before. Rejects with what the writing operation found. */
  async download(): Promise<Tensor<D>> {
    this.#requireLive();
    const host = tensor(this.dtype, this.shape);
    await this.owner.turns.take(() =>
      native(async () => {
        if (this.#event !== null) await this.owner.addon.eventWait(this.#event);
        await this.owner.addon.tensorsRead([{ tensor: this.ref, offset: 0, bytes: this.bytes, data: host.data }]);
      }),
    );
    return host;
  }

  /** Replaces the contents with `host`'s, of the same dtype and shape, after everything enqueued before. */
  async upload(host: Tensor<D>): Promise<void> {
    this.#requireLive();
    expectTensor("host", host, [this.dtype], this.shape, { rank: this.rank });
    const copy = { tensor: this.ref, offset: 0, bytes: this.bytes, data: host.data };
    await this.owner.turns.take(() => native(() => this.owner.addon.tensorsWrite([copy])));
  }

  /** Sets every byte, after everything enqueued before. */
  async fill(byte: number): Promise<void> {
    this.#requireLive();
    await this.owner.turns.take(() => native(() => this.owner.addon.tensorFill(this.ref, byte)));
  }

  /** Gives the memory back to the group's pool; operations in flight keep it as long as they need it. */
  free(): void {
    this.#live = false;
    this.owner.addon.tensorFree(this.ref);
  }

  #requireLive(): void {
    if (this.#live) return;
    throw new InvalidArgument({
      name: "tensor",
      expected: "a live tensor",
      received: "one that was freed",
      where: { rank: this.rank },
      remedy: "use it before you free it",
    });
  }
}

/** Shape as rows and columns of the library: all dimensions but the first are one row. */
export function matrixOf(shape: readonly number[]): { rows: number; columns: number } {
  return { rows: shape[0] ?? 1, columns: numElements(shape.slice(1)) };
}

export function dtypeIndex(dtype: DType): number {
  return DTYPES.indexOf(dtype);
}
