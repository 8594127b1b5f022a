import { roundUp } from "../../core/layout/counts.ts";
import { type Frame, layoutOf, rankOf } from "./dataset.ts";
import { percent, sum, text } from "./numbers.ts";
import type { ViewState } from "./state.ts";
import type { Table } from "./table.ts";
import { matrices } from "./traffic.ts";

export type SegmentKind = "used" | "padding" | "tail";

/** A run of rows of one destination's buffer, in memory order. */
export interface Segment {
  readonly kind: SegmentKind;
  readonly firstRow: number;
  readonly numRows: number;
  /** Source rank (fused) or expert (hybrid-ep) of used rows and of padding; -1 for the tail. */
  readonly id: number;
  readonly selected: boolean;
}

export interface BufferStrip {
  readonly rank: number;
  readonly segments: readonly Segment[];
  readonly numRows: number;
  readonly used: number;
  readonly padding: number;
  readonly tail: number;
  /** Slots that did not fit. */
  readonly cut: number;
}

export interface RowInfo {
  readonly srcRank: number;
  readonly token: number;
}

/** Each rank's receive buffer as a strip of rows. */
export interface BuffersModel {
  readonly style: "fused" | "hybrid-ep";
  readonly strips: readonly BufferStrip[];
  readonly maxRows: number;
  readonly rowBytes: number;
  readonly padMultiple: number;
  /** Rows of the inspected token, per rank. */
  readonly tokenRows: ReadonlyMap<number, readonly number[]>;
  /** Source of a row, or null on padding and tail; only where the tokens are at hand. */
  readonly rowAt: (rank: number, row: number) => RowInfo | null;
}

export function buffersModel(frame: Frame, state: ViewState): BuffersModel {
  const { header, layer, summary } = frame;
  const { numRanks } = header;
  const fused = header.style === "fused";
  const strips = Array.from({ length: numRanks }, (_, rank): BufferStrip => {
    const at = (layer * numRanks + rank) * 4;
    const [used, padding, tail, cut] = summary.bufferRows.subarray(at, at + 4);
    const segments = fused ? fusedSegments(frame, rank, used, state) : hybridEpSegments(frame, rank, state);
    if (tail > 0) segments.push({ kind: "tail", firstRow: used + padding, numRows: tail, id: -1, selected: false });
    return { rank, segments, numRows: used + padding + tail, used, padding, tail, cut };
  });
  // Positions are only worked out when a token or a row is looked at.
  const layout = () => layoutOf(frame);
  const tokenRows = new Map<number, number[]>();
  if (state.token && frame.chunk) {
    const source = layout()?.ranks[state.token[0]];
    const width = source?.numEntries ?? 0;
    for (let i = state.token[1] * width; source && i < (state.token[1] + 1) * width; i++) {
      if (source.sendRank[i] < 0) continue;
      tokenRows.set(source.sendRank[i], [...(tokenRows.get(source.sendRank[i]) ?? []), source.sendRow[i]]);
    }
  }
  return {
    style: header.style,
    strips,
    maxRows: Math.max(1, ...strips.map((strip) => strip.numRows)),
    rowBytes: header.rowBytes,
    padMultiple: header.settings.padMultiple,
    tokenRows,
    rowAt: (rank, row) => {
      const dst = layout()?.ranks[rank];
      if (!dst || row >= dst.numRows || dst.rowSrcRank[row] < 0) return null;
      return { srcRank: dst.rowSrcRank[row], token: dst.rowSrcToken[row] };
    },
  };
}

/** Recv rows lie by source rank (design 2.3). */
function fusedSegments(frame: Frame, rank: number, used: number, state: ViewState): Segment[] {
  const { numRanks } = frame.header;
  const { rows } = matrices(frame);
  const segments: Segment[] = [];
  for (let src = 0, row = 0; src < numRanks && row < used; src++) {
    const numRows = Math.min(rows[src * numRanks + rank], used - row);
    if (numRows === 0) continue;
    const selected = chosen(state.src, src) && chosen(state.dst, rank);
    segments.push({ kind: "used", firstRow: row, numRows, id: src, selected });
    row += numRows;
  }
  return segments;
}

/** Permuted rows lie by local expert, each block padded (design 2.5, 2.7). */
function hybridEpSegments(frame: Frame, rank: number, state: ViewState): Segment[] {
  const { header, layer, summary } = frame;
  const { padMultiple, numPermutedTokens } = header.settings;
  const budget = numPermutedTokens ?? Number.POSITIVE_INFINITY;
  const expertsPerRank = header.numExperts / header.numRanks;
  const segments: Segment[] = [];
  let row = 0;
  for (let id = rank * expertsPerRank; id < (rank + 1) * expertsPerRank; id++) {
    const wanted = summary.expertLoad[layer * header.numExperts + id];
    const end = Math.min(budget, row + roundUp(wanted, padMultiple));
    const used = Math.min(wanted, Math.max(0, budget - row));
    const selected = chosen(state.experts, id) && chosen(state.dst, rankOf(header, id));
    if (used > 0) segments.push({ kind: "used", firstRow: row, numRows: used, id, selected });
    if (end > row + used) {
      segments.push({ kind: "padding", firstRow: row + used, numRows: end - row - used, id, selected });
    }
    row += roundUp(wanted, padMultiple);
    if (row >= budget) break;
  }
  return segments;
}

function chosen(ids: readonly number[], id: number): boolean {
  return ids.length === 0 || ids.includes(id);
}

export function buffersTable(model: BuffersModel): Table {
  return {
    title: "Buffers",
    columns: ["rank", "used rows", "padding rows", "tail rows", "rows", "waste", "slots cut", "bytes"],
    rows: model.strips.map((strip) => [
      strip.rank,
      strip.used,
      strip.padding,
      strip.tail,
      strip.numRows,
      strip.numRows > 0 ? (strip.numRows - strip.used) / strip.numRows : null,
      strip.cut,
      strip.numRows * model.rowBytes,
    ]),
    numKeys: 1,
  };
}

export function describeBuffers(model: BuffersModel): string {
  const used = sum(model.strips.map((strip) => strip.used));
  const rows = sum(model.strips.map((strip) => strip.numRows));
  const cut = sum(model.strips.map((strip) => strip.cut));
  const order = model.style === "fused" ? "source rank, then token" : "local expert, then source rank and token";
  return (
    `${text(rows)} buffer rows on ${model.strips.length} ranks, ${text(used)} used, ` +
    `${percent(rows > 0 ? (rows - used) / rows : 0)} padding or unused. Rows lie by ${order}. ` +
    (cut > 0 ? `Overflow: ${text(cut)} slots did not fit.` : "Nothing was cut.")
  );
}
