/** Outputs of an operation: left on their devices, or brought to the host whole or chunk by chunk. */
import type { RowOutputs } from "../../core/backend.ts";
import { DTYPES } from "../../core/dtype/dtype.ts";
import { type AnyTensor, type Tensor, tensor } from "../../core/tensor.ts";
import type { NativeCopy, NativeEvent, NativeTensor } from "./native.ts";
import { CudaTensor, type TensorOwner } from "./tensor.ts";

/** Bytes of one chunk for `consume`, at least one row. */
const CHUNK_BYTES = 16 << 20;

/** [rows] for `flat` outputs, else [rows, columns]. */
function shapeOf({ rows, columns }: NativeTensor, flat: boolean): number[] {
  return flat ? [rows] : [rows, columns];
}

/**
 * Where the outputs of one operation go. Outputs of device-resident inputs stay on the devices; those of host inputs,
 * `out` and `consume` come to the host, in one native call (or one per chunk), and their device memory is freed.
 */
export class Delivery {
  readonly #owner: TensorOwner;
  readonly #resident: boolean;
  readonly #event: NativeEvent | null;
  readonly #request: RowOutputs;
  readonly #copies: NativeCopy[] = [];
  readonly #consumed: { name: "x" | "scales"; tensor: NativeTensor }[] = [];

  constructor(owner: TensorOwner, resident: boolean, event: NativeEvent | null, request: RowOutputs = {}) {
    this.#owner = owner;
    this.#resident = resident;
    this.#event = event;
    this.#request = request;
  }

  /** Row outputs: into `out`, to `consume` (then none are returned), or like any other. */
  rows(name: "x" | "scales", made: readonly NativeTensor[]): readonly AnyTensor[] {
    const { out, consume } = this.#request;
    if (consume !== undefined) {
      this.#consumed.push(...made.map((one) => ({ name, tensor: one })));
      return [];
    }
    if (name === "x" && out !== undefined) return made.map((one, i) => this.#toHost(one, out[i]));
    return this.put(made);
  }

  put(made: readonly NativeTensor[], flat = false): readonly AnyTensor[] {
    if (this.#resident) return made.map((one) => new CudaTensor(this.#owner, one, shapeOf(one, flat), this.#event));
    return made.map((one) => this.#toHost(one, tensor(DTYPES[one.dtype], shapeOf(one, flat))));
  }

  /** False when everything stays on the devices: then `run` has nothing to wait for. */
  get touchesHost(): boolean {
    return this.#copies.length > 0 || this.#consumed.length > 0;
  }

  /** Brings to the host what goes there. */
  async run(): Promise<void> {
    const { addon } = this.#owner;
    try {
      if (this.#copies.length > 0) await addon.tensorsRead(this.#copies);
      await this.#consume();
      this.#request.progress?.(1);
    } finally {
      for (const { tensor } of this.#copies) addon.tensorFree(tensor);
      for (const { tensor } of this.#consumed) addon.tensorFree(tensor.tensor);
    }
  }

  #toHost(made: NativeTensor, host: Tensor): Tensor {
    this.#copies.push({ tensor: made.tensor, offset: 0, bytes: made.bytes, data: host.data });
    return host;
  }

  async #consume(): Promise<void> {
    const totalRows = this.#consumed.reduce((total, { tensor }) => total + tensor.rows, 0);
    let doneRows = 0;
    for (const { name, tensor } of this.#consumed) {
      const rowBytes = tensor.rows === 0 ? 0 : tensor.bytes / tensor.rows;
      const rowsPerChunk = Math.max(1, Math.floor(CHUNK_BYTES / Math.max(1, rowBytes)));
      const buffer = new Uint8Array(Math.min(rowsPerChunk, tensor.rows) * rowBytes);
      for (let firstRow = 0; firstRow < tensor.rows; firstRow += rowsPerChunk) {
        const numRows = Math.min(rowsPerChunk, tensor.rows - firstRow);
        const bytes = buffer.subarray(0, numRows * rowBytes);
        const copy = { tensor: tensor.tensor, offset: firstRow * rowBytes, bytes: bytes.byteLength, data: bytes };
        await this.#owner.addon.tensorsRead([copy]);
        this.#request.consume?.({ name, rank: tensor.rank, firstRow, numRows, bytes });
        doneRows += numRows;
        this.#request.progress?.(doneRows / totalRows);
      }
    }
  }
}

/** Gives native outputs back that nobody will see. */
export function freeAll(owner: TensorOwner, ...made: (readonly NativeTensor[] | null)[]): void {
  for (const list of made) for (const { tensor } of list ?? []) owner.addon.tensorFree(tensor);
}
