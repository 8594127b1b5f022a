/**
 * The golden cases as steps of `apply`: which tensors of the file go in under which name, and which expectation each
 * output must equal bit for bit. Names of the peers on the right, names of `apply` on the left.
 */
export interface Step {
  readonly op: string;
  /** apply name -> name in the golden file (without rank). */
  readonly reads: Readonly<Record<string, string>>;
  /** Adds the handle of an earlier step, by its index. */
  readonly handleOf?: number;
  readonly settings?: Readonly<Record<string, string>>;
  /** apply name -> name in the golden file after `expected.`. */
  readonly writes: Readonly<Record<string, string>>;
}

export interface GoldenCase {
  readonly file: string;
  /** Prefix of every tensor instead of `rank{r}`: cases without ranks. */
  readonly prefix?: string;
  readonly steps: readonly Step[];
}

const grads = (style: "fused" | "hybrid"): readonly Step[] =>
  style === "fused"
    ? [
        {
          op: "fused-dispatch",
          reads: { x: "x", topk_idx: "token_indices", topk_weights: "token_probs" },
          writes: {
            recv_x: "recv_x",
            recv_topk_idx: "recv_token_indices",
            recv_topk_weights: "recv_token_probs",
            tokens_per_expert: "tokens_per_expert",
          },
        },
        { op: "fused-combine", reads: { x: "y" }, handleOf: 0, writes: { combined_x: "combined_x" } },
        {
          op: "fused-dispatch-backward",
          reads: { grad_recv_x: "grad_recv_x", grad_recv_topk_weights: "grad_recv_probs" },
          handleOf: 0,
          writes: { grad_x: "grad_x", grad_topk_weights: "grad_probs" },
        },
        {
          op: "fused-combine-backward",
          reads: { grad_combined_x: "grad_combined_x" },
          handleOf: 0,
          writes: { grad_x: "grad_y" },
        },
      ]
    : [
        {
          op: "hybrid-ep-dispatch",
          reads: { x: "x", routing_map: "routing_map", probs: "probs" },
          writes: {
            dispatched_hidden: "dispatched_x",
            dispatched_probs: "dispatched_probs",
            tokens_per_expert: "tokens_per_expert",
          },
        },
        { op: "hybrid-ep-combine", reads: { x: "y" }, handleOf: 0, writes: { combined_hidden: "combined_x" } },
        {
          op: "hybrid-ep-dispatch-backward",
          reads: { grad_dispatched_hidden: "grad_dispatched_x", grad_dispatched_probs: "grad_dispatched_probs" },
          handleOf: 0,
          writes: { grad_x: "grad_x", grad_probs: "grad_probs" },
        },
        {
          op: "hybrid-ep-combine-backward",
          reads: { grad_combined_hidden: "grad_combined_x" },
          handleOf: 0,
          writes: { grad_x: "grad_y" },
        },
      ];

const ROUTING = { topk_idx: "topk_idx", topk_weights: "topk_weights" };
const LAYOUT: Step = {
  op: "layout",
  reads: { topk_idx: "topk_idx" },
  writes: {
    num_tokens_per_rank: "num_tokens_per_rank",
    num_tokens_per_expert: "num_tokens_per_expert",
    is_token_in_rank: "is_token_in_rank",
  },
};
const COMBINE: Step = {
  op: "fused-combine",
  reads: { x: "y", topk_weights: "y_topk_weights" },
  handleOf: 0,
  writes: { combined_x: "combined_x", combined_topk_weights: "combined_topk_weights" },
};
const cast = (prefix: string): GoldenCase => ({
  file: "deepep_fp8_cast",
  prefix,
  steps: [
    { op: "cast-to-fp8", reads: { x: "x" }, writes: { x_fp8: "x_fp8", x_scales: "x_scales" } },
    { op: "cast-back", reads: { x_fp8: "expected.x_fp8", x_scales: "expected.x_scales" }, writes: { x: "cast_back" } },
  ],
});

export const GOLDEN_CASES: readonly GoldenCase[] = [
  {
    file: "deepep_r2_basic",
    steps: [
      {
        op: "fused-dispatch",
        reads: { x: "x", ...ROUTING },
        writes: {
          recv_x: "recv_x",
          recv_topk_idx: "recv_topk_idx",
          recv_topk_weights: "recv_topk_weights",
          recv_src_token: "recv_src_idx",
          tokens_per_expert: "num_recv_tokens_per_expert_list",
        },
      },
      LAYOUT,
      {
        op: "fused-dispatch",
        reads: { x: "x", ...ROUTING },
        settings: { expert_alignment: "8" },
        writes: { recv_x: "recv_x", tokens_per_expert: "num_recv_tokens_per_expert_list_aligned" },
      },
      { op: "fused-dispatch", reads: { x: "cached_x" }, handleOf: 0, writes: { recv_x: "cached_recv_x" } },
      COMBINE,
    ],
  },
  {
    file: "deepep_r4_fp8",
    steps: [
      {
        op: "fused-dispatch",
        reads: { x: "x_fp8", x_scales: "x_scales", ...ROUTING },
        settings: { expert_alignment: "8" },
        writes: {
          recv_x: "recv_x_fp8",
          recv_x_scales: "recv_x_scales",
          recv_topk_idx: "recv_topk_idx",
          recv_topk_weights: "recv_topk_weights",
          recv_src_token: "recv_src_idx",
          tokens_per_expert: "num_recv_tokens_per_expert_list_aligned",
        },
      },
      LAYOUT,
      {
        op: "fused-dispatch",
        reads: { x: "cached_x_fp8", x_scales: "cached_x_scales" },
        handleOf: 0,
        writes: { recv_x: "cached_recv_x_fp8", recv_x_scales: "cached_recv_x_scales" },
      },
      COMBINE,
      {
        op: "cast-back",
        reads: { x_fp8: "expected.recv_x_fp8", x_scales: "expected.recv_x_scales" },
        writes: { x: "recv_x_cast_back" },
      },
    ],
  },
  cast("a"),
  cast("b"),
  {
    file: "hybridep_r4_basic",
    steps: [
      {
        op: "hybrid-ep-dispatch",
        reads: { x: "x", routing_map: "routing_map", probs: "probs" },
        writes: {
          dispatched_hidden: "permute.hidden",
          dispatched_probs: "permute.probs",
          tokens_per_expert: "permute.tokens_per_expert",
        },
      },
      {
        op: "hybrid-ep-combine",
        reads: { x: "permute.y", probs: "permute.y_probs" },
        handleOf: 0,
        writes: { combined_hidden: "permute.combined_hidden", combined_probs: "permute.combined_probs" },
      },
    ],
  },
  {
    file: "hybridep_r4_fp8_pad16",
    steps: [
      {
        op: "hybrid-ep-dispatch",
        reads: { x: "x", routing_map: "routing_map", probs: "probs", scaling_factor: "scaling_factor" },
        settings: { pad_multiple: "16" },
        writes: {
          dispatched_hidden: "permute.hidden",
          dispatched_probs: "permute.probs",
          dispatched_scaling_factor: "permute.scaling_factor",
          tokens_per_expert: "permute.tokens_per_expert",
        },
      },
      {
        op: "hybrid-ep-combine",
        reads: { x: "permute.y", probs: "permute.y_probs" },
        handleOf: 0,
        writes: { combined_hidden: "permute.combined_hidden", combined_probs: "permute.combined_probs" },
      },
    ],
  },
  { file: "grad_deepep_r4", steps: grads("fused") },
  { file: "grad_hybridep_r4", steps: grads("hybrid") },
];
