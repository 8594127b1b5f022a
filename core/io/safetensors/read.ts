import { arrayConstructor, type HostArray } from "../../dtype/dtype.ts";
import { InvalidArgument, InvalidFile, OutOfMemory } from "../../errors.ts";
import { rowBytes, type Tensor } from "../../tensor.ts";
import { type ByteSource, readInto } from "../bytes.ts";
import { DTYPE_OF_FILE } from "./dtypes.ts";
import { readHeader, type TensorEntry, type UnsupportedEntry } from "./header.ts";

/** An open safetensors file: the header is in memory, tensors are read when asked for. */
export interface SafetensorsFile {
  /** Shown in errors. */
  readonly name: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** Tensors the project can hold, by name, in the order of the header. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** Tensors of other dtypes (F64, I8, ...): known, not readable. */
  readonly unsupported: ReadonlyMap<string, UnsupportedEntry>;
  /** The whole tensor. InvalidFile when it is absent or of an unsupported dtype. */
  read(name: string): Promise<Tensor>;
  /** Rows [firstRow, firstRow + numRows) of the first dimension: for files larger than memory. */
  readRows(name: string, firstRow: number, numRows: number): Promise<Tensor>;
  close(): Promise<void>;
}

/**
 * Opens a safetensors file and checks its header (https://github.com/huggingface/safetensors#format). Errors: InvalidFile
 * naming file, offset, field and rule for a damaged header, tensors that overlap, leave gaps or reach past the end, shapes
 * that do not fit their bytes, names that come twice, unknown dtypes. The source is closed when the header is bad.
 */
export async function openSafetensors(source: ByteSource): Promise<SafetensorsFile> {
  const header = await readHeader(source).catch(async (error) => {
    await source.close();
    throw error;
  });
  const entryOf = (name: string): TensorEntry => header.tensors.get(name) ?? refuse(source, header.unsupported, name);
  const readBytes = async (entry: TensorEntry, shape: number[], offset: number, bytes: number): Promise<Tensor> => {
    const buffer = allocate(source, bytes);
    await readInto(source, offset, new Uint8Array(buffer));
    const Constructor = arrayConstructor(entry.dtype) as unknown as new (buffer: ArrayBuffer) => HostArray;
    return { dtype: entry.dtype, shape, data: new Constructor(buffer) } as Tensor;
  };
  return {
    name: source.name,
    ...header,
    read: async (name) => {
      const entry = entryOf(name);
      return readBytes(entry, [...entry.shape], entry.offset, entry.bytes);
    },
    readRows: async (name, firstRow, numRows) => {
      const entry = entryOf(name);
      const [rows = 0, ...rest] = entry.shape;
      if (!(firstRow >= 0 && numRows >= 0 && firstRow + numRows <= rows) || entry.shape.length === 0) {
        throw new InvalidArgument({
          name: `rows of ${name}`,
          expected: `a range inside 0..${rows}`,
          received: `${firstRow}..${firstRow + numRows}`,
          where: { file: source.name },
          remedy: "ask for rows the tensor has",
        });
      }
      const bytes = rowBytes(entry);
      return readBytes(entry, [numRows, ...rest], entry.offset + firstRow * bytes, numRows * bytes);
    },
    close: () => source.close(),
  };
}

function allocate(source: ByteSource, bytes: number): ArrayBuffer {
  try {
    return new ArrayBuffer(bytes);
  } catch (error) {
    throw new OutOfMemory(
      {
        name: "tensor",
        expected: `${bytes} bytes of memory`,
        received: "an allocation failure",
        where: { file: source.name },
        remedy: "read fewer rows at a time",
      },
      { cause: error },
    );
  }
}

function refuse(source: ByteSource, unsupported: ReadonlyMap<string, UnsupportedEntry>, name: string): never {
  const other = unsupported.get(name);
  throw new InvalidFile({
    name: `tensor ${name}`,
    expected: other ? [...DTYPE_OF_FILE.keys()].join(", ") : "a tensor of this name",
    received: other ? other.fileDtype : "none",
    where: { file: source.name },
    remedy: other ? "convert the tensor when writing the file" : "check the names in the file",
  });
}
