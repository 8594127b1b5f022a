/** Outputs of an operation: left on their devices, or brought to the host whole or chunk by chunk. */
import type { OutputChunk, RowOutputs } from "../../core/backend.ts";
import { DTYPES } from "../../core/dtype/dtype.ts";
import { type AnyTensor, type Tensor, tensor } from "../../core/tensor.ts";
import type { NativeCopy, NativeEvent, NativeTensor } from "./native.ts";
import { CudaTensor, type TensorOwner } from "./tensor.ts";

/** Bytes of one chunk for `consume`, at least one row. */
const CHUNK_BYTES = 16 << 20;

/** Outputs of one name, one per local rank. `flat` ones are [rows], the others [rows, columns]. */
export interface Made {
  readonly tensors: readonly NativeTensor[];
  readonly flat?: boolean;
  /** The caller's own tensors for them. */
  readonly out?: readonly Tensor[];
}

function shapeOf({ rows, columns }: NativeTensor, flat: boolean | undefined): number[] {
  return flat ? [rows] : [rows, columns];
}

export function onDevice(owner: TensorOwner, made: Made, event: NativeEvent | null): CudaTensor[] {
  return made.tensors.map((one) => new CudaTensor(owner, one, shapeOf(one, made.flat), event));
}

/** Collects copies to the host, to be made in one native call; the device tensors are freed after it. */
export class HostCopies {
  readonly #owner: TensorOwner;
  readonly #copies: NativeCopy[] = [];

  constructor(owner: TensorOwner) {
    this.#owner = owner;
  }

  /** Host tensors that hold the outputs once `run` is done. */
  add(made: Made): Tensor[] {
    return made.tensors.map((one, i) => {
      const host = made.out?.[i] ?? tensor(DTYPES[one.dtype], shapeOf(one, made.flat));
      this.#copies.push({ tensor: one.tensor, offset: 0, bytes: one.bytes, data: host.data });
      return host;
    });
  }

  async run(): Promise<void> {
    const { addon } = this.#owner;
    try {
      await addon.tensorsRead(this.#copies);
    } finally {
      for (const { tensor } of this.#copies) addon.tensorFree(tensor);
    }
  }
}

/** Hands the rows of `made` to `consume` chunk by chunk, rank after rank, and frees them. */
export async function consumeRows(
  owner: TensorOwner,
  name: "x" | "scales",
  made: readonly NativeTensor[],
  { consume, progress }: RowOutputs,
): Promise<void> {
  const totalRows = made.reduce((total, one) => total + one.rows, 0);
  let doneRows = 0;
  try {
    for (const one of made) {
      const rowBytes = one.rows === 0 ? 0 : one.bytes / one.rows;
      const rowsPerChunk = Math.max(1, Math.floor(CHUNK_BYTES / Math.max(1, rowBytes)));
      const buffer = new Uint8Array(Math.min(rowsPerChunk, one.rows) * rowBytes);
      for (let firstRow = 0; firstRow < one.rows; firstRow += rowsPerChunk) {
        const numRows = Math.min(rowsPerChunk, one.rows - firstRow);
        const bytes = buffer.subarray(0, numRows * rowBytes);
        const copy = { tensor: one.tensor, offset: firstRow * rowBytes, bytes: bytes.byteLength, data: bytes };
        await owner.addon.tensorsRead([copy]);
        const chunk: OutputChunk = { name, rank: one.rank, firstRow, numRows, bytes };
        consume?.(chunk);
        doneRows += numRows;
        progress?.(doneRows / totalRows);
      }
    }
  } finally {
    for (const one of made) owner.addon.tensorFree(one.tensor);
  }
}

/** The library's references of tensors that an earlier call returned; null when there were none. */
export function refsOf(values: readonly AnyTensor[] | null): CudaTensor["ref"][] | null {
  return values && values.map((value) => (value as CudaTensor).ref);
}
