import { type ErrorSummary, type Figure, figureError, predictFigure, summarizeErrors } from "./benchmark.ts";
import { crossValidate, type Fit, fitParameters, INDEPENDENT, type Knowledge } from "./fit.ts";
import { PARAMETER_NAMES, PARAMETERS, type Parameters } from "./parameters.ts";

/** Longer tables leave out every twentieth row at a time: each fold is a fit of its own. */
const MOST_ROW_FOLDS = 20;

/** A table's figures by what they are for. */
export interface Split {
  readonly fit: readonly Figure[];
  readonly hold: readonly Figure[];
  /** Set aside with a reason; predicted and shown, counted nowhere. */
  readonly aside: readonly Figure[];
}

/**
 * `rows` (1 = first row below the header) are fitted and the others held out. Without: the table's `use` column; without
 * that either, odd rows are fitted and even rows held out.
 */
export function splitFigures(figures: readonly Figure[], rows: ReadonlySet<number> | null): Split {
  const stated = figures.some((figure) => figure.use !== "");
  const isAside = (figure: Figure) => stated && figure.use !== "fit" && figure.use !== "hold";
  const isFit = (figure: Figure) => {
    if (rows !== null) return rows.has(figure.row);
    return stated ? figure.use === "fit" : figure.row % 2 === 1;
  };
  const used = figures.filter((figure) => !isAside(figure));
  return {
    fit: used.filter(isFit),
    hold: used.filter((figure) => !isFit(figure)),
    aside: figures.filter(isAside),
  };
}

export interface FigureLine {
  readonly row: number;
  readonly label: string;
  readonly unit: "GB/s" | "us";
  readonly definition: string;
  readonly published: number;
  readonly predicted: number;
  readonly error: number;
}

export interface FitReport extends Fit {
  readonly fitted: ErrorSummary;
  readonly held: ErrorSummary;
  readonly heldLines: readonly FigureLine[];
  readonly asideLines: readonly FigureLine[];
  /** Each row left out once (long tables: every twentieth row at a time); each (system, GPU) left out once. */
  readonly leaveRowOut: ErrorSummary;
  readonly leaveSystemOut: {
    readonly folds: readonly { name: string; held: ErrorSummary }[];
    readonly all: ErrorSummary;
  };
}

/** Fits, and says how far the fit can be trusted. `progress` is called with 0..1: every fold is a fit of its own. */
export function fitReport(
  split: Split,
  progress?: (fraction: number) => void,
  knowledge: Knowledge = INDEPENDENT,
): FitReport {
  const fit = fitParameters(split.fit, knowledge);
  const used = [...split.fit, ...split.hold].sort((a, b) => a.row - b.row);
  const numRows = new Set(used.map((figure) => figure.row)).size;
  const foldOf = (figure: Figure) => `${numRows > MOST_ROW_FOLDS ? figure.row % MOST_ROW_FOLDS : figure.row}`;
  return {
    ...fit,
    fitted: summarizeErrors(split.fit.map((figure) => figureError(figure, fit.parameters))),
    held: summarizeErrors(split.hold.map((figure) => figureError(figure, fit.parameters))),
    heldLines: figureLines(split.hold, fit.parameters),
    asideLines: figureLines(split.aside, fit.parameters),
    leaveRowOut: crossValidate(used, foldOf, (fraction) => progress?.(fraction / 2), knowledge).all,
    leaveSystemOut: crossValidate(
      used,
      (figure) => `${figure.system}, ${figure.machine.name}`,
      (fraction) => progress?.((1 + fraction) / 2),
      knowledge,
    ),
  };
}

/** Published and predicted side by side, in the printed unit. */
export function figureLines(figures: readonly Figure[], parameters: Parameters): FigureLine[] {
  return figures.map((figure) => ({
    row: figure.row,
    label: figure.label,
    unit: figure.definition === "time" ? "us" : "GB/s",
    definition: figure.definition,
    published: figure.value,
    predicted: predictFigure(figure, parameters),
    error: figureError(figure, parameters),
  }));
}

/** What a fit leaves behind: `simulate --parameters` reads it. */
export function fitToJson(report: FitReport, split: Split, table: string, date: string): object {
  return {
    date,
    table,
    rows: [...new Set(split.fit.map((figure) => figure.row))],
    numFigures: report.numFigures,
    fitted: report.fitted,
    held: report.held,
    leaveRowOut: report.leaveRowOut,
    leaveSystemOut: report.leaveSystemOut.all,
    parameters: Object.fromEntries(
      PARAMETER_NAMES.map((name) => [name, Number(report.parameters[name].toPrecision(6))]),
    ),
    relativeError: Object.fromEntries(
      Object.entries(report.relativeError).map(([name, value]) => [name, Number(value.toPrecision(2))]),
    ),
    units: Object.fromEntries(PARAMETER_NAMES.map((name) => [name, PARAMETERS[name].unit])),
  };
}

/** The same as the source of core/topology/fitted.ts. */
export function fitToModule(json: object): string {
  return `import type { ParameterName, Parameters } from "./parameters.ts";

/** Written by \`fused-a2a simulate --fit published --output core/topology/fitted.ts\`: do not edit. */
export const FITTED: {
  readonly date: string;
  readonly table: string;
  readonly rows: readonly number[];
  readonly numFigures: number;
  readonly parameters: Parameters;
  readonly relativeError: Readonly<Partial<Record<ParameterName, number>>>;
  readonly [key: string]: unknown;
} = ${JSON.stringify(json, null, 2)};
`;
}
