import { Command, Option } from "commander";
import { WORKLOADS } from "../core/routing/generate.ts";
import { DATA_PATHS, PHASES, ROW_KINDS, SCENARIOS, SCOPES } from "../core/topology/index.ts";
import { runFit } from "./simulation/fit.ts";
import type { SimulateOptions } from "./simulation/options.ts";
import { runPredict } from "./simulation/predict.ts";
import { runDeadlock, runDiagnose, runLists, runScaling, runWhatIf } from "./simulation/questions.ts";

const EXAMPLES = `
Times are predictions of the cost model (docs/cost-model.md), with the parameters of the shipped fit unless --parameters
names others. Bytes are counted exactly from the routing. GB/s are 10^9 bytes per second; NIC speeds are Gb/s per GPU.

  fused-a2a simulate routing.safetensors --machine h100 --ranks 8
  fused-a2a simulate --workload uniform --machine h800 --ranks 32 --path deepep-v1 --dtype fp8
  fused-a2a simulate routing.safetensors --ranks 8 --balance global --physical-experts 40
  fused-a2a simulate --machine h100 --ranks 16 --what-if
  fused-a2a simulate --machine h100 --scaling 8..2048
  fused-a2a simulate --fit table.csv --rows 1-8 --output parameters.json
  fused-a2a simulate --diagnose trace.safetensors
  fused-a2a simulate --deadlock out-of-order --ranks 8
`;

export function simulate(): Command {
  const command = new Command("simulate")
    .description(
      "predict dispatch and combine: bytes per link, time per phase, the bottleneck, for a routing and a machine",
    )
    .argument("[routing]", "routing file of any format that inspect reads; without one, --workload generates")
    .option("--json", "print the result as JSON");
  for (const option of [...routingOptions(), ...machineOptions(), ...questionOptions()]) command.addOption(option);
  return command.addHelpText("after", EXAMPLES).action(run);
}

async function run(routing: string | undefined, options: SimulateOptions): Promise<void> {
  if (options.machines || options.paths || options.machineSchema || options.parametersTable) return runLists(options);
  if (options.fit !== undefined || options.evaluate !== undefined) return runFit(options);
  if (options.deadlock !== undefined) return runDeadlock(options);
  if (options.diagnose !== undefined) return runDiagnose(options);
  if (options.scaling !== undefined) return runScaling(options);
  if (options.whatIf) return runWhatIf(routing, options);
  return runPredict(routing, options);
}

function grouped(name: string, options: readonly Option[]): Option[] {
  return options.map((option) => option.helpGroup(name));
}

function routingOptions(): Option[] {
  return grouped("Routing:", [
    new Option("--workload <name>", "generator").choices([...WORKLOADS.keys()]).default("uniform"),
    new Option("--param <name=value...>", "parameters of the generator"),
    new Option("--seed <n>", "seed of the generator").default("1"),
    new Option("--tokens <n>", "tokens per rank, generated").default("4096"),
    new Option("--topk <k>", "experts per token, generated").default("8"),
    new Option("--experts <n>", "logical experts (default: what the file says, or 256)"),
    new Option("--layers <list>", "how many to generate, or which of a file: 3 or 0,2,5-7"),
    new Option("--steps <n>", "steps to generate, or equal runs of tokens that a file is cut into").default("1"),
    new Option("--physical-experts <n>", "experts with redundant replicas (default: the logical ones)"),
    new Option("--replica-choice <rule>", "which replica a token uses")
      .choices(["spread", "nearest"])
      .default("spread"),
    new Option("--balance <mode>", "balanced placement, before and after").choices(["global", "hierarchical"]),
    new Option("--groups <n>", "expert groups that stay on one node (hierarchical; default: nodes)"),
    new Option("--train-steps <n>", "place from the load of the first n steps, predict the others"),
  ]);
}

function machineOptions(): Option[] {
  return grouped("Machine:", [
    new Option("--machine <name|file.json>", "a preset (--machines) or a file (--machine-schema)").default("h200"),
    new Option("--nic <Gb/s>", "network per GPU instead of the machine's"),
    new Option("--ranks <n>", "ranks of the group (default: the file's, or 8)"),
    new Option("--ranks-per-node <n>", "ranks of one NVLink domain (default: the machine's, at most --ranks)"),
    new Option("--path <name>", "data path").choices(DATA_PATHS.map((path) => path.name)),
    new Option("--mode <mode>", "when no --path is given").choices(["throughput", "low-latency"]).default("throughput"),
    new Option("--hidden <n>", "columns of a row").default("7168"),
    new Option("--dtype <dtype>", "of dispatched rows; combined ones and gradients are bf16 where this is fp8")
      .choices([...ROW_KINDS])
      .default("bf16"),
    new Option("--num-sms <n>", "SMs of the kernels (default: the path's)"),
    new Option("--scope <scope>", "what a time contains: main kernel, all kernels, whole call")
      .choices([...SCOPES])
      .default("call"),
    new Option("--backward", `predict ${PHASES.slice(2).join(" and ")} too`),
    new Option("--slow-nic <rank=fraction...>", "NICs at a fraction of their speed"),
    new Option("--slow-nvlink <rank=fraction...>", "NVLinks at a fraction of their speed"),
    new Option("--dead <ranks>", "ranks that are gone: what the others lose, and what is left to move"),
    new Option("--late <rank=us...>", "ranks that enter late (with --events)"),
    new Option("--slow-link <src-dst=fraction>", "one directed pair at a fraction of its speed (with --events)"),
    new Option("--parameters <file.json>", "parameters of a fit instead of the shipped ones"),
  ]);
}

function questionOptions(): Option[] {
  return grouped("Questions:", [
    new Option("--trace <file>", "write a trace that `view` opens"),
    new Option("--events", "simulate chunk by chunk: late ranks, slow links, the wait matrix"),
    new Option("--chunks <n>", "chunks per (source, node) stream of --events").default("8"),
    new Option("--what-if [rank]", "one culprit at a time: how much longer, and what the waits look like"),
    new Option("--scaling <sizes>", "ranks to compare: 8..2048 (doubling) or 8,16,72"),
    new Option("--diagnose <trace>", "say in words what the wait matrices of a trace mean"),
    new Option("--deadlock <scenario>", "run a group into a hang and explain it").choices(SCENARIOS.map((s) => s.name)),
    new Option("--fit <table.csv>", "fit the parameters to published rows; `published` is the shipped table"),
    new Option(
      "--rows <list>",
      "rows of the table to fit, 1 = first: 1-8,12 (default: its `use` column, else odd rows)",
    ),
    new Option(
      "--prior <what>",
      "what --fit starts from: data sheets and microbenchmarks, or the shipped fit (few rows of your own cluster)",
    )
      .choices(["independent", "shipped"])
      .default("independent"),
    new Option("--evaluate <table.csv>", "predict published rows without fitting"),
    new Option("--output <file>", "where --fit writes the parameters (.json, or .ts for the shipped preset)"),
    new Option("--machines", "list the machines, with the source of every number"),
    new Option("--machine-schema", "print the JSON Schema of machine files"),
    new Option("--paths", "list the data paths"),
    new Option("--parameters-table", "list the parameters: unit, meaning, prior, value in use"),
  ]);
}
