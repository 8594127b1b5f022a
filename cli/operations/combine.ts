import type { Group } from "../../core/backend.ts";
import { toFloat32 } from "../../core/functions/gradients.ts";
import { collect, type Outputs } from "./dispatch.ts";
import type { ApplyInput } from "./input.ts";

/** fused-combine: x (one row per recv row), handle.*, optional topk_weights, bias_0, bias_1. */
export async function fusedCombine(group: Group, input: ApplyInput): Promise<Outputs> {
  const handle = await input.handle(group);
  const biases = [await input.readOptional("bias_0"), await input.readOptional("bias_1")];
  const result = await group.combine({
    handle,
    x: await input.read("x"),
    topkWeights: await input.readOptional("topk_weights"),
    probs: null,
    bias: biases.filter((bias) => bias !== null),
  });
  return { tensors: await collect({ combined_x: result.x, combined_topk_weights: result.topkWeights }), handle };
}

/** hybrid-ep-combine: x (one row per permuted row), handle.*, optional probs. */
export async function hybridEpCombine(group: Group, input: ApplyInput): Promise<Outputs> {
  const handle = await input.handle(group);
  const probs = await input.readOptional("probs");
  const result = await group.combine({ handle, x: await input.read("x"), topkWeights: null, probs, bias: [] });
  return { tensors: await collect({ combined_hidden: result.x, combined_probs: result.probs }), handle };
}

/** fused-dispatch-backward: grad_recv_x, grad_recv_topk_weights, handle.*. */
export async function fusedDispatchBackward(group: Group, input: ApplyInput): Promise<Outputs> {
  const handle = await input.handle(group);
  const weights = await input.readOptional("grad_recv_topk_weights");
  const topkWeights = weights && (await toFloat32(weights));
  const result = await group.combine({
    handle,
    x: await input.read("grad_recv_x"),
    topkWeights,
    probs: null,
    bias: [],
  });
  return { tensors: await collect({ grad_x: result.x, grad_topk_weights: result.topkWeights }), handle };
}

/** hybrid-ep-dispatch-backward: grad_dispatched_hidden, grad_dispatched_probs, handle.*. */
export async function hybridEpDispatchBackward(group: Group, input: ApplyInput): Promise<Outputs> {
  const handle = await input.handle(group);
  const gradient = await input.readOptional("grad_dispatched_probs");
  const probs = gradient && (await toFloat32(gradient));
  const x = await input.read("grad_dispatched_hidden");
  const result = await group.combine({ handle, x, topkWeights: null, probs, bias: [] });
  return { tensors: await collect({ grad_x: result.x, grad_probs: result.probs }), handle };
}
