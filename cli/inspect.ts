import { Command } from "commander";
import type { RoutingFile } from "../core/routing/import/index.ts";
import { type Inspection, inspectRouting, type LayerInspection } from "../core/routing/inspect.ts";
import { type LintReport, lintRouting } from "../core/routing/lint/index.ts";
import type { LoadStatistics } from "../core/routing/statistics/index.ts";
import { absentProcesses, describeBundles, openBundles, summarizeBundle } from "./bundles.ts";
import { whole } from "./job.ts";
import { lintText } from "./lintText.ts";
import { formatNumber, printResult } from "./output.ts";
import { progressBar } from "./progress.ts";
import { formatsHelp, openRoutingFiles, type RoutingInputOptions, routingInputOptions } from "./routingInput.ts";

interface InspectOptions extends RoutingInputOptions {
  ranks?: number;
  ranksPerNode?: number;
  layer?: number;
  padMultiple: number;
  lint: boolean;
  json?: boolean;
}

const HELP = `
Rank r holds experts [r L, (r + 1) L), L = experts / ranks. Tokens: as the file keeps them by rank, else rank r gets rows
[r T / ranks, (r + 1) T / ranks). Several files: one per rank (loads are summed, tokens become ranks).

--json: layers[] with expertLoads (slots per expert), rankLoads (slots per destination rank), nodeLoads, rankRows (rows
per destination rank: a row is a (token, destination rank) pair), counts and statistics; perLayer and allLayers;
formulas for every number; nanWeights; lint.
`;

export function inspect(): Command {
  const command = new Command("inspect")
    .description(
      "load statistics of a routing or trace file, and what is wrong with it; what failed, from the bundles of a failure",
    )
    .argument("<files...>", "a routing or trace file, one file per rank, or the bundles of a failed operation")
    .option("--ranks <n>", "ranks (default: the file's, else 8 when the experts divide, else 1)", whole(1))
    .option("--ranks-per-node <n>", "ranks of one node (default: all)", whole(1))
    .option("--layer <i>", "one layer only, counted from 0: every expert and rank", whole(0))
    .option(
      "--pad-multiple <m>",
      "pad every expert's rows to a multiple of m, beside the unpadded numbers",
      whole(1),
      1,
    )
    .option("--no-lint", "leave the linter out")
    .option("--json", "everything as JSON");
  return routingInputOptions(command)
    .addHelpText("after", () => HELP + formatsHelp())
    .action(run);
}

async function run(paths: string[], options: InspectOptions): Promise<void> {
  const bundles = await openBundles(paths);
  if (bundles !== null) {
    const result = { bundles: bundles.map(summarizeBundle), absentProcesses: absentProcesses(bundles) };
    return printResult(result, () => describeBundles(bundles), options.json);
  }
  const file = await openRoutingFiles(paths, options);
  const bar = progressBar("inspecting");
  try {
    const numRanks = options.ranks ?? file.numRanks ?? (file.numExperts % 8 === 0 ? 8 : 1);
    const ranksPerNode = options.ranksPerNode ?? numRanks;
    const { padMultiple, layer } = options;
    const progress = (fraction: number) => bar.update(fraction / 2);
    const inspection = await inspectRouting(file, { numRanks, ranksPerNode, padMultiple, layer, progress });
    const lint = options.lint ? await lintRouting(file, (fraction) => bar.update(0.5 + fraction / 2)) : null;
    bar.done();
    const nanWeights = lint?.findings.find((finding) => finding.rule === "nan-weights") ?? null;
    const { format, kind, numLayers, numTokens, topk, numExperts, numExpertsFrom, remarks, name } = file;
    const sizes = { file: name, format, kind, numLayers, numTokens, topk, numExperts, numExpertsFrom };
    const result = { ...sizes, numRanks, ranksPerNode, padMultiple, remarks, ...inspection, nanWeights, lint };
    printResult(result, () => inspectText(file, inspection, lint, options, numRanks, ranksPerNode), options.json);
  } finally {
    bar.done();
    await file.close();
  }
}

function inspectText(
  file: RoutingFile,
  inspection: Inspection,
  lint: LintReport | null,
  options: InspectOptions,
  numRanks: number,
  ranksPerNode: number,
): string {
  const tokens =
    file.kind === "tokens" ? ` x ${formatNumber(file.numTokens)} tokens x top-${file.topk}` : ", loads only";
  const nodes = numRanks / ranksPerNode;
  const { formulas } = inspection;
  const parts = [
    `${file.name}: ${file.format}, ${file.numLayers} layer${file.numLayers === 1 ? "" : "s"}${tokens} of ${file.numExperts} experts ` +
      `(${file.numExpertsFrom}); ${numRanks} ranks on ${nodes} node${nodes > 1 ? "s" : ""}`,
    ...file.remarks.map((remark) => `note: ${remark}`),
    "",
    layersTable(inspection, options.padMultiple > 1),
    "",
    `experts: ${formulas.routing.experts}; ranks: ${formulas.routing.ranks}; rows: ${formulas.routing.rows}`,
    ...(["maxOverMean", "excess", "p99", "gini"] as const).map((name) => `${LABELS[name]} = ${formulas.load[name]}`),
    `dead = ${formulas.load.numZero}; dedup = ${formulas.routing.dedupFactor}`,
    `remote = ${formulas.routing.remoteShare}; off node = ${formulas.routing.remoteNodeShare}`,
  ];
  if (options.padMultiple > 1)
    parts.push(`padding = ${formulas.routing.paddingShare}; padded: ${formulas.routing.padded}`);
  if (options.layer !== undefined) parts.push("", layerText(inspection.layers[0], numRanks, options.padMultiple));
  if (lint) parts.push("", lintText(lint));
  return parts.join("\n");
}

const LABELS = { maxOverMean: "max/mean", excess: "(max-mean)/mean", p99: "p99", gini: "Gini" } as const;

function layersTable({ layers, allLayers }: Inspection, padded: boolean): string {
  const load = ({ maxOverMean, excess, p99, gini, numZero }: LoadStatistics) => [
    number(maxOverMean),
    number(excess),
    formatNumber(p99),
    number(gini),
    formatNumber(numZero),
  ];
  const rank = ({ maxOverMean, gini }: LoadStatistics) => [number(maxOverMean), number(gini)];
  const travel = ({ statistics: s }: LayerInspection) => [
    number(s.rows.maxOverMean),
    number(s.dedupFactor),
    number(s.remoteShare),
    number(s.remoteNodeShare),
    ...(padded ? [number(s.paddingShare), number(s.padded?.ranks.maxOverMean ?? null)] : []),
  ];
  const names = [
    "layer",
    "slots",
    "expert max/mean",
    "(max-mean)/mean",
    "p99",
    "Gini",
    "dead",
    "rank max/mean",
    "Gini",
  ];
  const travelNames = ["rows max/mean", "dedup", "remote", "off node"];
  const header = [...names, ...travelNames, ...(padded ? ["padding", "padded rank max/mean"] : [])];
  const rows = layers.map((layer) => [
    layer.layer,
    formatNumber(layer.statistics.experts.total),
    ...load(layer.statistics.experts),
    ...rank(layer.statistics.ranks),
    ...travel(layer),
  ]);
  const all = ["all", formatNumber(allLayers.experts.total), ...load(allLayers.experts), ...rank(allLayers.ranks)];
  const blank = header.slice(all.length).map(() => "");
  return rightAligned([header, ...rows, ...(layers.length > 1 ? [[...all, ...blank]] : [])]);
}

/** Every rank, and every expert with its load, of one layer. */
function layerText(layer: LayerInspection, numRanks: number, padMultiple: number): string {
  const { expertLoads, rankLoads, rankRows, counts } = layer;
  const local = expertLoads.length / numRanks;
  const padded = (load: number) => Math.ceil(load / padMultiple) * padMultiple;
  const rows = Array.from(rankLoads, (slots, rank) => {
    const loads = Array.from(expertLoads.subarray(rank * local, (rank + 1) * local));
    return [
      `${rank}`,
      counts ? formatNumber(counts.tokensPerRank[rank]) : "",
      counts ? formatNumber(counts.sentRowsPerRank[rank]) : "",
      rankRows ? formatNumber(rankRows[rank]) : "",
      formatNumber(slots),
      ...(padMultiple > 1 ? [formatNumber(loads.reduce((sum, load) => sum + padded(load), 0))] : []),
      loads.length > 16 ? `${loads.slice(0, 16).join(" ")} ...` : loads.join(" "),
    ];
  });
  const header = ["rank", "tokens", "rows sent", "rows received", "slots", ...(padMultiple > 1 ? ["padded"] : [])];
  return rightAligned([[...header, "slots per local expert"], ...rows]);
}

function rightAligned(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padStart(widths[column]))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

function number(value: number | null): string {
  return value === null ? "-" : value.toFixed(3);
}
