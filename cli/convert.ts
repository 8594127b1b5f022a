import { Command } from "commander";
import { InvalidArgument } from "../core/errors.ts";
import { hasWeights, writeRouting, writeRoutingNpy } from "../core/routing/export.ts";
import type { RoutingFile } from "../core/routing/import/index.ts";
import { type LintReport, lintRouting } from "../core/routing/lint/index.ts";
import { viewRouting } from "../core/routing/view.ts";
import { createFile } from "./files.ts";
import { whole } from "./job.ts";
import { lintText } from "./lintText.ts";
import { formatNumber, printResult } from "./output.ts";
import { progressBar } from "./progress.ts";
import { formatsHelp, openRoutingFiles, type RoutingInputOptions, routingInputOptions } from "./routingInput.ts";

interface ConvertOptions extends RoutingInputOptions {
  output: string;
  cutHead?: boolean;
  layer?: number;
  strict?: boolean;
  json?: boolean;
}

const HELP = `
OUT.safetensors: topk_idx (int16, or int32 above 32767 experts) and topk_weights (float32), [layers, tokens, topk], as
rank{r}.topk_idx when the input knows ranks; loads become expert_counts [layers, experts].
OUT.npy: ids as int32 [layers, tokens, topk]; the weights, if any, go to OUT.weights.npy.
The linter's report is printed; with --strict nothing is written, and the exit code is 1, while rows are tainted.
`;

export function convert(): Command {
  const command = new Command("convert")
    .description("import a routing dump of another tool, lint it, and write it as a routing file")
    .argument("<files...>", "a routing file, or one file per rank")
    .requiredOption("-o, --output <file>", "what to write: .safetensors or .npy")
    .option("--cut-head", "leave out the runs of identical rows at the head (a profile run)")
    .option("--layer <i>", "one layer only, counted from 0", whole(0))
    .option("--strict", "write only what the linter does not call tainted")
    .option("--json", "the report as JSON");
  return routingInputOptions(command)
    .addHelpText("after", () => HELP + formatsHelp())
    .action(run);
}

async function run(paths: string[], options: ConvertOptions): Promise<void> {
  const isNpy = options.output.endsWith(".npy");
  if (!isNpy && !options.output.endsWith(".safetensors")) {
    throw new InvalidArgument({
      name: "output",
      expected: "a name ending in .safetensors or .npy",
      received: options.output,
      remedy: "choose another -o",
    });
  }
  const file = await openRoutingFiles(paths, options);
  const bar = progressBar("linting");
  try {
    const whole = viewRouting(file, { layer: options.layer });
    let lint = await lintRouting(whole, bar.update);
    const numCutRows = options.cutHead ? lint.numHeadRows : 0;
    const kept = numCutRows > 0 ? viewRouting(file, { layer: options.layer, cutRows: numCutRows }) : whole;
    if (numCutRows > 0) lint = await lintRouting(kept, bar.update);
    bar.done();
    const isRefused = options.strict === true && lint.numTainted > 0;
    const outputs = isRefused ? [] : await writeOutputs(kept, options.output, isNpy, lint, numCutRows);
    const { name, format, kind, numLayers, numTokens, topk, numExperts, numExpertsFrom, numRanks, remarks } = kept;
    const sizes = {
      file: name,
      format,
      kind,
      numLayers,
      numTokens,
      topk,
      numExperts,
      numExpertsFrom,
      numRanks,
      remarks,
    };
    const text = () => convertText(kept, outputs, lint, numCutRows);
    printResult({ ...sizes, numCutRows, outputs, lint }, text, options.json);
    if (isRefused) process.exitCode = 1;
  } finally {
    bar.done();
    await file.close();
  }
}

async function writeOutputs(
  file: RoutingFile,
  output: string,
  isNpy: boolean,
  lint: LintReport,
  numCutRows: number,
): Promise<string[]> {
  if (!isNpy) {
    const metadata = { cut_head_rows: `${numCutRows}`, tainted_rows: `${lint.numTainted}` };
    await writeRouting(await createFile(output), file, metadata);
    return [output];
  }
  await writeRoutingNpy(await createFile(output), file, "ids");
  if (!(await hasWeights(file))) return [output];
  const weightsOutput = output.replace(/\.npy$/, ".weights.npy");
  await writeRoutingNpy(await createFile(weightsOutput), file, "weights");
  return [output, weightsOutput];
}

function convertText(file: RoutingFile, outputs: readonly string[], lint: LintReport, numCutRows: number): string {
  const size = file.kind === "tokens" ? `${formatNumber(file.numTokens)} tokens x top-${file.topk} of ` : "loads of ";
  return [
    `${file.name}: ${file.format}, ${file.numLayers} layer${file.numLayers === 1 ? "" : "s"}, ${size}${file.numExperts} experts (${file.numExpertsFrom})`,
    ...file.remarks.map((remark) => `note: ${remark}`),
    ...(numCutRows > 0 ? [`cut ${formatNumber(numCutRows)} rows at the head of every layer`] : []),
    lintText(lint),
    outputs.length > 0 ? `wrote ${outputs.join(", ")}` : "wrote nothing: rows are tainted (--strict)",
  ].join("\n");
}
