import type { TraceHeader } from "../../core/trace/format.ts";
import type { StepSummary } from "../../core/trace/read.ts";
import type { Frame } from "./dataset.ts";
import { maxOverMean, percent, sum, text } from "./numbers.ts";
import type { Table } from "./table.ts";

/** The six numbers, each with the formula that makes it, for the layer and for the whole step. */
export interface OverviewModel {
  readonly numbers: readonly OverviewNumber[];
  readonly layer: number;
  readonly numLayers: number;
  readonly title: string;
}

export interface OverviewNumber {
  readonly name: string;
  readonly formula: string;
  /** Of the layer, and of all layers of the step together. */
  readonly value: number;
  readonly all: number;
  readonly show: (value: number) => string;
  /** Where to read on. */
  readonly view: "traffic" | "load" | "buffers" | "token";
}

/** Sums over layers first..last-1 of one step. */
interface Sums {
  readonly tokens: number;
  readonly slots: number;
  readonly remoteRows: number;
  readonly rows: number;
  readonly rankLoad: Float64Array;
  readonly used: number;
  readonly padding: number;
  readonly cut: number;
}

export function overviewModel(frame: Frame): OverviewModel {
  const { header, layer, summary } = frame;
  const one = sums(summary, header, layer, layer + 1);
  const all = sums(summary, header, 0, header.numLayers);
  const number = (
    name: string,
    formula: string,
    view: OverviewNumber["view"],
    show: (value: number) => string,
    of: (s: Sums) => number,
  ): OverviewNumber => ({ name, formula, view, show, value: of(one), all: of(all) });
  return {
    numbers: [
      number("Tokens", "rows of x, all ranks", "token", text, (s) => s.tokens),
      number("Slots", "(token, k) choices but -1", "load", text, (s) => s.slots),
      number("Remote share", "rows to another rank / rows", "traffic", percent, (s) => s.remoteRows / s.rows),
      number("Dedup factor", "slots / (token, rank) rows", "traffic", text, (s) => s.slots / s.rows),
      number("Max/mean rank load", "largest rank's slots / mean", "load", text, (s) => maxOverMean(s.rankLoad)),
      number(
        "Padding waste",
        "padding / (used + padding)",
        "buffers",
        percent,
        (s) => s.padding / (s.used + s.padding),
      ),
    ],
    layer,
    numLayers: header.numLayers,
    title:
      `${header.numRanks} ranks in ${header.numRanks / header.ranksPerNode} node(s), ${header.numExperts} experts, ` +
      `top-${header.topk}, ${header.numLayers} layer(s), ${header.numSteps} step(s), ${header.style}` +
      (one.cut > 0 ? `, ${text(one.cut)} slots cut by overflow in this layer` : ""),
  };
}

function sums(summary: StepSummary, header: TraceHeader, first: number, end: number): Sums {
  const { numRanks, numExperts } = header;
  const expertsPerRank = numExperts / numRanks;
  const total = (column: number) => {
    let value = 0;
    for (let layer = first; layer < end; layer++) value += summary.totals[layer * 6 + column];
    return value;
  };
  const rankLoad = new Float64Array(numRanks);
  for (let i = first * numExperts; i < end * numExperts; i++) {
    rankLoad[Math.floor((i % numExperts) / expertsPerRank)] += summary.expertLoad[i];
  }
  const rows = [0, 0, 0, 0];
  for (let i = first * numRanks * 4; i < end * numRanks * 4; i++) rows[i % 4] += summary.bufferRows[i];
  const [used, padding, , cut] = rows;
  return {
    // The layers of a step see the same tokens: their mean, not their sum.
    tokens: total(0) / (end - first),
    slots: sum(rankLoad),
    remoteRows: total(5),
    rows: total(4),
    rankLoad,
    used,
    padding,
    cut,
  };
}

export function overviewTable(model: OverviewModel): Table {
  return {
    title: "Overview",
    columns: ["number", "formula", `layer ${model.layer}`, `all ${model.numLayers} layers`],
    rows: model.numbers.map(({ name, formula, value, all }) => [name, formula, finite(value), finite(all)]),
    numKeys: 2,
  };
}

function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

export function describeOverview(model: OverviewModel): string {
  const numbers = model.numbers.map(({ name, value, show }) => `${name} ${show(value)}`).join(", ");
  return `${model.title}. Layer ${model.layer}: ${numbers}.`;
}
