import {
  type ErrorSummary,
  FITTED,
  type FigureLine,
  type FitReport,
  figureLines,
  fitReport,
  fitToJson,
  fitToModule,
  INDEPENDENT,
  PARAMETER_NAMES,
  PARAMETERS,
  PUBLISHED_TABLE,
  readFigures,
  splitFigures,
  summarizeErrors,
} from "../../core/topology/index.ts";
import { writeFileWith } from "../files.ts";
import { formatNumber, printResult, table } from "../output.ts";
import { progressBar } from "../progress.ts";
import { badOption, readParameters, readText, type SimulateOptions, wholeList } from "./options.ts";

/** `--fit` and `--evaluate`: published rows against the model. */
export async function runFit(options: SimulateOptions): Promise<void> {
  const name = options.fit ?? options.evaluate ?? "published";
  const text = name === "published" ? PUBLISHED_TABLE : await readText(name);
  const figures = readFigures(text, name);
  if (options.fit === undefined) {
    const lines = figureLines(figures, await readParameters(options));
    const errors = summarizeErrors(lines.map((line) => line.error));
    const note = options.parameters ?? `the shipped fit of ${FITTED.date}`;
    printResult(
      { table: name, parameters: note, errors, lines },
      () => evaluateText(name, note, lines, errors),
      options.json,
    );
    return;
  }
  const rows = options.rows === undefined ? null : new Set(wholeList("rows", options.rows, 1));
  const split = splitFigures(figures, rows);
  if (split.fit.length === 0) throw badOption("rows", "rows that the table has", options.rows ?? "none", "name some");
  const shipped = { parameters: FITTED.parameters, spread: FITTED.relativeError };
  const knowledge = options.prior === "shipped" ? shipped : INDEPENDENT;
  const bar = progressBar("fitting");
  const report = fitReport(split, (fraction) => bar.update(fraction), knowledge);
  bar.done();
  const json = fitToJson(report, split, name, new Date().toISOString().slice(0, 10));
  const output = options.output;
  if (output !== undefined) {
    const content = output.endsWith(".ts") ? fitToModule(json) : `${JSON.stringify(json, null, 2)}\n`;
    await writeFileWith(output, (sink) => sink.write(new TextEncoder().encode(content)));
  }
  printResult(
    { ...json, heldLines: report.heldLines, asideLines: report.asideLines },
    () => fitText(report, name),
    options.json,
  );
}

function fitText(report: FitReport, name: string): string {
  const parameters = PARAMETER_NAMES.map((key) => {
    const { unit, meaning, fitted } = PARAMETERS[key];
    const spread = report.relativeError[key];
    const within = fitted && spread !== undefined ? `+-${Math.round(spread * 100)} %` : "fixed";
    return [key, Number(report.parameters[key].toPrecision(4)), within, unit, meaning];
  });
  const { leaveRowOut, leaveSystemOut } = report;
  return [
    `${report.numParameters} parameters from ${report.numFigures} figures of ${name}`,
    table([["parameter", "value", "error", "unit", "meaning"], ...parameters]),
    "",
    "|predicted / published - 1|, in the printed unit (GB/s or us)",
    table([
      ["figures", "count", "median", "mean", "worst"],
      errorRow("fitted", report.fitted),
      errorRow("held out", report.held),
      errorRow("every row left out in turn", leaveRowOut),
      errorRow("every system on every GPU left out in turn", leaveSystemOut.all),
      ...leaveSystemOut.folds.map((fold) => errorRow(`  without ${fold.name}`, fold.held)),
    ]),
    "",
    "Held-out figures",
    linesTable(report.heldLines),
    ...(report.asideLines.length > 0
      ? ["", "Set aside by the table (predicted, not counted)", linesTable(report.asideLines)]
      : []),
  ].join("\n");
}

function evaluateText(name: string, note: string, lines: readonly FigureLine[], errors: ErrorSummary): string {
  return [
    `${name} predicted with ${note}`,
    linesTable(lines),
    "",
    table([["|predicted / published - 1|", "count", "median", "mean", "worst"], errorRow("all", errors)]),
  ].join("\n");
}

function errorRow(name: string, { count, median, mean, worst }: ErrorSummary): (string | number)[] {
  return [name, count, percent(median), percent(mean), percent(worst)];
}

function linesTable(lines: readonly FigureLine[]): string {
  return table([
    ["row", "what", "published", "predicted", "unit", "counts", "error"],
    ...lines.map((line) => [
      line.row,
      line.label,
      Number(line.published.toPrecision(4)),
      Number(line.predicted.toPrecision(4)),
      line.unit,
      line.definition,
      `${line.error >= 0 ? "+" : "-"}${percent(Math.abs(line.error))}`,
    ]),
  ]);
}

function percent(value: number): string {
  return Number.isNaN(value) ? "-" : `${formatNumber(Number((value * 100).toFixed(1)))} %`;
}
