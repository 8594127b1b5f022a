import { summarizeChunk } from "../../core/trace/summary.ts";
import { type Frame, nodeOf, numNodes } from "./dataset.ts";
import { maxOf, maxOverMean, sum, text } from "./numbers.ts";
import { countSelected } from "./selection.ts";
import { type Metric, selectsSlots, type ViewState } from "./state.ts";
import type { Table } from "./table.ts";

/** Who sends how much to whom. Rows of the matrix are sources ("from"), columns destinations ("to"). */
export interface TrafficModel {
  readonly size: number;
  readonly level: "rank" | "node";
  readonly metric: Metric;
  /** "rows", "slots", "bytes", "us". */
  readonly unit: string;
  readonly values: Float64Array;
  /** The part of `values` that is selected; null when nothing is. */
  readonly selected: Float64Array | null;
  /** [size] what each source sends, each destination receives. */
  readonly sent: Float64Array;
  readonly received: Float64Array;
  readonly max: number;
  readonly total: number;
  /** Ranks of one node at rank level: where the grid lines lie; 0 = none. */
  readonly groupSize: number;
  readonly ranksPerNode: number;
  /** Why the metric cannot be shown, else "". */
  readonly unavailable: string;
}

export function trafficModel(frame: Frame, state: ViewState): TrafficModel {
  const { header } = frame;
  const level = state.level === "node" && numNodes(header) > 1 ? "node" : "rank";
  const unavailable =
    state.metric === "wait" && !frame.chunk?.waitUs ? "this file holds no wait times between ranks" : "";
  const size = level === "node" ? numNodes(header) : header.numRanks;
  const pick = (counts: { slots: ArrayLike<number>; rows: ArrayLike<number> }): Float64Array => {
    const raw = state.metric === "slots" ? counts.slots : counts.rows;
    return toLevel(frame, raw, state.metric === "bytes" ? header.rowBytes : 1, level, state.hide);
  };
  const waits = state.metric === "wait" ? (frame.chunk?.waitUs ?? new Float32Array(header.numRanks ** 2)) : null;
  const values = waits ? toLevel(frame, waits, 1, level, state.hide) : pick(matrices(frame));
  const selects = selectsSlots(state) && !waits;
  const counts = selects ? countSelected(frame, state) : null;
  const selected = counts ? pick(counts) : null;
  const sent = new Float64Array(size);
  const received = new Float64Array(size);
  for (let s = 0; s < size; s++) {
    for (let d = 0; d < size; d++) {
      sent[s] += values[s * size + d];
      received[d] += values[s * size + d];
    }
  }
  return {
    size,
    level,
    metric: state.metric,
    unit: { slots: "slots", rows: "rows", bytes: "bytes", wait: "us" }[state.metric],
    values,
    selected,
    sent,
    received,
    max: maxOf(values),
    total: sum(received),
    groupSize: level === "rank" && numNodes(header) > 1 ? header.ranksPerNode : 0,
    ranksPerNode: header.ranksPerNode,
    unavailable,
  };
}

const computed = new WeakMap<object, { slots: Int32Array; rows: Int32Array }>();

/** The layer's [R, R] counts: from the summary, or counted from the chunk where groups are too large to store them. */
export function matrices(frame: Frame): { slots: Int32Array; rows: Int32Array } {
  const { summary, chunk, header, layer } = frame;
  const cells = header.numRanks ** 2;
  if (summary.traffic) {
    const { slots, rows } = summary.traffic;
    const range: [number, number] = [layer * cells, (layer + 1) * cells];
    return { slots: slots.subarray(...range), rows: rows.subarray(...range) };
  }
  if (chunk === null) return { slots: new Int32Array(cells), rows: new Int32Array(cells) };
  let counts = computed.get(chunk);
  if (counts === undefined) {
    const { trafficSlots, trafficRows } = summarizeChunk(header, chunk.topkIdx);
    counts = { slots: trafficSlots, rows: trafficRows };
    computed.set(chunk, counts);
  }
  return counts;
}

function toLevel(
  frame: Frame,
  raw: ArrayLike<number>,
  factor: number,
  level: "rank" | "node",
  hide: ViewState["hide"],
): Float64Array {
  const { header } = frame;
  const { numRanks } = header;
  const size = level === "node" ? numNodes(header) : numRanks;
  const result = new Float64Array(size * size);
  const node = Int32Array.from({ length: numRanks }, (_, rank) => nodeOf(header, rank));
  const place = level === "node" ? node : Int32Array.from(node, (_, rank) => rank);
  for (let s = 0; s < numRanks; s++) {
    const line = place[s] * size;
    for (let d = 0; d < numRanks; d++) {
      if ((hide === "rank" && s === d) || (hide === "node" && node[s] === node[d])) continue;
      result[line + place[d]] += raw[s * numRanks + d] * factor;
    }
  }
  return result;
}

export function trafficTable(model: TrafficModel): Table {
  const rows: (string | number)[][] = [];
  for (let s = 0; s < model.size; s++) {
    for (let d = 0; d < model.size; d++) {
      const value = model.values[s * model.size + d];
      const row = [s, d, value];
      if (model.selected) row.push(model.selected[s * model.size + d]);
      // A dense table of thousands of ranks would be millions of lines of zeros.
      if (model.size <= 64 || value !== 0) rows.push(row);
    }
  }
  const columns = [`from ${model.level}`, `to ${model.level}`, model.unit];
  if (model.selected) columns.push(`selected ${model.unit}`);
  return { title: "Traffic", columns, rows, numKeys: 2 };
}

export function describeTraffic(model: TrafficModel): string {
  if (model.unavailable) return `Traffic in ${model.unit}: ${model.unavailable}.`;
  const hottest = model.values.indexOf(model.max);
  const [from, to] = [Math.floor(hottest / model.size), hottest % model.size];
  if (model.metric === "wait") {
    return (
      `Waiting time between ${model.size} ${model.level}s, waiting (rows) and waited for (columns). Largest: ${text(model.max)} us, ` +
      `${model.level} ${from} for ${model.level} ${to}. Most waited for: ${model.level} ${model.received.indexOf(maxOf(model.received))} ` +
      `(a slow sender fills a column, a slow receiver a row, a slow link one cell).`
    );
  }
  const busiest = model.received.indexOf(maxOf(model.received));
  return (
    `${model.unit} from ${model.size} source to ${model.size} destination ${model.level}s. ` +
    `Largest: ${text(model.max)} from ${model.level} ${from} to ${model.level} ${to}. ` +
    `Received max/mean ${text(maxOverMean(model.received))} (${model.level} ${busiest}), ` +
    `sent max/mean ${text(maxOverMean(model.sent))}.`
  );
}
