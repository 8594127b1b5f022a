import type { RoutingFile } from "../import/index.ts";
import { type LayerLint, lintLayer } from "./layer.ts";
import { type LintRule, RULES } from "./rules.ts";

/** Rows of one layer that break a rule. */
export interface LintPlace {
  readonly layer: string;
  readonly numRows: number;
  /** [first, last] of the first stretches, counted from 0. */
  readonly rows: readonly (readonly [number, number])[];
  /** The same as lines of the file, counted from 1, for text formats. */
  readonly lines: readonly (readonly [number, number])[] | null;
}

export interface LintFinding {
  readonly rule: LintRule;
  readonly severity: "error" | "warning" | "info";
  readonly description: string;
  readonly remedy: string;
  readonly numRows: number;
  /** numRows / rows of all layers. */
  readonly share: number;
  readonly places: readonly LintPlace[];
}

export interface LintReport {
  /** Rows of all layers. */
  readonly numRows: number;
  /** Rows that break a rule that taints (RULES). */
  readonly numTainted: number;
  readonly taintedShare: number;
  /** Rows of runs of identical rows at the head, the most of any layer: what --cut-head removes from every layer. */
  readonly numHeadRows: number;
  /** Smallest, median (of the layers' medians) and largest sum of a row's weights; null without weights. */
  readonly weightSums: { readonly min: number; readonly median: number; readonly max: number } | null;
  /** Errors first, then warnings, then the rest. */
  readonly findings: readonly LintFinding[];
}

/** Checks a routing file against every rule, one layer in memory at a time. Counts have no rows: only their layers are checked. */
export async function lintRouting(file: RoutingFile, progress?: (fraction: number) => void): Promise<LintReport> {
  const places = new Map<LintRule, LintPlace[]>();
  const add = (rule: LintRule, place: LintPlace) => {
    const list = places.get(rule);
    if (list === undefined) places.set(rule, [place]);
    else list.push(place);
  };
  const seen = new Map<string, string>();
  const lints: LayerLint[] = [];
  for (let i = 0; i < file.numLayers; i++) {
    const name = file.layerNames[i];
    if (file.kind === "counts") {
      if ((await file.loads(i)).every((load) => load === 0)) {
        add("empty-layers", { layer: name, numRows: 0, rows: [], lines: null });
      }
      continue;
    }
    const layer = await file.layer(i);
    const lint = lintLayer(layer, file.numExperts, file.numExpertsFrom === "stated");
    lints.push({ ...lint, found: new Map() });
    for (const [rule, { numRows, ranges }] of lint.found) {
      const { lines } = layer;
      const asLines = lines && ranges.map(([first, last]): [number, number] => [lines[first], lines[last]]);
      add(rule, { layer: name, numRows, rows: ranges, lines: asLines });
    }
    const twin = seen.get(lint.hash);
    const whole: [number, number][] = [[0, lint.numRows - 1]];
    if (lint.numRows === 0) add("empty-layers", { layer: name, numRows: 0, rows: [], lines: null });
    else if (twin === undefined) seen.set(lint.hash, name);
    else add("identical-layers", { layer: `${name} = ${twin}`, numRows: lint.numRows, rows: whole, lines: null });
    progress?.((i + 1) / file.numLayers);
  }
  const numRows = lints.reduce((sum, lint) => sum + lint.numRows, 0);
  const numTainted = lints.reduce((sum, lint) => sum + lint.numTainted, 0);
  return {
    numRows,
    numTainted,
    taintedShare: numRows > 0 ? numTainted / numRows : 0,
    numHeadRows: lints.reduce((most, lint) => Math.max(most, lint.numHeadRows), 0),
    weightSums: weightSums(lints),
    findings: findings(places, numRows),
  };
}

function weightSums(lints: readonly LayerLint[]): LintReport["weightSums"] {
  const sums = lints.flatMap((lint) => (lint.sums ? [lint.sums] : []));
  if (sums.length === 0) return null;
  const medians = Float64Array.from(sums, (sum) => sum.median).sort();
  return {
    min: Math.min(...sums.map((sum) => sum.min)),
    median: medians[Math.floor(medians.length / 2)],
    max: Math.max(...sums.map((sum) => sum.max)),
  };
}

function findings(places: ReadonlyMap<LintRule, LintPlace[]>, allRows: number): LintFinding[] {
  const order = ["error", "warning", "info"];
  return [...places]
    .map(([rule, list]) => {
      const { severity, description, remedy } = RULES[rule];
      const numRows = list.reduce((sum, place) => sum + place.numRows, 0);
      return { rule, severity, description, remedy, numRows, share: allRows > 0 ? numRows / allRows : 0, places: list };
    })
    .sort((a, b) => order.indexOf(a.severity) - order.indexOf(b.severity) || b.numRows - a.numRows);
}
