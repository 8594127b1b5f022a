import { InvalidArgument } from "../errors.ts";
import type { Family, Machine } from "./machine.ts";

interface ParameterSpec {
  readonly unit: string;
  readonly meaning: string;
  /** What is known before any row is read, and how well: a factor of e^(spread) either way is one standard deviation. */
  readonly prior: number;
  readonly spread: number;
  readonly priorSource: string;
  readonly range: readonly [number, number];
  /** False: a constant of the model, measured elsewhere, that no fit moves. */
  readonly fitted: boolean;
}

const p = (
  unit: string,
  meaning: string,
  prior: number,
  spread: number,
  range: readonly [number, number],
  priorSource: string,
  fitted = true,
): ParameterSpec => ({ unit, meaning, prior, spread, priorSource, range, fitted });

/** Every parameter of the model. All are shared by all machines of a family and all libraries of a design. */
export const PARAMETERS = {
  nvlinkEfficiencyHopper: p(
    "fraction",
    "all-to-all payload / nominal NVLink, Hopper",
    0.76,
    0.2,
    [0.3, 0.95],
    "the most that SM stores reach: 343 of 450 (arXiv 2511.13940)",
  ),
  nvlinkEfficiencyBlackwell: p(
    "fraction",
    "all-to-all payload / nominal NVLink, Blackwell",
    0.7,
    0.2,
    [0.3, 0.95],
    "the most that SM stores reach: 628 of 900 (arXiv 2511.13940)",
  ),
  nvlinkRankLoss: p(
    "fraction",
    "of NVLink efficiency lost per doubling of the domain's ranks beyond 8: more streams meet in the switches",
    0.02,
    0.8,
    [0.0001, 0.3],
    "none is seen up to 8; small beyond",
  ),
  nicEfficiency: p(
    "fraction",
    "payload / nominal NIC",
    0.96,
    0.1,
    [0.5, 1],
    "NCCL: 48 to 49 of 50 GB/s (nccl-tests issue 267)",
  ),
  hbmEfficiency: p(
    "fraction",
    "streaming copy / nominal HBM",
    0.9,
    0,
    [0.5, 1],
    "4.3 of 4.8 TB/s (H200), 3.0 of 3.35 (H100)",
    false,
  ),
  loadStoreRowNs: p(
    "ns",
    "SM time per row, load-store engine, Hopper",
    100,
    0.8,
    [10, 2000],
    "a few memory latencies, hidden by many warps",
  ),
  loadStoreBytePs: p(
    "ps/B",
    "SM time per byte, load-store engine, Hopper",
    80,
    0.8,
    [1, 200],
    "3.2 to 5.1 times the SMs of bulk copies (arXiv 2511.13940)",
  ),
  bulkRowNs: p("ns", "SM time per row, bulk-copy engine, Hopper", 100, 0.8, [5, 1000], "a few memory latencies"),
  bulkBytePs: p(
    "ps/B",
    "SM time per byte, bulk-copy engine, Hopper",
    20,
    0.8,
    [1, 100],
    "one SM writes 50 GB/s (the rule by which DeepEP V2 chooses SMs)",
  ),
  ringReduceFactor: p(
    "ratio",
    "SM time of combine / dispatch where ring queues are summed by the SMs (load-store)",
    1,
    0.3,
    [0.5, 3],
    "no difference",
  ),
  smOverlapLoss: p(
    "fraction",
    "of the shorter of (SM time, link time) that shows",
    0.1,
    0.8,
    [0.001, 1],
    "a pipeline of about ten stages to fill",
  ),
  chunkedHopLoss: p(
    "fraction",
    "of the shorter of (network hop, NVLink hop) that shows in chunked pipelines",
    0.1,
    0.8,
    [0.001, 1],
    "a pipeline of about ten stages to fill",
  ),
  kernelStartUs: p(
    "us",
    "launch, entry and exit barrier of a throughput kernel",
    6.5,
    0,
    [0, 50],
    "barrier kernel of NCCL's LSA all-to-all samples: 6.5 to 7.0 us",
    false,
  ),
  lowLatencyStartUs: p(
    "us",
    "start-up of low-latency kernels",
    20,
    0.8,
    [1, 200],
    "all-to-all of 16 B: 4 to 13 us on one host (NCCL samples), and a network round trip",
  ),
  callUs: p(
    "us",
    "a whole call beyond its kernels: launches, counts, host",
    100,
    0.8,
    [1, 500],
    "launching from one thread: 80 to 120 us",
  ),
  networkCallUs: p(
    "us",
    "the same, in addition, when the group spans nodes",
    100,
    0.8,
    [1, 1000],
    "a barrier across hosts and its launches",
  ),
  scanNs: p(
    "ns",
    "SM time per (token, rank) spent scanning the routing map for rows with scales (one wide domain)",
    50,
    0.8,
    [1, 500],
    "about 100 cycles",
  ),
  blackwellSmSpeed: p("ratio", "one Blackwell SM / one Hopper SM", 1, 0.2, [0.7, 2], "the same clock"),
} as const satisfies Record<string, ParameterSpec>;

export type ParameterName = keyof typeof PARAMETERS;
export type Parameters = Readonly<Record<ParameterName, number>>;
export const PARAMETER_NAMES = Object.keys(PARAMETERS) as ParameterName[];
export const FITTED_NAMES = PARAMETER_NAMES.filter((name) => PARAMETERS[name].fitted);

export function priorParameters(): Parameters {
  return Object.fromEntries(PARAMETER_NAMES.map((name) => [name, PARAMETERS[name].prior])) as Parameters;
}

/** Parameters from parsed JSON (a fit's output): unnamed ones keep `base`. Throws InvalidArgument by name. */
export function parametersFromJson(json: unknown, file: string, base: Parameters): Parameters {
  const given = (json as { parameters?: unknown } | null)?.parameters ?? json;
  const bad = (name: string, expected: string, received: unknown) =>
    new InvalidArgument({
      name,
      expected,
      received: JSON.stringify(received) ?? "nothing",
      where: { file },
      remedy: "write the file with `fused-a2a simulate --fit`",
    });
  if (given === null || typeof given !== "object" || Array.isArray(given)) throw bad("parameters", "an object", given);
  const values: Record<string, number> = { ...base };
  for (const [name, value] of Object.entries(given)) {
    if (!(name in PARAMETERS)) throw bad("parameters", PARAMETER_NAMES.join(", "), name);
    const [low, high] = PARAMETERS[name as ParameterName].range;
    if (typeof value !== "number" || !(value >= low && value <= high)) throw bad(name, `${low}..${high}`, value);
    values[name] = value;
  }
  return values as Parameters;
}

/** What a machine's links achieve, bytes per microsecond, and the relative speed of its SMs. */
export interface Achieved {
  readonly nvlinkBytesPerUs: number;
  readonly nicBytesPerUs: number;
  readonly hbmBytesPerUs: number;
  readonly smSpeed: number;
}

/** `ranksPerNode`: ranks of the group in one NVLink domain. */
export function achieved(machine: Machine, parameters: Parameters, ranksPerNode: number): Achieved {
  const fittedNvlink: Record<Family, number> = {
    hopper: parameters.nvlinkEfficiencyHopper,
    blackwell: parameters.nvlinkEfficiencyBlackwell,
    other: parameters.nvlinkEfficiencyHopper,
  };
  const meeting = 1 - parameters.nvlinkRankLoss * Math.max(0, Math.log2(ranksPerNode / 8));
  const nvlink = machine.nvlinkEfficiency?.value ?? fittedNvlink[machine.family] * meeting;
  const nic = machine.nicEfficiency?.value ?? parameters.nicEfficiency;
  return {
    nvlinkBytesPerUs: nvlink * machine.nvlinkGBps.value * 1e3,
    nicBytesPerUs: nic * machine.nicGBps.value * 1e3,
    hbmBytesPerUs: parameters.hbmEfficiency * machine.hbmGBps.value * 1e3,
    smSpeed: machine.smSpeed?.value ?? (machine.family === "blackwell" ? parameters.blackwellSmSpeed : 1),
  };
}
