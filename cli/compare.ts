/** Comparing two backends' outputs bit for bit: first difference with its coordinates and bits, counts, ULP distances. */
import type { OutputChunk } from "../core/backend.ts";
import { type DType, elementBytes } from "../core/dtype/dtype.ts";
import type { HandleData } from "../core/handle/handle.ts";
import { type AnyTensor, bytesOf, rowBytes, type Tensor, toHost } from "../core/tensor.ts";

export interface Mismatch {
  readonly rank: number;
  readonly row: number;
  readonly column: number;
  /** Where the row belongs: source rank and token (dispatched rows), or the token itself (combined rows). */
  readonly srcRank?: number;
  readonly token?: number;
  readonly slot?: number;
  readonly expectedBits: string;
  readonly receivedBits: string;
}

export interface OutputReport {
  readonly output: string;
  readonly numElements: number;
  readonly numDiffering: number;
  readonly first: Mismatch | null;
  /** Count of differing elements per distance in units of the last place: "1", "2-3", ..., "NaN". */
  readonly ulpHistogram: Readonly<Record<string, number>>;
}

/** Where a row of an output comes from, for reports. */
export type RowPlace = (rank: number, row: number) => Pick<Mismatch, "srcRank" | "token" | "slot">;

/** Rows on destinations name their source token; rows on sources are tokens. */
export function placeOfRow(data: HandleData): RowPlace {
  return (rank, row) => {
    const found = data.ranks.find((one) => one.rank === rank);
    return { srcRank: found?.rowSrcRank[row], token: found?.rowSrcToken[row] };
  };
}

export class OutputComparison {
  readonly #output: string;
  readonly #received: ReadonlyMap<number, Tensor>;
  readonly #place: RowPlace;
  readonly #ulp: Record<string, number> = {};
  #numElements = 0;
  #numDiffering = 0;
  #first: Mismatch | null = null;
  readonly #rowsSeen = new Map<number, number>();

  private constructor(output: string, received: ReadonlyMap<number, Tensor>, place: RowPlace) {
    this.#output = output;
    this.#received = received;
    this.#place = place;
  }

  /** `received`: the executor's tensors, one per rank of `ranks`. */
  static async of(output: string, ranks: readonly number[], received: readonly AnyTensor[], place: RowPlace) {
    const hosts = await Promise.all(received.map((value) => toHost(value)));
    return new OutputComparison(output, new Map(ranks.map((rank, i) => [rank, hosts[i]])), place);
  }

  /** Compares rows of the reference with the executor's; equal bytes cost one memcmp. */
  add(chunk: Pick<OutputChunk, "rank" | "firstRow" | "numRows" | "bytes">): void {
    const got = this.#received.get(chunk.rank);
    if (got === undefined) return;
    const bytes = rowBytes(got);
    const mine = bytesOf(got).subarray(chunk.firstRow * bytes, (chunk.firstRow + chunk.numRows) * bytes);
    this.#rowsSeen.set(chunk.rank, (this.#rowsSeen.get(chunk.rank) ?? 0) + chunk.numRows);
    this.#numElements += mine.byteLength / elementBytes(got.dtype);
    if (sameBytes(mine, chunk.bytes)) return;
    this.#scan(got, chunk, mine);
  }

  /** The result. Throws nothing: rows the reference never showed count as differing. */
  report(): OutputReport {
    for (const [rank, value] of this.#received) {
      const missing = value.shape[0] - (this.#rowsSeen.get(rank) ?? 0);
      if (missing > 0) this.#numDiffering += missing * (rowBytes(value) / elementBytes(value.dtype));
    }
    return {
      output: this.#output,
      numElements: this.#numElements,
      numDiffering: this.#numDiffering,
      first: this.#first,
      ulpHistogram: this.#ulp,
    };
  }

  #scan(got: Tensor, chunk: Pick<OutputChunk, "rank" | "firstRow" | "bytes">, mine: Uint8Array): void {
    const size = elementBytes(got.dtype);
    const columns = rowBytes(got) / size;
    if (mine.byteLength !== chunk.bytes.byteLength)
      this.#numDiffering += Math.abs(mine.byteLength - chunk.bytes.byteLength) / size;
    for (let at = 0; at + size <= Math.min(mine.byteLength, chunk.bytes.byteLength); at += size) {
      const expected = codeAt(chunk.bytes, at, size);
      const received = codeAt(mine, at, size);
      if (expected === received) continue;
      this.#numDiffering++;
      const distance = ulpBucket(got.dtype, expected, received);
      this.#ulp[distance] = (this.#ulp[distance] ?? 0) + 1;
      if (this.#first !== null) continue;
      const row = chunk.firstRow + Math.floor(at / size / columns);
      const hex = (code: bigint) => `0x${code.toString(16).padStart(size * 2, "0")}`;
      this.#first = {
        rank: chunk.rank,
        row,
        column: (at / size) % columns,
        ...this.#place(chunk.rank, row),
        expectedBits: hex(expected),
        receivedBits: hex(received),
      };
    }
  }
}

/** Whole tensors of the reference as chunks of a comparison. */
export async function compareWhole(
  output: string,
  ranks: readonly number[],
  received: readonly AnyTensor[],
  expected: readonly AnyTensor[],
  place: RowPlace,
): Promise<OutputReport> {
  const comparison = await OutputComparison.of(output, ranks, received, place);
  for (const [i, value] of expected.entries()) {
    const host = await toHost(value);
    comparison.add({ rank: ranks[i], firstRow: 0, numRows: host.shape[0], bytes: bytesOf(host) });
  }
  return comparison.report();
}

/** One line for people: "recvX: 3 of 1,024 elements differ; first at rank 2, row 5 (from rank 0, token 7), column 3: ...". */
export function describeReport(report: OutputReport): string {
  const { output, numElements, numDiffering, first, ulpHistogram } = report;
  if (numDiffering === 0) return `${output}: ${numElements.toLocaleString("en-US")} elements, 0 bits differ`;
  const counts = `${numDiffering.toLocaleString("en-US")} of ${numElements.toLocaleString("en-US")} elements differ`;
  if (first === null) return `${output}: ${counts}; rows are missing`;
  const source = first.token === undefined ? "" : ` (rank ${first.srcRank}, token ${first.token})`;
  const place = `rank ${first.rank}, row ${first.row}${source}, column ${first.column}`;
  const ulps = Object.entries(ulpHistogram).map(([distance, count]) => `${distance}: ${count}`);
  return `${output}: ${counts}; first at ${place}: expected ${first.expectedBits}, received ${first.receivedBits}; ULP ${ulps.join(", ")}`;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  const view = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return a.byteLength === b.byteLength && view(a).equals(view(b));
}

function codeAt(bytes: Uint8Array, at: number, size: number): bigint {
  let code = 0n;
  for (let i = size - 1; i >= 0; i--) code = (code << 8n) | BigInt(bytes[at + i]);
  return code;
}

const FLOATS: Partial<Record<DType, readonly [bits: number, infinity: number]>> = {
  bf16: [16, 0x7f80],
  fp16: [16, 0x7c00],
  fp32: [32, 0x7f800000],
  fp8e4m3: [8, 0x7e],
};

/** Distance on the line of ordered codes, in powers of two; whole numbers and NaN apart. */
function ulpBucket(dtype: DType, expected: bigint, received: bigint): string {
  const format = FLOATS[dtype];
  if (format === undefined) return "not a float";
  const [bits, infinity] = format;
  const sign = 2 ** (bits - 1);
  const order = (code: bigint) => (Number(code) >= sign ? sign - Number(code) : Number(code));
  const isNaNCode = (code: bigint) => Number(code) % sign > infinity;
  if (isNaNCode(expected) || isNaNCode(received)) return "NaN";
  const distance = Math.abs(order(expected) - order(received));
  if (distance === 0) return "0 (sign of zero)";
  const low = 2 ** Math.floor(Math.log2(distance));
  return low === 1 ? "1" : `${low}-${low * 2 - 1}`;
}
