/** Where results lie: shared memory when they are worth it, ordinary arrays otherwise. */
import { arrayConstructor, type DType, elementBytes, type HostArray } from "../../core/dtype/dtype.ts";
import { numElements, type Tensor, tensor } from "../../core/tensor.ts";
import type { Engine } from "./engine.ts";
import type { SlabPool } from "./slabs.ts";

export interface TensorSpec {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

function byteLength({ dtype, shape }: TensorSpec): number {
  return numElements(shape) * elementBytes(dtype);
}

/** Tensors of undefined contents, side by side in shared memory (as few slabs as possible). */
export function sharedTensors(slabs: SlabPool, specs: readonly TensorSpec[]): Tensor[] {
  const placements = slabs.place(specs.map(byteLength));
  return specs.map(({ dtype, shape }, i) => {
    const { buffer, offset } = placements[i];
    const Constructor = arrayConstructor(dtype) as unknown as new (
      b: ArrayBufferLike,
      o: number,
      n: number,
    ) => HostArray;
    return { dtype, shape: [...shape], data: new Constructor(buffer, offset, numElements(shape)) } as Tensor;
  });
}

/** Fresh result tensors. One that is larger than a slab, and anything small, is an ordinary array. */
export function resultTensors({ slabs, smallBytes }: Engine, specs: readonly TensorSpec[]): Tensor[] {
  const total = specs.reduce((sum, spec) => sum + byteLength(spec), 0);
  const shareable = slabs !== null && specs.every((spec) => byteLength(spec) <= slabs.maxArrayBytes);
  if (total < smallBytes || !shareable) return specs.map(({ dtype, shape }) => tensor(dtype, shape));
  return sharedTensors(slabs, specs);
}
