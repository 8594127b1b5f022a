/** What the bundles of a failure replay: one job per operation and settings that their processes were in. */
import type { Command } from "commander";
import type { BundleHeader, BundleRouting } from "../core/bundle/format.ts";
import { InvalidArgument } from "../core/errors.ts";
import { bytesOf, type Tensor, tensor } from "../core/tensor.ts";
import type { BundleFile } from "./bundles.ts";
import { evenWeights, type Job, type JobLayer, type JobOptions, seededRows } from "./job.ts";

export interface Replay {
  readonly bundles: readonly BundleFile[];
  readonly job: Job;
  /** Ranks whose routing is in no bundle: they hold no tokens. */
  readonly unknownRanks: readonly number[];
  /** Routing of one rank that two processes had differently. */
  readonly conflicts: readonly string[];
}

/** Processes that were to do the same; those of a mismatch, or an operation apart, are replayed one by one. */
export function replaysOf(bundles: readonly BundleFile[], seed: number): Replay[] {
  const groups = new Map<string, BundleFile[]>();
  for (const bundle of bundles) {
    const { sequence, operation, style, dtype, hidden, shape, settings, rows } = bundle.header;
    const key = JSON.stringify([sequence, operation, style, dtype, hidden, shape, settings, rows]);
    groups.set(key, [...(groups.get(key) ?? []), bundle]);
  }
  return [...groups.values()].map((group) => replayOf(group, seed));
}

function replayOf(bundles: readonly BundleFile[], seed: number): Replay {
  const [{ header }] = bundles;
  const { shape, settings, style, hidden, rows } = header;
  const { routing, conflicts } = mergeRouting(bundles);
  if (routing.size === 0) {
    const why = bundles.flatMap((one) => one.header.missing).join("; ");
    throw new InvalidArgument({
      name: "routing",
      expected: "the routing of at least one rank",
      received: `none in ${bundles.map(({ file }) => file).join(", ")}${why && ` (${why})`}`,
      remedy: "add the bundle of another process",
    });
  }
  const all = Array.from({ length: shape.numRanks }, (_, rank) => rank);
  const widths = [...routing.values()].map(({ topkIdx }) => topkIdx.shape[1]);
  const topk = Math.max(...bundles.map((one) => one.header.topk), ...widths);
  const parts = all.map((rank) => widen(routing.get(rank), topk));
  const layer: JobLayer = {
    index: rows?.layer ?? 0,
    name: `${rows?.layer ?? 0}`,
    topkIdx: parts.map(({ topkIdx }) => topkIdx),
    topkWeights: parts.map(({ topkIdx, topkWeights }) => topkWeights ?? evenWeights(topkIdx)),
  };
  const dtype = rows?.dtype ?? (header.dtype === "u8" ? "fp8e4m3" : header.dtype);
  const processes = bundles.map((one) => one.header.process).join(", ");
  const job: Job = {
    source: `${header.operation} ${header.sequence} of process ${processes}${header.source && ` (${header.source})`}`,
    shape,
    topk,
    hidden,
    dtype,
    style,
    settings: { ...settings, numExperts: shape.numExperts },
    maxTokens: parts.reduce((total, { topkIdx }) => total + topkIdx.shape[0], 0),
    layers: [layer.index],
    layer: async () => layer,
    rows: () => seededRows(layer, dtype, hidden, rows?.seed ?? seed),
    notes: () => ({ source: header.source }),
    close: async () => {},
  };
  return { bundles, job, unknownRanks: all.filter((rank) => !routing.has(rank)), conflicts };
}

/** A rank's own process knows its routing best; what others think it is must be the same. */
function mergeRouting(bundles: readonly BundleFile[]) {
  const routing = new Map<number, BundleRouting>();
  const conflicts: string[] = [];
  const ranks = new Set(bundles.flatMap((one) => [...one.routing.keys()]));
  for (const rank of ranks) {
    const told = bundles.filter((one) => one.routing.has(rank));
    const own = told.find(({ header }) => header.localRanks.includes(rank)) ?? told[0];
    const mine = own.routing.get(rank) as BundleRouting;
    routing.set(rank, mine);
    for (const other of told) {
      const theirs = other.routing.get(rank) as BundleRouting;
      const where = firstDifference(mine, theirs);
      if (where === null) continue;
      conflicts.push(
        `routing of rank ${rank} differs: process ${own.header.process} and process ${other.header.process}, first at ${where}`,
      );
    }
  }
  return { routing, conflicts };
}

function firstDifference(a: BundleRouting, b: BundleRouting): string | null {
  if (a === b) return null;
  const shapes = [a, b].map(({ topkIdx }) => `[${topkIdx.shape.join(", ")}]`);
  if (shapes[0] !== shapes[1]) return `its shape: ${shapes.join(" and ")}`;
  const topk = a.topkIdx.shape[1];
  const place = (i: number) => `token ${Math.floor(i / topk)}, slot ${i % topk}`;
  const ids = a.topkIdx.data.findIndex((id, i) => id !== b.topkIdx.data[i]);
  if (ids >= 0) return `${place(ids)}: expert ${a.topkIdx.data[ids]} and ${b.topkIdx.data[ids]}`;
  if (a.topkWeights === null || b.topkWeights === null) {
    return a.topkWeights === b.topkWeights ? null : "its weights: given and none";
  }
  const [mine, theirs] = [a.topkWeights, b.topkWeights].map(bits);
  const weight = mine.findIndex((value, i) => value !== theirs[i]);
  if (weight < 0) return null;
  return `${place(weight)}: weight ${a.topkWeights.data[weight]} and ${b.topkWeights.data[weight]}`;
}

function bits(weights: Tensor<"fp32">): Uint32Array {
  const { buffer, byteOffset, byteLength } = bytesOf(weights);
  return new Uint32Array(buffer, byteOffset, byteLength / 4);
}

/** -1 fills up to the group's topk; a rank that nobody knows has no tokens. */
function widen(routing: BundleRouting | undefined, topk: number): BundleRouting {
  if (routing === undefined) return { topkIdx: tensor("i32", [0, topk]), topkWeights: tensor("fp32", [0, topk]) };
  const [numTokens, width] = routing.topkIdx.shape;
  if (width === topk) return routing;
  const topkIdx = tensor("i32", [numTokens, topk], new Int32Array(numTokens * topk).fill(-1));
  const topkWeights = routing.topkWeights && tensor("fp32", [numTokens, topk]);
  for (let token = 0; token < numTokens; token++) {
    const [from, to] = [token * width, token * topk];
    topkIdx.data.set(routing.topkIdx.data.subarray(from, from + width), to);
    if (routing.topkWeights) topkWeights?.data.set(routing.topkWeights.data.subarray(from, from + width), to);
  }
  return { topkIdx, topkWeights };
}

/** Options that say how to replay, not what. */
const FREE = ["backend", "against", "trace", "json", "workers"];

/** What a bundle says itself, by the name of the option; undefined = the option has no place in a replay. */
function statedBy({ shape, settings, style, hidden, topk, dtype, rows }: BundleHeader): Record<string, unknown> {
  return {
    ...shape,
    ranks: shape.numRanks,
    experts: shape.numExperts,
    ...settings,
    style,
    hidden,
    topk,
    dtype: rows?.dtype ?? dtype,
    seed: rows?.seed,
    layer: rows?.layer,
  };
}

/** Throws InvalidArgument for an option on the command line that says something else than a bundle does. */
export function refuseContradictions(command: Command, bundles: readonly BundleFile[]): void {
  const options = command.opts<JobOptions & Record<string, unknown>>();
  for (const { long = "" } of command.options) {
    const name = long.replace(/^--/, "").replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());
    if (command.getOptionValueSource(name) !== "cli" || FREE.includes(name)) continue;
    for (const { header, file } of bundles) {
      const stated = statedBy(header);
      // Rows without a seed are nobody's: any will do.
      if (stated[name] === options[name] || (name === "seed" && header.rows === null)) continue;
      throw new InvalidArgument({
        name: long,
        expected: stated[name] === undefined ? "no such option with a bundle" : `${stated[name]} as ${file} says`,
        received: `${options[name]}`,
        remedy: "leave it out: the bundle says what is replayed",
      });
    }
  }
}
