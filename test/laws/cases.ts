/** Random small cases: routings of uneven and empty ranks, dropped slots, settings; data that no sum can round. */
import fc from "fast-check";
import type { DispatchRequest, DispatchSettings, Group, RoutingInput } from "../../core/backend.ts";
import { bf16FromNumber, bf16ToNumber } from "../../core/dtype/bf16.ts";
import type { DType, SumDType } from "../../core/dtype/dtype.ts";
import { fp16FromNumber, fp16ToNumber } from "../../core/dtype/fp16.ts";
import type { Handle, HandleKind } from "../../core/handle/handle.ts";
import { type AnyTensor, type Tensor, tensor, toHost } from "../../core/tensor.ts";
import { random, rows as rowsOf } from "../conformance/data.ts";

export interface LawCase {
  readonly kind: HandleKind;
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly numExperts: number;
  readonly topk: number;
  readonly hidden: number;
  readonly dtype: SumDType;
  /** Per rank, per token: experts, -1 = none. */
  readonly topkIdx: readonly (readonly (readonly number[])[])[];
  /** Row budget in multiples of `multiple`; 0 = exact. */
  readonly budget: number;
  readonly multiple: number;
  readonly seed: number;
}

export const lawCase: fc.Arbitrary<LawCase> = fc
  .record({
    kind: fc.constantFrom<HandleKind>("fused", "hybrid-ep"),
    group: fc.constantFrom([1, 1], [2, 2], [2, 1], [3, 3], [4, 4], [4, 2], [4, 1]),
    perRank: fc.constantFrom(1, 2, 3),
    topk: fc.integer({ min: 1, max: 6 }),
    hidden: fc.constantFrom(1, 2, 3, 8, 17),
    dtype: fc.constantFrom<SumDType>("bf16", "fp16", "fp32"),
    budget: fc.constantFrom(0, 0, 0, 1, 2, 5),
    multiple: fc.constantFrom(1, 1, 2, 4),
    seed: fc.nat({ max: 999 }),
  })
  .chain(({ group: [numRanks, ranksPerNode], perRank, topk, ...rest }) => {
    const numExperts = numRanks * perRank;
    const width = Math.min(topk, numExperts);
    const experts = Array.from({ length: numExperts }, (_, expert) => expert);
    const token = fc
      .tuple(
        fc.shuffledSubarray(experts, { minLength: width, maxLength: width }),
        fc.array(fc.constantFrom(true, true, true, false), { minLength: width, maxLength: width }),
      )
      .map(([ids, chosen]) => ids.map((expert, slot) => (chosen[slot] ? expert : -1)));
    const rank = fc.array(token, { maxLength: 6 });
    return fc
      .array(rank, { minLength: numRanks, maxLength: numRanks })
      .map((topkIdx) => ({ numRanks, ranksPerNode, numExperts, topk: width, topkIdx, ...rest }));
  });

export const numTokens = (c: LawCase): number[] => c.topkIdx.map((tokens) => tokens.length);

export function settingsOf(c: LawCase, budget = c.budget): DispatchSettings {
  const rows = budget * c.multiple;
  return {
    numExperts: c.numExperts,
    expertAlignment: c.multiple,
    numWorstTokens: c.kind === "fused" ? rows : 0,
    padMultiple: c.kind === "fused" ? 1 : c.multiple,
    numPermutedTokens: c.kind === "fused" || rows === 0 ? null : rows,
  };
}

/** A case on a group: its routing, whole-number data from its seed, and the dispatch of it. */
export class Run {
  readonly c: LawCase;
  readonly group: Group;
  /** [tokens, topk] whole numbers, one tensor per rank. */
  readonly weights: readonly Tensor[];
  readonly #next: () => number;

  constructor(c: LawCase, group: Group) {
    this.c = c;
    this.group = group;
    this.#next = random(c.seed + 1);
    this.weights = this.whole(numTokens(c), c.topk, "fp32");
  }

  routing(): RoutingInput {
    const { topk, topkIdx } = this.c;
    const ids = topkIdx.map((tokens) => tensor("i32", [tokens.length, topk], Int32Array.from(tokens.flat())));
    return { topkIdx: ids, topkWeights: this.weights };
  }

  /** Whole numbers of -3..3: sums of dozens of them are exact in every dtype. */
  whole(rows: readonly number[], width = this.c.hidden, dtype = this.c.dtype): Tensor[] {
    return rows.map((count) => {
      const values = Array.from({ length: count * width }, () => Math.floor(this.#next() * 7) - 3);
      return fromNumbers(dtype, [count, width], values);
    });
  }

  /** Any bits at all. */
  bits(rows: readonly number[], width = this.c.hidden, dtype: DType = this.c.dtype): Tensor[] {
    return rows.map((count) => rowsOf(dtype, count, width, "bits", this.#next));
  }

  dispatch(x: readonly AnyTensor[], budget = this.c.budget, more: Partial<DispatchRequest> = {}) {
    const { kind } = this.c;
    const settings = settingsOf(this.c, budget);
    return this.group.dispatch({ kind, x, scales: null, routing: this.routing(), settings, ...more });
  }

  /** Combine of rows; `weights` are [rows, topk] for fused, [rows] for hybrid-ep. */
  combine(handle: Handle, x: readonly AnyTensor[], weights: readonly AnyTensor[] | null = null) {
    const fused = this.c.kind === "fused";
    const both = { topkWeights: fused ? weights : null, probs: fused ? null : weights };
    return this.group.combine({ handle, x, ...both, bias: [] });
  }
}

export function fromNumbers(dtype: SumDType, shape: readonly number[], values: readonly number[]): Tensor {
  if (dtype === "fp32") return tensor("fp32", shape, Float32Array.from(values));
  return tensor(dtype, shape, Uint16Array.from(values, dtype === "bf16" ? bf16FromNumber : fp16FromNumber));
}

export async function numbers(value: AnyTensor): Promise<number[]> {
  const host = await toHost(value);
  const decode = host.dtype === "bf16" ? bf16ToNumber : host.dtype === "fp16" ? fp16ToNumber : Number;
  return Array.from(host.data as ArrayLike<number>, decode);
}

/** The sum of products of two lists of tensors; exact for small whole numbers. */
export async function dot(a: readonly AnyTensor[], b: readonly AnyTensor[]): Promise<number> {
  let sum = 0;
  for (const [i, one] of a.entries()) {
    const other = await numbers(b[i]);
    (await numbers(one)).forEach((value, at) => {
      if (value !== 0 && other[at] !== 0) sum += value * other[at];
    });
  }
  return sum;
}
