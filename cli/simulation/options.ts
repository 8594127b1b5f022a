import { readFile } from "node:fs/promises";
import { InvalidArgument } from "../../core/errors.ts";
import { openRouting } from "../../core/routing/import/index.ts";
import {
  dataPath,
  FITTED,
  fileSource,
  generatedSource,
  type LinkHealth,
  type Machine,
  machineFromJson,
  machinePreset,
  type Parameters,
  parametersFromJson,
  type RoutingSource,
  type RowKind,
  type Scope,
  type Setup,
  withNic,
} from "../../core/topology/index.ts";
import { openFile } from "../files.ts";

/** What commander hands over: texts as given. */
export interface SimulateOptions {
  readonly workload: string;
  readonly param?: readonly string[];
  readonly seed: string;
  readonly tokens: string;
  readonly topk: string;
  readonly experts?: string;
  readonly layers?: string;
  readonly steps: string;
  readonly physicalExperts?: string;
  readonly replicaChoice: "spread" | "nearest";
  readonly balance?: "global" | "hierarchical";
  readonly groups?: string;
  readonly trainSteps?: string;
  readonly machine: string;
  readonly nic?: string;
  readonly ranks?: string;
  readonly ranksPerNode?: string;
  readonly path?: string;
  readonly mode: "throughput" | "low-latency";
  readonly hidden: string;
  readonly dtype: RowKind;
  readonly numSms?: string;
  readonly scope: Scope;
  readonly backward?: boolean;
  readonly slowNic?: readonly string[];
  readonly slowNvlink?: readonly string[];
  readonly dead?: string;
  readonly late?: readonly string[];
  readonly slowLink?: string;
  readonly parameters?: string;
  readonly trace?: string;
  readonly events?: boolean;
  readonly chunks: string;
  readonly whatIf?: boolean | string;
  readonly scaling?: string;
  readonly diagnose?: string;
  readonly deadlock?: string;
  readonly fit?: string;
  readonly rows?: string;
  readonly prior: "independent" | "shipped";
  readonly evaluate?: string;
  readonly output?: string;
  readonly machines?: boolean;
  readonly machineSchema?: boolean;
  readonly paths?: boolean;
  readonly parametersTable?: boolean;
  readonly json?: boolean;
}

export function badOption(name: string, expected: string, received: string, remedy = "correct it"): InvalidArgument {
  return new InvalidArgument({ name: `--${name}`, expected, received, remedy });
}

export function whole(name: string, text: string, min = 1): number {
  const value = Number(text);
  if (text.trim() !== "" && Number.isSafeInteger(value) && value >= min) return value;
  throw badOption(name, `a whole number of at least ${min}`, text);
}

/** "0,2,5-7" -> [0, 2, 5, 6, 7]. */
export function wholeList(name: string, text: string, min = 0): number[] {
  return text.split(",").flatMap((part) => {
    const [first, last = first] = part.split("-").map((side) => whole(name, side, min));
    if (last < first || last - first > 1e6) throw badOption(name, "ascending ranges such as 5-7", part);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

export async function readJson(path: string): Promise<unknown> {
  const source = await openFile(path);
  try {
    return JSON.parse(new TextDecoder().decode(await source.read(0, source.size)));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new InvalidArgument({
      name: "file",
      expected: "JSON",
      received: error.message,
      where: { file: path },
      remedy: "correct the file",
    });
  } finally {
    await source.close();
  }
}

export async function readText(path: string): Promise<string> {
  await (await openFile(path)).close();
  return readFile(path, "utf8");
}

export async function readMachine(options: SimulateOptions): Promise<Machine> {
  const { machine: name, nic } = options;
  const machine = name.endsWith(".json") ? machineFromJson(await readJson(name), name) : machinePreset(name);
  if (nic === undefined) return machine;
  const gbps = Number(nic);
  if (nic.trim() === "" || !(gbps >= 0 && gbps <= 1e5)) throw badOption("nic", "Gb/s per GPU, such as 400", nic);
  return withNic(machine, gbps);
}

export async function readParameters(options: SimulateOptions): Promise<Parameters> {
  if (options.parameters === undefined) return FITTED.parameters;
  return parametersFromJson(await readJson(options.parameters), options.parameters, FITTED.parameters);
}

export interface GroupSize {
  readonly numRanks: number;
  readonly ranksPerNode: number;
}

/** Ranks and domain size. Throws InvalidArgument when they do not divide or the machine's domain is too small. */
export function groupSize(options: SimulateOptions, machine: Machine, fallback: number): GroupSize {
  const numRanks = options.ranks === undefined ? fallback : whole("ranks", options.ranks);
  const domain = machine.ranksPerDomain.value;
  const given = options.ranksPerNode === undefined ? null : whole("ranks-per-node", options.ranksPerNode);
  if (given !== null && given > domain) {
    throw badOption("ranks-per-node", `at most ${domain}, the NVLink domain of ${machine.name}`, `${given}`);
  }
  const ranksPerNode = given ?? Math.min(domain, numRanks);
  if (numRanks % ranksPerNode !== 0) {
    const remedy = "every domain holds equally many ranks: set --ranks-per-node to a divisor of --ranks";
    throw badOption("ranks", `a multiple of ${ranksPerNode} (ranks per node)`, `${numRanks}`, remedy);
  }
  if (numRanks > ranksPerNode && machine.nicGBps.value === 0) {
    throw badOption("ranks", `at most ${ranksPerNode}: ${machine.name} has no network`, `${numRanks}`, "give --nic");
  }
  return { numRanks, ranksPerNode };
}

export async function readSetup(options: SimulateOptions, machine: Machine, group: GroupSize): Promise<Setup> {
  const path = dataPath(options.path ?? (options.mode === "low-latency" ? "fused-a2a-ll" : "fused-a2a"));
  const numSms = options.numSms === undefined ? path.defaultSms : whole("num-sms", options.numSms);
  if (numSms > machine.numSms.value) {
    throw badOption("num-sms", `at most ${machine.numSms.value}, the SMs of ${machine.name}`, `${numSms}`);
  }
  return {
    machine,
    path,
    parameters: await readParameters(options),
    hidden: whole("hidden", options.hidden),
    rowKind: options.dtype,
    numSms,
    scope: options.scope,
    health: readHealth(options, group.numRanks),
  };
}

function readHealth(options: SimulateOptions, numRanks: number): LinkHealth | undefined {
  if (!options.slowNic && !options.slowNvlink) return undefined;
  return {
    nic: options.slowNic && perRank("slow-nic", options.slowNic, numRanks, 1, 0, 1),
    nvlink: options.slowNvlink && perRank("slow-nvlink", options.slowNvlink, numRanks, 1, 0, 1),
  };
}

/** "3=0.5" per rank into an array, `fallback` elsewhere; values above `low`, at most `high`. */
export function perRank(
  name: string,
  texts: readonly string[],
  numRanks: number,
  fallback: number,
  low: number,
  high: number,
): Float64Array {
  const values = new Float64Array(numRanks).fill(fallback);
  for (const text of texts) {
    const [, rank, value] = /^(\d+)=([\d.eE+-]+)$/.exec(text) ?? [];
    const limit = high === Number.POSITIVE_INFINITY ? "" : `..${high}`;
    const isLegal = Number(rank) < numRanks && Number(value) > low && Number(value) <= high;
    if (rank === undefined || !isLegal) {
      throw badOption(name, `rank=value with rank 0..${numRanks - 1} and value above ${low}${limit}`, text);
    }
    values[Number(rank)] = Number(value);
  }
  return values;
}

/** The routing to predict, and how to close it. */
export async function openSource(
  routing: string | undefined,
  options: SimulateOptions,
  machine: Machine,
): Promise<{ source: RoutingSource; group: GroupSize; close: () => Promise<void> }> {
  const numSteps = whole("steps", options.steps);
  const numExperts = options.experts === undefined ? undefined : whole("experts", options.experts);
  if (routing === undefined) {
    const group = groupSize(options, machine, 8);
    const source = generatedSource({ ...generatedOptions(options), ...group });
    return { source, group, close: async () => {} };
  }
  const file = await openRouting(await openFile(routing), { numExperts });
  try {
    const group = groupSize(options, machine, file.numRanks ?? 8);
    const layers = options.layers === undefined ? range(file.numLayers) : wholeList("layers", options.layers);
    const wrong = layers.find((layer) => layer >= file.numLayers);
    if (wrong !== undefined)
      throw badOption("layers", `0..${file.numLayers - 1}`, `${wrong}`, "choose layers the file has");
    const source = fileSource(file, group, { numSteps, layers });
    return { source, group, close: () => file.close() };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Places for experts: --physical-experts, at least one per logical expert. */
export function numPhysicalExperts(options: SimulateOptions, numExperts: number): number {
  if (options.physicalExperts === undefined) return numExperts;
  const places = whole("physical-experts", options.physicalExperts);
  if (places >= numExperts) return places;
  throw badOption("physical-experts", `at least ${numExperts} (experts)`, `${places}`, "every expert needs a place");
}

export function generatedOptions(options: SimulateOptions) {
  return {
    workload: options.workload,
    params: Object.fromEntries((options.param ?? []).map(parameterOf)),
    seed: whole("seed", options.seed, 0),
    numTokens: whole("tokens", options.tokens, 0),
    topk: whole("topk", options.topk),
    numExperts: options.experts === undefined ? 256 : whole("experts", options.experts),
    numLayers: options.layers === undefined ? 1 : whole("layers", options.layers),
    numSteps: whole("steps", options.steps),
  };
}

function parameterOf(text: string): [string, number] {
  const [name, value = ""] = text.split("=");
  if (value === "" || !Number.isFinite(Number(value))) throw badOption("param", "name=number", text);
  return [name, Number(value)];
}

function range(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i);
}
