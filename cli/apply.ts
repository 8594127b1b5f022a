import { Argument, Command } from "commander";
import { BACKEND_NAMES, createBackend } from "../backends/index.ts";
import { encodeHandle } from "../core/handle/encode.ts";
import { openSafetensors, writeSafetensors } from "../core/io/safetensors/index.ts";
import { createFile, openFile } from "./files.ts";
import { OPERATIONS } from "./operations/index.ts";
import { ApplyInput } from "./operations/input.ts";
import { printResult, table } from "./output.ts";

const SETTINGS_HELP = `
Settings are strings in the input's __metadata__: num_ranks, num_experts, and where they apply ranks_per_node,
expert_alignment, num_worst_tokens, pad_multiple, num_permuted_tokens. Tensors are rank{r}.NAME for every rank.
The output carries the settings and the handle's tensors (rank{r}.handle.*), so that a dispatch's output plus the
tensors named below is the next operation's input.

`;

export function apply(): Command {
  return new Command("apply")
    .description("run one operation on a safetensors file")
    .addArgument(new Argument("<op>", "the operation").choices(Object.keys(OPERATIONS)))
    .argument("<input>", "safetensors file with rank{r}.NAME tensors")
    .requiredOption("-o, --output <file>", "safetensors file to write")
    .option("--backend <name>", BACKEND_NAMES.join(", "), "oracle")
    .option("--json", "print what was written as JSON")
    .addHelpText("after", () => SETTINGS_HELP + operationsHelp())
    .action(run);
}

function operationsHelp(): string {
  return Object.entries(OPERATIONS)
    .map(([name, { reads, writes }]) => `${name}\n  reads   ${reads}\n  writes  ${writes}`)
    .join("\n");
}

async function run(
  op: string,
  inputPath: string,
  options: { output: string; backend: string; json?: boolean },
): Promise<void> {
  const file = await openSafetensors(await openFile(inputPath));
  const backend = await createBackend(options.backend);
  try {
    const input = new ApplyInput(file);
    const group = await backend.createGroup({ numRanks: input.numRanks(), ranksPerNode: await input.ranksPerNode() });
    const { tensors, handle } = await OPERATIONS[op].run(group, input);
    const entries = [...tensors].flatMap(([name, values]) =>
      values.map((tensor, rank) => ({ name: `rank${rank}.${name}`, tensor })),
    );
    if (handle !== null) {
      for (const [name, tensor] of encodeHandle(await handle.data())) entries.push({ name, tensor });
    }
    const settings = { num_ranks: `${group.numRanks}`, ranks_per_node: `${group.ranksPerNode}`, ...file.metadata };
    const metadata = { ...settings, ...handleSettings(handle?.meta), format: "fused-a2a-apply", version: "1", op };
    await group.close();
    await writeSafetensors(await createFile(options.output), metadata, entries);
    const summary = entries.map(({ name, tensor }) => ({ name, dtype: tensor.dtype, shape: tensor.shape }));
    printResult(
      { op, backend: backend.name, output: options.output, metadata, tensors: summary },
      () => table([["tensor", "dtype", "shape"], ...summary.map((t) => [t.name, t.dtype, `[${t.shape.join(", ")}]`])]),
      options.json,
    );
  } finally {
    await backend.close();
    await file.close();
  }
}

/** The settings a handle was made with, so that they survive a file without them. */
function handleSettings(
  meta:
    | {
        numExperts: number;
        expertAlignment: number;
        numWorstTokens: number;
        padMultiple: number;
        numPermutedTokens: number | null;
      }
    | undefined,
): Record<string, string> {
  if (meta === undefined) return {};
  return {
    num_experts: `${meta.numExperts}`,
    expert_alignment: `${meta.expertAlignment}`,
    num_worst_tokens: `${meta.numWorstTokens}`,
    pad_multiple: `${meta.padMultiple}`,
    ...(meta.numPermutedTokens === null ? {} : { num_permuted_tokens: `${meta.numPermutedTokens}` }),
  };
}
