import { arrayConstructor, type DType, elementBytes, type HostArray } from "../dtype/dtype.ts";
import { InvalidArgument, InvalidFile } from "../errors.ts";
import { bytesOf, numElements, rowBytes, type Tensor } from "../tensor.ts";
import { type ByteSink, type ByteSource, readInto } from "./bytes.ts";
import { encodeText } from "./text.ts";

/**
 * NumPy's .npy: one array per file (numpy.lib.format, versions 1.0 to 3.0). Little-endian, C order. npy has no bf16 and no
 * fp8: those are written as safetensors.
 */
export interface NpyFile {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  read(): Promise<Tensor>;
  /** Rows [firstRow, firstRow + numRows) of the first dimension. */
  readRows(firstRow: number, numRows: number): Promise<Tensor>;
  close(): Promise<void>;
}

const DTYPE_OF_DESCR: ReadonlyMap<string, DType> = new Map([
  ["<f2", "fp16"],
  ["<f4", "fp32"],
  ["|u1", "u8"],
  ["|b1", "bool"],
  ["<i2", "i16"],
  ["<i4", "i32"],
  ["<i8", "i64"],
]);

/** A header of more bytes than this is damage: real ones have about a hundred. */
const MAX_HEADER_BYTES = 1 << 20;
const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];

/** True when `head` (the first bytes of a file) begins as an .npy file does. */
export function isNpy(head: Uint8Array): boolean {
  return MAGIC.every((byte, i) => head[i] === byte);
}

/** Opens an .npy file and checks its header. Errors: InvalidFile naming file, offset, field and rule. */
export async function openNpy(source: ByteSource): Promise<NpyFile> {
  const { descr, fortranOrder, shape, dataOffset } = await readHeader(source).catch(async (error) => {
    await source.close();
    throw error;
  });
  const fail = async (name: string, expected: string, received: string, remedy: string): Promise<never> => {
    await source.close();
    throw new InvalidFile({ name, expected, received, where: { file: source.name, offset: 10 }, remedy });
  };
  const dtype = DTYPE_OF_DESCR.get(descr);
  if (dtype === undefined) {
    return fail(
      "descr",
      [...DTYPE_OF_DESCR.keys()].join(", "),
      descr,
      "cast it first: array.astype(numpy.int32 or float32)",
    );
  }
  if (fortranOrder && shape.length > 1) {
    return fail("fortran_order", "False", "True", "save numpy.ascontiguousarray(array)");
  }
  const bytes = numElements(shape) * elementBytes(dtype);
  if (dataOffset + bytes !== source.size) {
    const expected = `${dataOffset + bytes} bytes for ${descr} [${shape.join(", ")}]`;
    return fail("file size", expected, `${source.size}`, "the file is cut short or damaged: write it again");
  }
  const readRange = async (rangeShape: number[], offset: number): Promise<Tensor> => {
    const buffer = new ArrayBuffer(numElements(rangeShape) * elementBytes(dtype));
    await readInto(source, offset, new Uint8Array(buffer));
    const Constructor = arrayConstructor(dtype) as unknown as new (buffer: ArrayBuffer) => HostArray;
    return { dtype, shape: rangeShape, data: new Constructor(buffer) } as Tensor;
  };
  return {
    name: source.name,
    dtype,
    shape,
    read: () => readRange([...shape], dataOffset),
    readRows: async (firstRow, numRows) => {
      const [rows = 0, ...rest] = shape;
      if (shape.length === 0 || !(firstRow >= 0 && numRows >= 0 && firstRow + numRows <= rows)) {
        throw new InvalidArgument({
          name: "rows",
          expected: `a range inside 0..${rows}`,
          received: `${firstRow}..${firstRow + numRows}`,
          where: { file: source.name },
          remedy: "ask for rows the array has",
        });
      }
      return readRange([numRows, ...rest], dataOffset + firstRow * rowBytes({ dtype, shape }));
    },
    close: () => source.close(),
  };
}

/** Writes one array as .npy version 1.0 and commits the sink; on any failure the sink is aborted. */
export async function writeNpy(sink: ByteSink, value: Tensor): Promise<void> {
  try {
    const descr = [...DTYPE_OF_DESCR].find(([, dtype]) => dtype === value.dtype)?.[0];
    if (descr === undefined) {
      throw new InvalidArgument({
        name: "dtype",
        expected: [...DTYPE_OF_DESCR.values()].join(", "),
        received: value.dtype,
        remedy: "npy has no such dtype: write safetensors",
      });
    }
    const shape = value.shape.length === 1 ? `${value.shape[0]},` : value.shape.join(", ");
    const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape}), }`;
    // Header and data offset are multiples of 64, as NumPy writes them.
    const length = Math.ceil((10 + text.length + 1) / 64) * 64 - 10;
    const header = new Uint8Array(10 + length).fill(0x20);
    header.set(MAGIC);
    header[6] = 1;
    header[7] = 0;
    new DataView(header.buffer).setUint16(8, length, true);
    header.set(encodeText(text), 10);
    header[header.length - 1] = 0x0a;
    await sink.write(header);
    await sink.write(bytesOf(value));
    await sink.commit();
  } catch (error) {
    await sink.abort();
    throw error;
  }
}

interface NpyHeader {
  readonly descr: string;
  readonly fortranOrder: boolean;
  readonly shape: number[];
  readonly dataOffset: number;
}

async function readHeader(source: ByteSource): Promise<NpyHeader> {
  const bad = (name: string, expected: string, received: string, offset: number) =>
    new InvalidFile({
      name,
      expected,
      received,
      where: { file: source.name, offset },
      remedy: "the file is damaged or not npy: save it again",
    });
  if (source.size < 12) throw bad("npy", "at least 12 bytes", `${source.size}`, 0);
  const head = new Uint8Array(12);
  await readInto(source, 0, head);
  if (!isNpy(head)) throw bad("magic", "\\x93NUMPY", "other bytes", 0);
  const view = new DataView(head.buffer);
  const version = head[6];
  if (version < 1 || version > 3) throw bad("version", "1.0, 2.0 or 3.0", `${version}.${head[7]}`, 6);
  const headerOffset = version === 1 ? 10 : 12;
  const length = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (length > MAX_HEADER_BYTES || headerOffset + length > source.size) {
    throw bad("header length", `at most ${Math.min(MAX_HEADER_BYTES, source.size - headerOffset)}`, `${length}`, 8);
  }
  const bytes = new Uint8Array(length);
  await readInto(source, headerOffset, bytes);
  const text = String.fromCharCode(...bytes.subarray(0, 4096)).trim();
  // The header is a Python literal with exactly these keys, in any order.
  const descr = /'descr':\s*'([^']*)'/.exec(text)?.[1];
  const order = /'fortran_order':\s*(True|False)/.exec(text)?.[1];
  const sizes = /'shape':\s*\(([\d\s,L]*)\)/.exec(text)?.[1];
  if (
    !text.startsWith("{") ||
    !text.endsWith("}") ||
    descr === undefined ||
    order === undefined ||
    sizes === undefined
  ) {
    const received = JSON.stringify(text.slice(0, 60));
    throw bad("header", "{'descr': ..., 'fortran_order': ..., 'shape': (...)}", received, headerOffset);
  }
  const shape = sizes.split(",").flatMap((size) => (size.trim() === "" ? [] : [Number(size.trim().replace("L", ""))]));
  if (!shape.every(Number.isSafeInteger)) throw bad("shape", "whole numbers", `(${sizes})`, headerOffset);
  return { descr, fortranOrder: order === "True", shape, dataOffset: headerOffset + length };
}
