/** What verify prints. */
import { describeReport, type OutputReport } from "./compare.ts";
import { merge } from "./verifier.ts";
import type { Verified } from "./verifyJob.ts";

export interface NotRun {
  readonly name: string;
  readonly why: string;
}

/** Elements that differ, of all outputs and references. */
export function numDiffering({ results }: Verified): number {
  return results.flatMap((one) => one.outputs).reduce((total, one) => total + one.numDiffering, 0);
}

export function isVerified(verified: Verified): boolean {
  return numDiffering(verified) === 0 && verified.laws.every((law) => law.ok);
}

export function describeVerified({ results, laws }: Verified, notRun: readonly NotRun[]): string {
  const lines: string[] = [];
  for (const reference of new Set(results.map((one) => one.reference))) {
    const mine = results.filter((one) => one.reference === reference);
    const byOutput = new Map<string, OutputReport>();
    for (const report of mine.flatMap((one) => one.outputs)) {
      const before = byOutput.get(report.output);
      byOutput.set(report.output, before === undefined ? report : merge(before, report));
    }
    const seconds = mine.reduce((total, one) => total + one.elapsedMs, 0) / 1e3;
    lines.push(
      `against ${reference}, ${mine.length} ${mine.length === 1 ? "layer" : "layers"}, ${seconds.toFixed(2)} s:`,
    );
    lines.push(...summarize([...byOutput.values()]).map((line) => `  ${line}`));
    lines.push(...new Set(mine.flatMap((one) => one.notCompared.map((what) => `  not compared: ${what}`))));
  }
  for (const { name, why } of notRun) lines.push(`not run: ${name}: ${why}`);
  const broken = laws.filter((law) => !law.ok);
  lines.push(`conservation: ${laws.length - broken.length} of ${laws.length} laws hold`);
  lines.push(...[...new Set(laws.map((law) => law.law))].map((law) => `  ${law}`));
  lines.push(
    ...broken.map(({ layer, law, expected, received, first }) => {
      const where = first && ` (first ${first.where}: expected ${first.expected}, received ${first.received})`;
      return `  BROKEN in layer ${layer}: ${law}: expected ${expected}, received ${received}${where ?? ""}`;
    }),
  );
  return lines.join("\n");
}

/** Outputs line by line; the handle's arrays as one line while they are all equal. */
function summarize(reports: readonly OutputReport[]): string[] {
  const isArray = (report: OutputReport) => report.output.startsWith("handle.") && report.numDiffering === 0;
  const arrays = reports.filter(isArray);
  const numElements = arrays.reduce((total, one) => total + one.numElements, 0).toLocaleString("en-US");
  const handle = arrays.length > 0 ? [`handle (${arrays.length} arrays): ${numElements} elements, 0 bits differ`] : [];
  return [...reports.filter((report) => !isArray(report)).map(describeReport), ...handle];
}
