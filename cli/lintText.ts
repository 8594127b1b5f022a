/** The linter's report as text, shared by inspect and convert. */
import type { LintFinding, LintReport } from "../core/routing/lint/index.ts";
import { formatNumber, table } from "./output.ts";

const MAX_PLACES = 3;

export function lintText(report: LintReport): string {
  const { numRows, numTainted, taintedShare, numHeadRows, weightSums, findings } = report;
  const lines = [
    numRows === 0
      ? "lint: no rows to check"
      : `lint: ${formatNumber(numTainted)} of ${formatNumber(numRows)} rows tainted (${percent(taintedShare)})`,
  ];
  if (weightSums) {
    const { min, median, max } = weightSums;
    const what = Math.abs(median - 1) < 0.01 ? "1" : `${formatNumber(median)}, a scaling factor`;
    lines.push(
      `  weights of a row sum to ${what} (${min.toFixed(4)} .. ${max.toFixed(4)}, median ${median.toFixed(4)})`,
    );
  }
  if (findings.length > 0) {
    const rows = findings.map((finding) => [
      `  ${finding.severity}`,
      finding.rule,
      finding.numRows,
      percent(finding.share),
      `${finding.description}; ${finding.remedy}`,
    ]);
    lines.push(table([["  severity", "rule", "rows", "share", "what, and what to do"], ...rows]));
    for (const finding of findings) lines.push(...placesText(finding));
  }
  if (numHeadRows > 0)
    lines.push(`  convert --cut-head removes the first ${formatNumber(numHeadRows)} rows of every layer`);
  return lines.join("\n");
}

function placesText({ rule, places }: LintFinding): string[] {
  const lines = places.slice(0, MAX_PLACES).map(({ layer, numRows, rows, lines: inFile }) => {
    const stretches = (inFile ?? rows).map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`));
    const more = rows.reduce((sum, [first, last]) => sum + last - first + 1, 0) < numRows ? ", ..." : "";
    const where = rows.length === 0 ? "" : `: ${inFile ? "lines" : "rows"} ${stretches.join(", ")}${more}`;
    return `  ${rule}, layer ${layer}${where}`;
  });
  if (places.length > MAX_PLACES) lines.push(`  ${rule}, ${places.length - MAX_PLACES} more layers`);
  return lines;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
