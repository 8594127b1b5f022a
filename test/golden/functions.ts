/** The eight golden files through the API: the four functions and the two buffers. */
import type { Group } from "../../core/backend.ts";
import { FunctionContext } from "../../core/functions/context.ts";
import { FusedCombine, FusedDispatch } from "../../core/functions/fused.ts";
import { Buffer } from "../../core/functions/fusedBuffer.ts";
import { HybridEPCombine, HybridEPDispatch } from "../../core/functions/hybridEp.ts";
import { HybridEPBuffer } from "../../core/functions/hybridEpBuffer.ts";
import { type Tensor, tensor } from "../../core/tensor.ts";
import { openGolden } from "./file.ts";

async function fusedGradients(group: Group): Promise<void> {
  const golden = await openGolden("grad_deepep_r4");
  for (const asyncFinish of [false, true]) {
    const [ctx, ctx2, ctx3] = [new FunctionContext(), new FunctionContext(), new FunctionContext()];
    const forward = (context: FunctionContext) =>
      FusedDispatch.forward(
        context,
        golden.read("x"),
        golden.read("token_indices"),
        golden.read("token_probs"),
        golden.numExperts,
        group,
        { asyncFinish, allocateOnCommStream: asyncFinish },
      );
    const out = await forward(ctx);
    await golden.expect("recv_x", out.recvX);
    await golden.expect("recv_token_indices", out.recvTokenIndices);
    await golden.expect("recv_token_probs", out.recvTokenProbs);
    await golden.expect("tokens_per_expert", out.tokensPerExpert);
    const combined = await FusedCombine.forward(ctx2, golden.read("y"), group, out.handle, { asyncFinish });
    await golden.expect("combined_x", combined.combinedX);
    const gradY = await FusedCombine.backward(ctx2, golden.read("grad_combined_x"));
    await golden.expect("grad_y", gradY.gradX);
    const gradProbs = golden.read("grad_recv_probs");
    const back = await FusedDispatch.backward(ctx, golden.read("grad_recv_x"), null, gradProbs, null, null);
    await golden.expect("grad_x", back.gradX);
    await golden.expect("grad_probs", back.gradTokenProbs);
    // What autograd gives for slots of other ranks when the caller masks them.
    await forward(ctx3);
    const masked = gradProbs.map((value, rank) => {
      const ids = out.recvTokenIndices?.[rank] as Tensor<"i64">;
      const kept = Float32Array.from(value.data as Float32Array, (one, i) => (ids.data[i] === -1n ? 0 : one));
      return tensor("fp32", value.shape, kept);
    });
    const again = await FusedDispatch.backward(ctx3, golden.read("grad_recv_x"), null, masked);
    await golden.expect("grad_probs_masked", again.gradTokenProbs);
  }
}

async function hybridGradients(group: Group): Promise<void> {
  const golden = await openGolden("grad_hybridep_r4");
  for (const fused of [false, true]) {
    const [ctx, ctx2] = [new FunctionContext(), new FunctionContext()];
    const local = golden.numExperts / golden.numRanks;
    const out = await HybridEPDispatch.forward(
      ctx,
      golden.read("x"),
      golden.read("routing_map"),
      golden.read("probs"),
      group,
      local,
      { fused },
    );
    await golden.expect("dispatched_x", out.dispatchedHidden);
    await golden.expect("dispatched_probs", out.dispatchedProbs);
    await golden.expect("tokens_per_expert", out.tokensPerExpert);
    const combined = await HybridEPCombine.forward(ctx2, golden.read("y"), out.handle, { fused });
    await golden.expect("combined_x", combined.combinedHidden);
    await golden.expect("grad_y", (await HybridEPCombine.backward(ctx2, golden.read("grad_combined_x"))).gradX);
    const back = await HybridEPDispatch.backward(
      ctx,
      golden.read("grad_dispatched_x"),
      golden.read("grad_dispatched_probs"),
    );
    await golden.expect("grad_x", back.gradX);
    await golden.expect("grad_probs", back.gradProbs);
  }
}

async function deepEpBuffer(group: Group, name: string, suffix: "" | "_fp8"): Promise<void> {
  const golden = await openGolden(name);
  const buffer = new Buffer(group);
  const { numExperts } = golden;
  const topkIdx = golden.read("topk_idx");
  const layout = await buffer.getDispatchLayout({ topkIdx, numExperts });
  await golden.expect("num_tokens_per_rank", layout.numTokensPerRank);
  await golden.expect("num_tokens_per_expert", layout.numTokensPerExpert);
  await golden.expect("is_token_in_rank", layout.isTokenInRank());
  const scales = suffix ? golden.read("x_scales") : null;
  const topkWeights = golden.read("topk_weights");
  const x = golden.read(`x${suffix}`);
  const out = await buffer.dispatch({ x, scales, layout, topkWeights, previousEvent: buffer.capture() });
  await golden.expect(`recv_x${suffix}`, out.recvX);
  await golden.expect("recv_topk_idx", out.recvTopkIdx);
  await golden.expect("recv_topk_weights", out.recvTopkWeights);
  await golden.expect("num_recv_tokens_per_expert_list", out.tokensPerExpert);
  if (suffix) await golden.expect("recv_x_scales", out.recvXScales);
  const aligned = await buffer.dispatch({ x, scales, topkIdx, numExperts, topkWeights, expertAlignment: 8 });
  if (!suffix) await golden.expect("num_recv_tokens_per_expert_list_aligned", aligned.tokensPerExpert);
  const cachedScales = suffix ? golden.read("cached_x_scales") : null;
  const cached = await buffer.dispatch({
    x: golden.read(`cached_x${suffix}`),
    scales: cachedScales,
    handle: out.handle,
  });
  await golden.expect(`cached_recv_x${suffix}`, cached.recvX);
  if (suffix) await golden.expect("cached_recv_x_scales", cached.recvXScales);
  const y = golden.read("y");
  const combined = await buffer.combine({ x: y, handle: out.handle, topkWeights: golden.read("y_topk_weights") });
  await golden.expect("combined_x", combined.combinedX);
  await golden.expect("combined_topk_weights", combined.combinedTopkWeights);
}

async function hybridBuffer(group: Group, name: string, padMultiple: number | null): Promise<void> {
  const golden = await openGolden(name);
  const buffer = new HybridEPBuffer(group);
  const hidden = golden.read("x");
  const scalingFactor = padMultiple ? golden.read("scaling_factor") : null;
  const routing = { routingMap: golden.read("routing_map"), probs: golden.read("probs") };
  const numLocalExperts = golden.numExperts / golden.numRanks;
  const out = await buffer.dispatchWithPermute({ hidden, scalingFactor, ...routing, numLocalExperts, padMultiple });
  await golden.expect("permute.hidden", out.hidden);
  await golden.expect("permute.probs", out.probs);
  await golden.expect("permute.tokens_per_expert", out.tokensPerExpert);
  if (padMultiple) await golden.expect("permute.scaling_factor", out.scalingFactor);
  const y = { hidden: golden.read("permute.y"), probs: golden.read("permute.y_probs"), handle: out.handle };
  const combined = await buffer.combineWithUnpermute({ ...y, padMultiple });
  await golden.expect("permute.combined_hidden", combined.hidden);
  await golden.expect("permute.combined_probs", combined.probs);
  if (padMultiple) return;
  const dense = await buffer.dispatch({ hidden, ...routing, numLocalExperts });
  await golden.expect("dense.hidden", dense.hidden);
  await golden.expect("dense.probs_full", dense.probs);
  await golden.expect("dense.local_expert_routing_map", dense.localExpertRoutingMap);
  const z = { hidden: golden.read("dense.y"), probs: golden.read("dense.y_probs"), handle: dense.handle };
  const denseCombined = await buffer.combine(z);
  await golden.expect("dense.combined_hidden", denseCombined.hidden);
  await golden.expect("dense.combined_probs", denseCombined.probs);
}

/** Title, ranks, and what to run on a group of that many. */
export const GOLDEN_FUNCTIONS: [string, number, (group: Group) => Promise<void>][] = [
  ["FusedDispatch and FusedCombine, forward and backward", 4, fusedGradients],
  ["HybridEPDispatch and HybridEPCombine, forward and backward", 4, hybridGradients],
  ["Buffer: layout, dispatch, cached dispatch, combine", 2, (group) => deepEpBuffer(group, "deepep_r2_basic", "")],
  ["Buffer with fp8 rows and scales", 4, (group) => deepEpBuffer(group, "deepep_r4_fp8", "_fp8")],
  ["HybridEPBuffer, permuted and dense", 4, (group) => hybridBuffer(group, "hybridep_r4_basic", null)],
  ["HybridEPBuffer with byte rows, padded to 16", 4, (group) => hybridBuffer(group, "hybridep_r4_fp8_pad16", 16)],
];
