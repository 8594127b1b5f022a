/** The named cases, as data. A case is one routing and one row format on one group; both styles of dispatch run on it. */
import type { RowDType } from "../core/dtype/dtype.ts";
import type { HandleKind } from "../core/handle/handle.ts";

export interface BenchCase {
  readonly name: string;
  readonly description: string;
  readonly numRanks: number;
  readonly tokensPerRank: number;
  readonly hidden: number;
  readonly numExperts: number;
  readonly topk: number;
  readonly dtype: RowDType;
  readonly style: HandleKind;
  /** A workload of core/routing, or a routing file given with --routing. */
  readonly routing: { readonly workload: string } | { readonly layer: number };
}

const GROUP = { numRanks: 8, hidden: 7168, numExperts: 256, topk: 8, dtype: "bf16" } as const;
const UNIFORM = { workload: "uniform" } as const;

interface BaseCase extends Omit<BenchCase, "style" | "name" | "description"> {
  readonly name: string;
  readonly description: string;
}

const BASE: readonly BaseCase[] = [
  {
    ...GROUP,
    name: "prefill",
    description: "8 x 4096 tokens, top-8 of 256, bf16",
    tokensPerRank: 4096,
    routing: UNIFORM,
  },
  {
    ...GROUP,
    name: "prefill-fp8",
    description: "the same in fp8 with scales per 128 columns (dispatch only)",
    tokensPerRank: 4096,
    dtype: "fp8e4m3",
    routing: UNIFORM,
  },
  {
    ...GROUP,
    name: "prefill-6of384",
    description: "8 x 4096 tokens, top-6 of 384, bf16",
    tokensPerRank: 4096,
    numExperts: 384,
    topk: 6,
    routing: UNIFORM,
  },
  { ...GROUP, name: "decode", description: "8 x 128 tokens, top-8 of 256, bf16", tokensPerRank: 128, routing: UNIFORM },
  {
    ...GROUP,
    name: "hot-expert",
    description: "8 x 1024 tokens, one hot expert",
    tokensPerRank: 1024,
    routing: { workload: "hot-expert" },
  },
  {
    ...GROUP,
    name: "gpt-oss",
    description: "8 x 1024 real tokens of gpt-oss-20b, layer 12 (needs --routing FILE)",
    tokensPerRank: 1024,
    hidden: 2880,
    numExperts: 32,
    topk: 4,
    routing: { layer: 12 },
  },
  {
    ...GROUP,
    name: "tiny",
    description: "8 x 16 tokens of 256 columns: the fixed costs",
    tokensPerRank: 16,
    hidden: 256,
    routing: UNIFORM,
  },
];

/** Every case in both styles: `prefill` is fused, `prefill-permuted` hybrid-ep. */
export const CASES: readonly BenchCase[] = BASE.flatMap((base): BenchCase[] => [
  { ...base, style: "fused" },
  {
    ...base,
    name: `${base.name}-permuted`,
    description: `${base.description}; expert-major rows`,
    style: "hybrid-ep",
  },
]);
