import type { OutputChunk, RowOutputs } from "../../core/backend.ts";
import type { HandleData } from "../../core/handle/handle.ts";
import { bytesOf, rowBytes, type Tensor } from "../../core/tensor.ts";
import type { Engine, Pass, RunOptions } from "./engine.ts";
import { checkWidth, rowsRef } from "./engine.ts";
import type { RowsRef } from "./executor.ts";
import { STAGING_BYTES } from "./slabs.ts";

/** Rows shown to `consume` at a time. */
const CONSUME_BYTES = 4 << 20;

/** Moves the rows of all ranks into `out`: each source row is read once and written to its places, padding is zeroed. */
export function dispatchRows(
  engine: Engine,
  data: HandleData,
  x: readonly Tensor[],
  out: readonly Tensor[],
  options: RunOptions,
): Promise<void> {
  const bytes = rowBytes(x[0]);
  const outRefs: RowsRef[] = [];
  data.ranks.forEach(({ rank }, i) => {
    outRefs[rank] = rowsRef(engine.slabs, bytesOf(out[i]), bytes);
  });
  const tables = engine.setTables([
    ...data.ranks.flatMap(({ sendRank, sendRow }) => [sendRank, sendRow]),
    ...data.ranks.map(({ rowSrcRank }) => unusedRows(rowSrcRank)),
  ]);
  const here = outRefs.some((ref) => ref.slab < 0);
  const stageIn = stagingBeside(engine, out);
  const passes = data.ranks.map(({ numTokens, numEntries }, i): Pass => {
    checkWidth(numEntries);
    const lists = { sendRank: tables[2 * i], sendRow: tables[2 * i + 1], width: numEntries };
    const source = bytesOf(x[i]);
    return {
      numRows: numTokens,
      bytesPerRow: bytes * (numEntries + 1),
      here,
      stageIn,
      operands: [
        {
          ref: rowsRef(engine.slabs, source, bytes),
          rowBytes: bytes,
          fill: (first, last, target) => target.set(source.subarray(first * bytes, last * bytes)),
        },
      ],
      task: ([ref], range) => ({ op: "dispatch", ...range, ...lists, x: ref, out: outRefs }),
    };
  });
  const zeros = data.ranks.map(({ rank, rowSrcRank }, i): Pass => {
    const rows = tables[2 * data.ranks.length + i];
    return {
      numRows: countUnused(rowSrcRank),
      bytesPerRow: bytes,
      here,
      operands: [],
      task: (_, range) => ({ op: "zero", ...range, out: outRefs[rank], rows }),
    };
  });
  return engine.run([...passes, ...zeros], options);
}

function countUnused(rowSrcRank: Int32Array): number {
  let count = 0;
  for (const rank of rowSrcRank) if (rank < 0) count++;
  return count;
}

/** Padding and tail rows. */
function unusedRows(rowSrcRank: Int32Array): Int32Array {
  const rows = new Int32Array(countUnused(rowSrcRank));
  for (let row = 0, i = 0; row < rowSrcRank.length; row++) if (rowSrcRank[row] < 0) rows[i++] = row;
  return rows;
}

/** When all outputs lie in one slab, rows of other memory are best staged in that slab. */
function stagingBeside({ slabs }: Engine, out: readonly Tensor[]): Pass["stageIn"] {
  const slab = slabs?.ownerOf(out[0].data.buffer);
  if (slab === undefined || out.some((value) => slabs?.ownerOf(value.data.buffer) !== slab)) return undefined;
  return { id: slab.id, stagingOffset: slab.stagingOffset, halfBytes: STAGING_BYTES / 2 };
}

/** Shows the rows of each destination piece by piece instead of keeping them. Runs on the calling thread. */
export async function consumeDispatch(
  name: OutputChunk["name"],
  data: HandleData,
  x: readonly Tensor[],
  { consume, progress }: RowOutputs,
): Promise<void> {
  const bytes = rowBytes(x[0]);
  const sources: Uint8Array[] = [];
  data.ranks.forEach(({ rank }, i) => {
    sources[rank] = bytesOf(x[i]);
  });
  const buffer = new Uint8Array(Math.max(bytes, CONSUME_BYTES));
  const step = Math.floor(buffer.length / bytes);
  const total = data.ranks.reduce((sum, rank) => sum + rank.numRows, 0);
  let shown = 0;
  for (const { rank, numRows, rowSrcRank, rowSrcToken } of data.ranks) {
    for (let firstRow = 0; firstRow < numRows || firstRow === 0; firstRow += step) {
      const count = Math.min(step, numRows - firstRow);
      for (let i = 0; i < count; i++) {
        const row = firstRow + i;
        const from = rowSrcToken[row] * bytes;
        if (rowSrcRank[row] < 0) buffer.fill(0, i * bytes, (i + 1) * bytes);
        else buffer.set(sources[rowSrcRank[row]].subarray(from, from + bytes), i * bytes);
      }
      consume?.({ name, rank, firstRow, numRows: count, bytes: buffer.subarray(0, count * bytes) });
      shown += count;
      progress?.(total === 0 ? 1 : shown / total);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  }
}
