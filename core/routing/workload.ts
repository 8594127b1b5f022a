import type { Random } from "./random.ts";

/** What a workload is asked for, checked: params hold every parameter of the workload. */
export interface WorkloadRequest {
  readonly seed: number;
  readonly layer: number;
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly numExperts: number;
  readonly topk: number;
  /** [numRanks] tokens of each rank. */
  readonly numTokens: readonly number[];
  readonly params: Readonly<Record<string, number>>;
}

/** Writes the ids of one token to ids[at..at+topk); tokens are asked for once, ascending. */
export type RowWriter = (token: number, ids: Int32Array, at: number) => void;

/** Writes one token's weights, descending, summing to 1, to weights[at..at+topk). */
export type WeightWriter = (random: Random, weights: Float32Array, at: number, topk: number) => void;

export interface PreparedWorkload {
  /** The rows of one rank: a function of seed, layer and rank only. */
  readonly rows: (rank: number, random: Random) => RowWriter;
  /** Default: uniformWeights. */
  readonly weights?: WeightWriter;
}

export interface WorkloadParam {
  readonly description: string;
  readonly default: number;
  readonly min: number;
  readonly max: number;
  /** Whole numbers only. */
  readonly whole?: true;
}

/** A way to make routing: listed by the command line, chosen by name. */
export interface Workload {
  readonly name: string;
  /** One line. */
  readonly description: string;
  /** The law of a token's experts. */
  readonly formula: string;
  readonly params: Readonly<Record<string, WorkloadParam>>;
  /** Makes what all ranks share (tables). Throws InvalidArgument when the request cannot be met. */
  prepare(request: WorkloadRequest): PreparedWorkload;
}

/** Purposes of random streams: (seed, layer, purpose, ...) never gives the same stream twice. */
export const STREAM = { tables: 1, rows: 2, weights: 3, blocks: 4 } as const;

/** Uniform numbers in (0, 1], sorted descending and divided by their sum. */
export function uniformWeights(random: Random, weights: Float32Array, at: number, topk: number): void {
  let sum = 0;
  for (let i = at; i < at + topk; i++) {
    const value = random.float() + 2 ** -32;
    sum += value;
    let place = i;
    while (place > at && weights[place - 1] < value) {
      weights[place] = weights[place - 1];
      place--;
    }
    weights[place] = value;
  }
  for (let i = at; i < at + topk; i++) weights[i] /= sum;
}
