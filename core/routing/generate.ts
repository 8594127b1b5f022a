import { InvalidArgument } from "../errors.ts";
import { checkShape } from "../layout/routing.ts";
import { type Tensor, tensor } from "../tensor.ts";
import { Random } from "./random.ts";
import { STREAM, uniformWeights, type Workload, type WorkloadRequest } from "./workload.ts";
import { realistic } from "./workloads/realistic.ts";
import { hotExpert, hotRank, zipf } from "./workloads/skewed.ts";
import { balanced, drops, groupLimited, onlyRank0, uniform } from "./workloads/uniform.ts";

/** Every workload, by name: what the command line lists. */
export const WORKLOADS: ReadonlyMap<string, Workload> = new Map(
  [realistic, uniform, zipf, hotExpert, hotRank, onlyRank0, groupLimited, balanced, drops].map((w) => [w.name, w]),
);

export interface GenerateOptions {
  /** A name of WORKLOADS. */
  readonly workload: string;
  /** Any whole number; only its low 32 bits count. */
  readonly seed: number;
  readonly numRanks: number;
  /** Tokens of every rank, or one number per rank (0 allowed). */
  readonly numTokens: number | readonly number[];
  readonly numExperts: number;
  readonly topk: number;
  /** Default numRanks (one node). */
  readonly ranksPerNode?: number;
  /** Layers differ in their tables; default 0. */
  readonly layer?: number;
  /** The workload's parameters; absent ones have their defaults. */
  readonly params?: Readonly<Record<string, number>>;
  /** False leaves topkWeights null: half the memory and time. Default true. */
  readonly weights?: boolean;
}

/** Routing of one rank: topkIdx [tokens, topk] with -1 = no choice, topkWeights [tokens, topk] (0 at -1). */
export interface GeneratedRouting {
  readonly topkIdx: Tensor<"i32">;
  readonly topkWeights: Tensor<"fp32"> | null;
}

/**
 * Routing of every rank of a group from a seed. The same options give the same numbers on every machine and in every
 * JavaScript engine; a rank's tokens do not depend on how many tokens the other ranks have (but for `balanced`).
 * Throws InvalidArgument for unknown workloads or parameters and sizes that do not fit.
 */
export function generateRouting(options: GenerateOptions): GeneratedRouting[] {
  const generate = routingGenerator(options);
  return Array.from({ length: options.numRanks }, (_, rank) => generate(rank));
}

/** The same rank by rank, for groups whose routing need not be in memory at once. */
export function routingGenerator(options: GenerateOptions): (rank: number) => GeneratedRouting {
  const workload = findWorkload(options.workload);
  const request = checkRequest(options, workload);
  const prepared = workload.prepare(request);
  const writeWeights = prepared.weights ?? uniformWeights;
  const { seed, layer, topk } = request;
  return (rank) => {
    const numTokens = request.numTokens[rank];
    const topkIdx = tensor("i32", [numTokens, topk]);
    const ids = topkIdx.data;
    const writeRow = prepared.rows(rank, new Random(seed, layer, STREAM.rows, rank));
    for (let token = 0, at = 0; token < numTokens; token++, at += topk) writeRow(token, ids, at);
    if (options.weights === false) return { topkIdx, topkWeights: null };
    const topkWeights = tensor("fp32", [numTokens, topk]);
    const random = new Random(seed, layer, STREAM.weights, rank);
    for (let at = 0; at < ids.length; at += topk) writeWeights(random, topkWeights.data, at, topk);
    for (let i = 0; i < ids.length; i++) if (ids[i] < 0) topkWeights.data[i] = 0;
    return { topkIdx, topkWeights };
  };
}

export function findWorkload(name: string): Workload {
  const workload = WORKLOADS.get(name);
  if (workload !== undefined) return workload;
  throw new InvalidArgument({
    name: "workload",
    expected: [...WORKLOADS.keys()].join(", "),
    received: name,
    remedy: "choose one of these",
  });
}

function checkRequest(options: GenerateOptions, workload: Workload): WorkloadRequest {
  const { seed, numRanks, numExperts, topk, ranksPerNode = numRanks, layer = 0 } = options;
  checkShape({ numRanks, ranksPerNode, numExperts });
  checkWhole("topk", topk, 1, numExperts);
  checkWhole("seed", seed, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  checkWhole("layer", layer, 0, 2 ** 31 - 1);
  const { numTokens: given } = options;
  const numTokens = typeof given === "number" ? Array.from({ length: numRanks }, () => given) : given;
  if (numTokens.length !== numRanks) {
    throw invalid("numTokens", `one number, or one for each of ${numRanks} ranks`, `${numTokens.length} numbers`);
  }
  for (const tokens of numTokens) checkWhole("numTokens", tokens, 0, Math.floor((2 ** 31 - 1) / topk));
  return {
    seed,
    layer,
    numRanks,
    ranksPerNode,
    numExperts,
    topk,
    numTokens,
    params: checkParams(options.params, workload),
  };
}

function checkParams(given: Readonly<Record<string, number>> = {}, workload: Workload): Record<string, number> {
  const params: Record<string, number> = {};
  for (const [name, param] of Object.entries(workload.params)) {
    const value = given[name] ?? param.default;
    if (!(value >= param.min && value <= param.max) || (param.whole && !Number.isInteger(value))) {
      const kind = param.whole ? "a whole number in " : "";
      throw invalid(`${workload.name} ${name}`, `${kind}${param.min}..${param.max} (${param.description})`, `${value}`);
    }
    params[name] = value;
  }
  for (const name of Object.keys(given)) {
    if (name in params) continue;
    throw invalid(`${workload.name} parameter`, Object.keys(params).join(", ") || "none", name);
  }
  return params;
}

function checkWhole(name: string, value: number, min: number, max: number): void {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return;
  throw invalid(name, `a whole number in ${min}..${max}`, `${value}`);
}

function invalid(name: string, expected: string, received: string): InvalidArgument {
  return new InvalidArgument({ name, expected, received, remedy: "change the request" });
}
