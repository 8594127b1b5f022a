import { type ArrayOf, arrayConstructor, type DType, elementBytes } from "./dtype/dtype.ts";
import { InvalidArgument, OutOfMemory, type Place } from "./errors.ts";

/** A dense row-major array in host memory. bf16/fp16/fp8 hold their raw codes. */
export interface Tensor<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: readonly number[];
  readonly data: ArrayOf<D>;
}

/** A tensor that stays in a backend's own memory between calls (CUDA device memory). */
export interface DeviceTensor<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: readonly number[];
  /** Name of the backend that owns the memory. */
  readonly backend: string;
  /** Copies the contents to the host. */
  download(): Promise<Tensor<D>>;
  /** Frees the memory; any later use is an InvalidArgument. */
  free(): void;
}

export type AnyTensor<D extends DType = DType> = Tensor<D> | DeviceTensor<D>;

export function isHostTensor<D extends DType>(value: AnyTensor<D>): value is Tensor<D> {
  return "data" in value;
}

/** The host copy of a tensor: itself when it is one already. */
export async function toHost<D extends DType>(value: AnyTensor<D>): Promise<Tensor<D>> {
  return isHostTensor(value) ? value : value.download();
}

export function numElements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** A tensor over `data`, or over fresh zeros. Throws InvalidArgument when the length does not fit the shape, OutOfMemory. */
export function tensor<D extends DType>(dtype: D, shape: readonly number[], data?: ArrayOf<D>): Tensor<D> {
  const length = numElements(shape);
  if (data !== undefined && data.length !== length) {
    throw new InvalidArgument({
      name: "data",
      expected: `${length} elements for shape [${shape.join(", ")}]`,
      received: `${data.length}`,
      remedy: "pass an array of that length",
    });
  }
  return { dtype, shape: [...shape], data: data ?? zeros(dtype, length) };
}

function zeros<D extends DType>(dtype: D, length: number): ArrayOf<D> {
  const Constructor = arrayConstructor(dtype) as unknown as new (length: number) => ArrayOf<D>;
  try {
    return new Constructor(length);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new OutOfMemory(
      {
        name: "memory",
        expected: `${length * elementBytes(dtype)} bytes for one ${dtype} tensor`,
        received: "an allocation that failed",
        remedy: "use fewer tokens, a smaller hidden or more ranks per run",
      },
      { cause: error },
    );
  }
}

/** The bytes behind a host tensor, without a copy. */
export function bytesOf(value: Tensor): Uint8Array {
  return new Uint8Array(value.data.buffer, value.data.byteOffset, value.data.byteLength);
}

/** Bytes of one row (all dimensions but the first). */
export function rowBytes(value: Pick<Tensor, "dtype" | "shape">): number {
  return numElements(value.shape.slice(1)) * elementBytes(value.dtype);
}

const SHAPE_ALONE = Symbol("shape alone");

/** Stands for a tensor that is on a device: checks look at its dtype and shape and ask for no data. */
export function shapeAlone<D extends DType>(dtype: D, shape: readonly number[]): Tensor<D> {
  const Empty = arrayConstructor(dtype) as unknown as new (length: number) => ArrayOf<D>;
  return Object.assign({ dtype, shape, data: new Empty(0) }, { [SHAPE_ALONE]: true });
}

/** Throws InvalidArgument unless the data is of the dtype's kind and as long as the shape says: rows past it would be zeros. */
export function expectData(name: string, value: Tensor, where: Place = {}): void {
  if (SHAPE_ALONE in value) return;
  const kind = (data: unknown) => Object.prototype.toString.call(data).slice("[object ".length, -1);
  const expected = arrayConstructor(value.dtype).name;
  const length = numElements(value.shape);
  if (kind(value.data) === expected && value.data.length === length) return;
  throw new InvalidArgument({
    name,
    expected: `${expected} of ${length} elements for ${value.dtype} [${value.shape.join(", ")}]`,
    received: `${kind(value.data)} of ${value.data?.length ?? 0}`,
    where,
    remedy: "pass data and shape that belong together",
  });
}

/** Throws InvalidArgument unless `value` has one of `dtypes`, exactly `shape` (null: any size there), and its data, if any, fits. */
export function expectTensor(
  name: string,
  value: Pick<Tensor, "dtype" | "shape"> & Partial<Pick<Tensor, "data">>,
  dtypes: readonly DType[],
  shape: readonly (number | null)[],
  where: Place = {},
): void {
  const shapeFits =
    value.shape.length === shape.length && shape.every((size, i) => size === null || size === value.shape[i]);
  if (dtypes.includes(value.dtype) && shapeFits) {
    if ("data" in value) expectData(name, value as Tensor, where);
    return;
  }
  throw new InvalidArgument({
    name,
    expected: `${dtypes.join(" or ")} [${shape.map((size) => size ?? "any").join(", ")}]`,
    received: `${value.dtype} [${value.shape.join(", ")}]`,
    where,
    remedy: "convert or reshape it",
  });
}
