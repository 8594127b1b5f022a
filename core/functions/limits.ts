/**
 * Which sizes other systems refuse, so that a user finds out before an assertion does. Each rule names where it comes
 * from. This project has none of these limits (design 2.2).
 */
export interface Sizes {
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly numExperts: number;
  readonly topk: number;
  readonly hidden: number;
  readonly numTokens: number;
  readonly fp8: boolean;
}

export interface SizeRule {
  readonly system: string;
  readonly rule: string;
  /** Where the rule stands: project, version or commit, and place. */
  readonly source: string;
  /** Null when the sizes obey; else the nearest legal value. */
  check(sizes: Sizes): string | null;
}

const up = (value: number, multiple: number) => Math.ceil(value / multiple) * multiple;

const multipleOf = (name: keyof Sizes, multiple: number, sizes: Sizes): string | null => {
  const value = sizes[name] as number;
  return value % multiple === 0 ? null : `${name} ${up(value, multiple)}`;
};

export const SIZE_RULES: readonly SizeRule[] = [
  {
    system: "DeepEP legacy, low latency",
    rule: "topk <= 11 (kNumMaxTopK)",
    source: "DeepEP dd758ca, csrc/kernels/legacy",
    check: ({ topk }) => (topk <= 11 ? null : "topk 11"),
  },
  {
    system: "DeepEP legacy, several nodes",
    rule: "at most 8 ranks per node and 20 nodes",
    source: "DeepEP dd758ca, csrc/kernels/legacy",
    check: ({ numRanks, ranksPerNode }) =>
      ranksPerNode <= 8 && numRanks / ranksPerNode <= 20 ? null : `${Math.min(20, numRanks / ranksPerNode)} nodes of 8`,
  },
  {
    system: "HybridEP",
    rule: "hidden a multiple of 16 (fp8: of 512)",
    source: "DeepEP 94a9f8f (branch hybrid-ep)",
    check: (sizes) => multipleOf("hidden", sizes.fp8 ? 512 : 16, sizes),
  },
  {
    system: "HybridEP under Megatron-Core",
    rule: "tokens padded to a multiple of 64 (HYBRIDEP_TOKEN_ALIGNMENT), the same on every rank",
    source: "Megatron-LM d98e8a6, fused_a2a.py",
    check: (sizes) => multipleOf("numTokens", 64, sizes),
  },
  {
    system: "NCCL EP, throughput mode",
    rule: "experts per node a multiple of 4; with fp8, hidden a multiple of 128",
    source: "nccl contrib/nccl_ep",
    check: (sizes) => {
      const perNode = (sizes.numExperts / sizes.numRanks) * sizes.ranksPerNode;
      if (perNode % 4 !== 0) return `${up(perNode, 4)} experts per node`;
      return sizes.fp8 ? multipleOf("hidden", 128, sizes) : null;
    },
  },
];
