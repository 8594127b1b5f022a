import { Command, Option } from "commander";
import { BACKEND_NAMES } from "../backends/index.ts";
import { elementBytes, type RowDType } from "../core/dtype/dtype.ts";
import { InvalidArgument } from "../core/errors.ts";
import { SIZE_RULES, type Sizes } from "../core/functions/limits.ts";
import { type MemoryItem, memoryOfRank } from "../core/functions/memory.ts";
import { checkShape } from "../core/layout/routing.ts";
import { whole } from "./job.ts";
import { formatBytes, printResult, table } from "./output.ts";

interface CheckOptions {
  readonly ranks: number;
  readonly ranksPerNode?: number;
  readonly experts: number;
  readonly topk: number;
  readonly hidden: number;
  readonly tokens: number;
  readonly dtype: RowDType;
  readonly style: "fused" | "hybrid-ep";
  readonly memory?: number;
  readonly json?: boolean;
}

const RULES_HERE =
  "any R >= 1, E divisible by R, 1 <= topk <= E, any hidden >= 1, any number of tokens per rank (0 too)";

export function check(): Command {
  return new Command("check")
    .description("which sizes are legal here and elsewhere, and how much memory each buffer takes per rank")
    .option("--ranks <n>", "ranks of the group", whole(1), 8)
    .option("--ranks-per-node <n>", "ranks of one NVLink domain (default: all)", whole(1))
    .option("--experts <n>", "experts", whole(1), 256)
    .option("--topk <n>", "slots per token", whole(1), 8)
    .option("--hidden <n>", "columns of a row", whole(1), 7168)
    .option("--tokens <n>", "tokens per rank", whole(0), 4096)
    .addOption(
      new Option("--dtype <d>", "dtype of the rows").choices(["bf16", "fp16", "fp32", "fp8e4m3"]).default("bf16"),
    )
    .addOption(new Option("--style <s>", "which buffers").choices(["fused", "hybrid-ep"]).default("fused"))
    .option("--memory <bytes>", "budget per rank: says which knob to lower and by how much", whole(1))
    .option("--json", "print the report as JSON")
    .addHelpText("after", "\nExit code 1: illegal here, or over the memory budget.")
    .action(runCheck);
}

function runCheck(options: CheckOptions): void {
  const sizes: Sizes = {
    numRanks: options.ranks,
    ranksPerNode: options.ranksPerNode ?? options.ranks,
    numExperts: options.experts,
    topk: options.topk,
    hidden: options.hidden,
    numTokens: options.tokens,
    fp8: elementBytes(options.dtype) === 1,
  };
  const illegal = problemHere(sizes);
  const here = BACKEND_NAMES.map((backend) => ({ backend, legal: illegal === null, rule: illegal ?? RULES_HERE }));
  const elsewhere = SIZE_RULES.map((rule) => {
    const nearest = illegal === null ? rule.check(sizes) : null;
    return { system: rule.system, legal: nearest === null, rule: rule.rule, source: rule.source, nearest };
  });
  const memory = illegal === null ? memoryOfRank(sizes, options.style, elementBytes(options.dtype)) : [];
  const needed = memory.filter((item) => !item.name.includes("worst")).reduce((total, item) => total + item.bytes, 0);
  const advice = options.memory === undefined || illegal !== null ? null : advise(sizes, options, needed);
  printResult(
    { sizes, here, elsewhere, memory, neededBytes: needed, advice },
    () => describe(illegal, elsewhere, memory, needed, advice),
    options.json,
  );
  if (illegal !== null || (options.memory !== undefined && needed > options.memory)) process.exitCode = 1;
}

function problemHere(sizes: Sizes): string | null {
  try {
    checkShape(sizes);
  } catch (error) {
    if (error instanceof InvalidArgument) return error.message;
    throw error;
  }
  return sizes.topk > sizes.numExperts
    ? `topk: expected 1..${sizes.numExperts} (numExperts), received ${sizes.topk}; lower it to ${sizes.numExperts}`
    : null;
}

/** All terms are linear in tokens per rank but for the fused buffers, so the answer is found by bisection, not guessed. */
function advise(sizes: Sizes, options: CheckOptions, needed: number): string {
  const budget = options.memory ?? 0;
  if (needed <= budget) return `fits: ${formatBytes(needed)} of ${formatBytes(budget)}`;
  const bytesFor = (numTokens: number) =>
    memoryOfRank({ ...sizes, numTokens }, options.style, elementBytes(options.dtype))
      .filter((item) => !item.name.includes("worst"))
      .reduce((total, item) => total + item.bytes, 0);
  let fits = 0;
  let over = sizes.numTokens;
  while (over - fits > 1) {
    const middle = Math.floor((fits + over) / 2);
    if (bytesFor(middle) <= budget) fits = middle;
    else over = middle;
  }
  const by = formatBytes(needed - budget);
  return bytesFor(fits) <= budget
    ? `over by ${by}: lower --tokens from ${sizes.numTokens} to ${fits}`
    : `over by ${by}: even 1 token needs ${formatBytes(bytesFor(1))} of buffers; lower --hidden or --ranks`;
}

function describe(
  illegal: string | null,
  elsewhere: readonly { system: string; legal: boolean; rule: string; source: string; nearest: string | null }[],
  memory: readonly MemoryItem[],
  needed: number,
  advice: string | null,
): string {
  if (illegal !== null) return `illegal on every backend: ${illegal}`;
  const systems = elsewhere.map((one) => [
    one.system,
    one.legal ? "legal" : `refused; nearest ${one.nearest}`,
    one.rule,
    one.source,
  ]);
  const lines = [
    `legal on every backend here: ${RULES_HERE}`,
    "",
    table([["elsewhere", "these sizes", "rule", "source"], ...systems]),
    "",
    table([
      ["per rank", "bytes", "", "formula"],
      ...memory.map((item) => [item.name, item.bytes, formatBytes(item.bytes), item.formula]),
    ]),
    `needed with uniform routing: ${formatBytes(needed)} (worst routing not counted)`,
  ];
  if (advice !== null) lines.push(advice);
  return lines.join("\n");
}
