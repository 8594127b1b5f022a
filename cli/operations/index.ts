/** The operations of `apply` (design section 6): what each reads and writes, and the function that does it. */
import type { Group } from "../../core/backend.ts";
import { fusedCombine, fusedDispatchBackward, hybridEpCombine, hybridEpDispatchBackward } from "./combine.ts";
import { combineBackward, fusedDispatch, hybridEpDispatch, type Outputs } from "./dispatch.ts";
import type { ApplyInput } from "./input.ts";
import { castBack, castToFp8, layout } from "./rest.ts";

export interface Operation {
  readonly reads: string;
  readonly writes: string;
  readonly run: (group: Group, input: ApplyInput) => Promise<Outputs>;
}

export const OPERATIONS: Readonly<Record<string, Operation>> = {
  layout: {
    reads: "topk_idx or routing_map",
    writes: "num_tokens_per_rank, num_tokens_per_node (more than one node), num_tokens_per_expert, is_token_in_rank",
    run: layout,
  },
  "fused-dispatch": {
    reads: "x (fp8: and x_scales), topk_idx, topk_weights; or x and handle.* (cached)",
    writes: "recv_x, recv_x_scales, recv_topk_idx, recv_topk_weights, tokens_per_expert, recv_src_token, handle.*",
    run: fusedDispatch,
  },
  "fused-combine": {
    reads: "x (one row per recv row), handle.*, optional topk_weights, bias_0, bias_1",
    writes: "combined_x, combined_topk_weights",
    run: fusedCombine,
  },
  "fused-dispatch-backward": {
    reads: "grad_recv_x, grad_recv_topk_weights, handle.*",
    writes: "grad_x, grad_topk_weights",
    run: fusedDispatchBackward,
  },
  "fused-combine-backward": {
    reads: "grad_combined_x, handle.*",
    writes: "grad_x",
    run: combineBackward("fused", "grad_combined_x"),
  },
  "hybrid-ep-dispatch": {
    reads: "x, routing_map, probs (or topk_idx, topk_weights), optional scaling_factor; or x and handle.*",
    writes:
      "dispatched_hidden, dispatched_probs, dispatched_scaling_factor, tokens_per_expert, overflow_flag, handle.*",
    run: hybridEpDispatch,
  },
  "hybrid-ep-combine": {
    reads: "x (one row per permuted row), handle.*, optional probs",
    writes: "combined_hidden, combined_probs",
    run: hybridEpCombine,
  },
  "hybrid-ep-dispatch-backward": {
    reads: "grad_dispatched_hidden, grad_dispatched_probs, handle.*",
    writes: "grad_x, grad_probs",
    run: hybridEpDispatchBackward,
  },
  "hybrid-ep-combine-backward": {
    reads: "grad_combined_hidden, handle.*",
    writes: "grad_x",
    run: combineBackward("hybrid-ep", "grad_combined_hidden"),
  },
  "cast-to-fp8": { reads: "x", writes: "x_fp8, x_scales", run: castToFp8 },
  "cast-back": { reads: "x_fp8, x_scales", writes: "x (bf16)", run: castBack },
};
