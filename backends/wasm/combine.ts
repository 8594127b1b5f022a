import type { OutputChunk } from "../../core/backend.ts";
import type { HandleData, RankHandle } from "../../core/handle/handle.ts";
import { bytesOf, rowBytes, type Tensor } from "../../core/tensor.ts";
import { checkWidth, type Engine, type Operand, type Pass, type RunOptions, rowsRef } from "./engine.ts";
import type { RowsRef } from "./executor.ts";

const KERNEL_SUFFIX: Record<string, string> = { bf16: "Bf16", fp16: "Fp16", fp32: "Fp32" };

/** The part of a kernel's name that says its dtype. */
export function kernelSuffix(dtype: string): string {
  return KERNEL_SUFFIX[dtype];
}

export interface RowTarget {
  /** Filled when given, one per rank. */
  readonly out?: readonly Tensor[];
  readonly consume?: (chunk: OutputChunk) => void;
}

/** Sums the rows of every token of every rank (design 2.4, 2.5) into `out`, or shows the results to `consume`. */
export function combineRows(
  engine: Engine,
  data: HandleData,
  x: readonly Tensor[],
  bias: readonly (readonly Tensor[])[],
  target: RowTarget,
  options: RunOptions,
): Promise<void> {
  const bytes = rowBytes(x[0]);
  const { numRanks, ranksPerNode } = data.meta;
  const sources: Uint8Array[] = [];
  const rows: RowsRef[] = [];
  data.ranks.forEach(({ rank }, i) => {
    sources[rank] = bytesOf(x[i]);
    rows[rank] = rowsRef(engine.slabs, sources[rank], bytes);
  });
  const bytesOfRank = (rank: RankHandle) => rank.numTokens * bytes * (rank.numEntries + bias.length + 1);
  const total = data.ranks.reduce((sum, rank) => sum + bytesOfRank(rank), 0);
  const inPlace = engine.runsHere(total, options) || data.ranks.every(({ rank }) => rows[rank].slab >= 0);
  const tables = engine.setTables(data.ranks.flatMap(({ sendRank, sendRow }) => [sendRank, sendRow]));
  const passes = data.ranks.map((rank, i): Pass => {
    const { numEntries, sendRank, sendRow } = rank;
    checkWidth(numEntries);
    // Rows that the workers cannot reach are gathered by the calling thread, entry by entry.
    const gather: Operand = {
      ref: null,
      rowBytes: bytes * numEntries,
      rowsPerRow: numEntries,
      fill: (first, last, staged) => {
        for (let entry = first * numEntries, at = 0; entry < last * numEntries; entry++, at += bytes) {
          if (sendRank[entry] < 0) continue;
          const from = sendRow[entry] * bytes;
          staged.set(sources[sendRank[entry]].subarray(from, from + bytes), at);
        }
      },
    };
    const biases = bias.map((values) => inputRows(engine, values[i]));
    return {
      numRows: rank.numTokens,
      bytesPerRow: bytes * (numEntries + bias.length + 1),
      operands: [outputRows(engine, target, i, rank.rank, bytes), ...biases, ...(inPlace ? [] : [gather])],
      task: ([out, ...inputs], range) => ({
        op: "combine",
        ...range,
        sendRank: tables[2 * i],
        sendRow: tables[2 * i + 1],
        width: numEntries,
        x: inPlace ? rows : inputs.slice(-1),
        staged: !inPlace,
        bias: inputs.slice(0, bias.length),
        out,
        dtype: kernelSuffix(x[0].dtype),
        ranksPerNode,
        oneNode: ranksPerNode === numRanks,
      }),
    };
  });
  return engine.run(passes, options);
}

/** A tensor that a pass reads row by row. */
export function inputRows(engine: Engine, value: Tensor): Operand {
  const source = bytesOf(value);
  const bytes = rowBytes(value);
  return {
    ref: rowsRef(engine.slabs, source, bytes),
    rowBytes: bytes,
    fill: (first, last, staged) => staged.set(source.subarray(first * bytes, last * bytes)),
  };
}

/** What a pass writes row by row: a tensor, or chunks for `consume`. */
export function outputRows(
  engine: Engine,
  { out, consume }: RowTarget,
  index: number,
  rank: number,
  bytes: number,
): Operand {
  if (consume !== undefined) {
    return {
      ref: null,
      rowBytes: bytes,
      drain: (firstRow, last, staged) => {
        // Shared memory stays inside: TextDecoder, crypto and file writes refuse it.
        const bytes = staged.buffer instanceof ArrayBuffer ? staged : staged.slice();
        consume({ name: "x", rank, firstRow, numRows: last - firstRow, bytes });
      },
    };
  }
  const target = bytesOf((out as readonly Tensor[])[index]);
  return {
    ref: rowsRef(engine.slabs, target, bytes),
    rowBytes: bytes,
    drain: (first, _last, staged) => target.set(staged, first * bytes),
  };
}
