import { roundUp } from "../../core/layout/counts.ts";
import { type Frame, logicalOf, nodeOf, numNodes, rankOf } from "./dataset.ts";
import { gini, lorenz, maxOf, maxOverMean, sum, text } from "./numbers.ts";
import { countSelected } from "./selection.ts";
import { formatIds, selectsSlots, type Unit, type ViewState } from "./state.ts";
import type { Table } from "./table.ts";

/** Who is overloaded: slots per expert, rank or node, and the layer x expert picture. */
export interface LoadModel {
  readonly unit: Unit;
  /** [n] slots (padding in: rows after rounding or padding). */
  readonly values: Float64Array;
  /** [n] selected slots; null when nothing is selected. */
  readonly selected: Float64Array | null;
  /** [n] rank that owns each item (node that holds it for ranks, itself for nodes, -1 for logical experts). */
  readonly owner: Int32Array;
  /** Items in drawing order. */
  readonly order: Int32Array;
  readonly mean: number;
  readonly max: number;
  readonly maxOverMean: number;
  readonly gini: number;
  readonly lorenz: Float64Array;
  /** Rows a rank has room for, where the file sets a budget and the unit is rank. */
  readonly capacity: number | null;
  /** Items without a slot. */
  readonly dead: readonly number[];
  readonly padded: boolean;
  readonly ranksPerNode: number;
  readonly layer: number;
  readonly numLayers: number;
  /** [layers, n] load over the layer's mean. */
  readonly byLayer: Float64Array;
  /** [layers] */
  readonly layerMaxOverMean: Float64Array;
}

export function loadModel(frame: Frame, state: ViewState): LoadModel {
  const { header, layer, summary } = frame;
  const { numExperts, numLayers } = header;
  const unit = usableUnit(frame, state.unit);
  const layerLoad = (at: number, padding: boolean) =>
    grouped(frame, at, unit, summary.expertLoad.subarray(at * numExperts, (at + 1) * numExperts), padding);
  const values = layerLoad(layer, state.padding);
  const counts = selectsSlots(state) ? countSelected(frame, state) : null;
  const selected = counts ? grouped(frame, layer, unit, counts.expertLoad, false) : null;
  const order = Int32Array.from(values, (_, i) => i);
  if (state.order === "load") order.sort((a, b) => values[b] - values[a] || a - b);
  const byLayer = new Float64Array(numLayers * values.length);
  const layerMaxOverMean = new Float64Array(numLayers);
  for (let at = 0; at < numLayers; at++) {
    const loads = layerLoad(at, state.padding);
    const mean = sum(loads) / loads.length;
    layerMaxOverMean[at] = maxOverMean(loads);
    if (mean > 0) for (let i = 0; i < loads.length; i++) byLayer[at * loads.length + i] = loads[i] / mean;
  }
  const { numWorstTokens, numPermutedTokens } = header.settings;
  const budget = header.style === "fused" ? numWorstTokens || null : numPermutedTokens;
  return {
    unit,
    values,
    selected,
    owner: Int32Array.from(values, (_, i) => ownerOf(frame, unit, i)),
    order,
    mean: sum(values) / values.length,
    max: maxOf(values),
    maxOverMean: maxOverMean(values),
    gini: gini(values),
    lorenz: lorenz(values),
    // A fused budget counts recv rows, not slots: it is no line in this picture.
    capacity: unit === "rank" && header.style === "hybrid-ep" ? budget : null,
    dead: Array.from(values.keys()).filter((i) => values[i] === 0),
    padded: state.padding,
    ranksPerNode: header.ranksPerNode,
    layer,
    numLayers,
    byLayer,
    layerMaxOverMean,
  };
}

function usableUnit(frame: Frame, unit: Unit): Unit {
  if (unit === "logical" && !frame.header.physicalToLogical) return "expert";
  return unit === "node" && numNodes(frame.header) === 1 ? "rank" : unit;
}

function ownerOf(frame: Frame, unit: Unit, item: number): number {
  if (unit === "expert") return rankOf(frame.header, item);
  if (unit === "rank") return nodeOf(frame.header, item);
  return unit === "node" ? item : -1;
}

function grouped(frame: Frame, layer: number, unit: Unit, load: Int32Array, padding: boolean): Float64Array {
  const { header } = frame;
  const group = (expert: number) => {
    if (unit === "expert") return expert;
    if (unit === "logical") return logicalOf(header, layer, expert);
    const rank = rankOf(header, expert);
    return unit === "rank" ? rank : nodeOf(header, rank);
  };
  let size = { expert: header.numExperts, rank: header.numRanks, node: numNodes(header), logical: 1 }[unit];
  if (unit === "logical") for (let e = 0; e < load.length; e++) size = Math.max(size, group(e) + 1);
  const multiple = header.style === "fused" ? header.settings.expertAlignment : header.settings.padMultiple;
  const result = new Float64Array(size);
  for (let e = 0; e < load.length; e++) result[group(e)] += padding ? roundUp(load[e], multiple) : load[e];
  return result;
}

export function loadTable(model: LoadModel): Table {
  const what = model.padded ? "rows with padding" : "slots";
  const columns = [model.unit, ownerName(model.unit), what, `${what} / mean`];
  if (model.selected) columns.push("selected slots");
  const rows = Array.from(model.order, (item) => {
    const row: (number | null)[] = [item, model.owner[item], model.values[item]];
    row.push(model.mean > 0 ? model.values[item] / model.mean : null);
    if (model.selected) row.push(model.selected[item]);
    return row;
  });
  return { title: "Load", columns, rows, numKeys: 2 };
}

export function ownerName(unit: Unit): string {
  return unit === "expert" ? "on rank" : unit === "logical" ? "replicas on several ranks" : "on node";
}

export function describeLoad(model: LoadModel): string {
  const top = model.order.length ? indexOfMax(model.values) : 0;
  const dead = model.dead.length === 0 ? "None is idle." : `${model.dead.length} idle: ${ids(model.dead)}.`;
  return (
    `${text(sum(model.values))} ${model.padded ? "rows with padding" : "slots"} over ${model.values.length} ${model.unit}s ` +
    `in layer ${model.layer}: mean ${text(model.mean)}, largest ${text(model.max)} (${model.unit} ${top}), ` +
    `max/mean ${text(model.maxOverMean)}, Gini ${text(model.gini)}. ${dead}`
  );
}

function ids(list: readonly number[]): string {
  const all = formatIds(list);
  return all.length <= 80 ? all : `${all.slice(0, 80).replace(/,[^,]*$/, "")}, ...`;
}

function indexOfMax(values: Float64Array): number {
  return values.indexOf(maxOf(values));
}
