import { buffersModel, buffersTable } from "./buffers.ts";
import { type Frame, tokensPerRank } from "./dataset.ts";
import { loadModel, loadTable } from "./load.ts";
import { sum } from "./numbers.ts";
import { overviewModel, overviewTable } from "./overview.ts";
import type { ViewState } from "./state.ts";
import { type Cell, compareTables, type Table } from "./table.ts";
import { timelineModel, timelineTable } from "./timeline.ts";
import { trafficModel, trafficTable } from "./traffic.ts";

export interface Change {
  readonly what: string;
  readonly a: number | null;
  readonly b: number | null;
  readonly difference: number | null;
  readonly log2: number | null;
}

/** What changed between two files: the same tables, joined by their keys. */
export interface CompareModel {
  /** Empty when the two can be compared item by item. */
  readonly mismatch: readonly string[];
  /** What B's values are multiplied by: tokens of A / tokens of B when per token. */
  readonly scaleB: number;
  readonly overview: Table;
  /** Largest changes of one kind, by |log2 ratio| x size: biggest first. */
  readonly changes: readonly { readonly kind: string; readonly table: Table; readonly changes: readonly Change[] }[];
}

export function compareModel(a: Frame, b: Frame, state: ViewState): CompareModel {
  const mismatch: string[] = [];
  for (const key of ["numRanks", "numExperts", "topk", "style"] as const) {
    if (a.header[key] !== b.header[key]) mismatch.push(`${key}: ${a.header[key]} in A, ${b.header[key]} in B`);
  }
  const [tokensA, tokensB] = [sum(tokensPerRank(a)), sum(tokensPerRank(b))];
  const scaleB = state.perToken && tokensB > 0 ? tokensA / tokensB : 1;
  const overview = compareTables(overviewTable(overviewModel(a)), overviewTable(overviewModel(b)), 2);
  const sameRanks = a.header.numRanks === b.header.numRanks;
  const kinds: [string, string, Table, Table, number, number][] = [];
  const tables = (frame: Frame, key: "expert" | "rank") => loadTable(loadModel(frame, { ...state, unit: key }));
  if (a.header.numExperts === b.header.numExperts) {
    kinds.push(["slots per expert", "expert", tables(a, "expert"), tables(b, "expert"), 2, scaleB]);
  }
  if (sameRanks) {
    kinds.push(["slots per rank", "rank", tables(a, "rank"), tables(b, "rank"), 2, scaleB]);
    const traffic = (frame: Frame) => trafficTable(trafficModel(frame, { ...state, metric: "rows", level: "rank" }));
    kinds.push(["rows from rank to rank", "from, to", traffic(a), traffic(b), 2, scaleB]);
    const rows = (frame: Frame) => buffersTable(buffersModel(frame, { ...state, token: null }));
    kinds.push(["buffer rows per rank", "rank", rows(a), rows(b), 4, scaleB]);
  }
  const times = (frame: Frame) => timelineTable(timelineModel(frame, { ...state, time: null }));
  if (a.phases.length > 0 && b.phases.length > 0) kinds.push(["median us per phase", "", times(a), times(b), 4, 1]);
  return {
    mismatch,
    scaleB,
    overview,
    changes: kinds.map(([kind, prefix, ta, tb, column, scale]) => {
      const table = compareTables(ta, tb, column, scale);
      return { kind, table, changes: changesOf(table, prefix) };
    }),
  };
}

function changesOf(table: Table, prefix: string): Change[] {
  const k = table.numKeys;
  const changes = table.rows.map((row): Change => {
    const [a, b, difference, log2] = row.slice(k) as (number | null)[];
    return { what: label(prefix, row.slice(0, k)), a, b, difference, log2 };
  });
  const weight = ({ difference }: Change) => (difference === null ? Number.POSITIVE_INFINITY : Math.abs(difference));
  return changes.filter((change) => weight(change) > 0).sort((x, y) => weight(y) - weight(x));
}

function label(prefix: string, keys: readonly Cell[]): string {
  if (prefix === "from, to") return `${keys[0]} to ${keys[1]}`;
  return prefix === "" ? `${keys[0]}` : `${prefix} ${keys[0]}`;
}

export function compareTable(model: CompareModel): Table {
  const rows: Cell[][] = model.overview.rows.map((row) => ["overview", row[0], ...row.slice(model.overview.numKeys)]);
  for (const { kind, changes } of model.changes) {
    for (const { what, a, b, difference, log2 } of changes.slice(0, 100))
      rows.push([kind, what, a, b, difference, log2]);
  }
  return {
    title: "What changed",
    columns: ["kind", "item", "A", "B", "B - A", "log2(B/A)"],
    rows,
    numKeys: 2,
  };
}

export function describeCompare(model: CompareModel): string {
  const shape = model.mismatch.length
    ? `Shapes differ (${model.mismatch.join("; ")}): only what both have is compared. `
    : "";
  const parts = model.changes.map(({ kind, changes }) => {
    const top = changes[0];
    return top
      ? `${kind}: ${changes.length} changed, most ${top.what} (${top.a ?? "absent"} to ${top.b ?? "absent"})`
      : `${kind}: 0 changed`;
  });
  return `${shape}${parts.join(". ")}.`;
}
