/** The functional forms of fused_a2a.py: one call, no context to keep. For backward use the classes with a FunctionContext. */
import type { Group } from "../backend.ts";
import type { Handle } from "../handle/handle.ts";
import type { AnyTensor } from "../tensor.ts";
import { FunctionContext } from "./context.ts";
import { FusedCombine, FusedDispatch, type FusedDispatchOptions, type FusedOptions } from "./fused.ts";
import { HybridEPCombine, HybridEPDispatch, type HybridEpDispatchOptions } from "./hybridEp.ts";

/** FusedDispatch.forward (fused_dispatch). */
export function fusedDispatch(
  x: readonly AnyTensor[],
  tokenIndices: readonly AnyTensor[],
  tokenProbs: readonly AnyTensor[],
  numExperts: number,
  group: Group,
  options: FusedDispatchOptions & { readonly ctx?: FunctionContext } = {},
) {
  return FusedDispatch.forward(
    options.ctx ?? new FunctionContext(),
    x,
    tokenIndices,
    tokenProbs,
    numExperts,
    group,
    options,
  );
}

/** FusedCombine.forward (fused_combine). */
export function fusedCombine(
  x: readonly AnyTensor[],
  group: Group,
  handle: Handle,
  options: FusedOptions & { readonly ctx?: FunctionContext } = {},
) {
  return FusedCombine.forward(options.ctx ?? new FunctionContext(), x, group, handle, options);
}

/** HybridEPDispatch.forward (hybrid_ep_dispatch). */
export function hybridEpDispatch(
  x: readonly AnyTensor[],
  routingMap: readonly AnyTensor[],
  probs: readonly AnyTensor[] | null,
  group: Group,
  numLocalExperts: number,
  options: HybridEpDispatchOptions & { readonly ctx?: FunctionContext } = {},
) {
  const ctx = options.ctx ?? new FunctionContext();
  return HybridEPDispatch.forward(ctx, x, routingMap, probs, group, numLocalExperts, options);
}

/** HybridEPCombine.forward (hybrid_ep_combine). */
export function hybridEpCombine(
  x: readonly AnyTensor[],
  handle: Handle,
  numPermutedTokens: number | null = null,
  padMultiple: number | null = null,
  options: { readonly fused?: boolean; readonly ctx?: FunctionContext } = {},
) {
  const ctx = options.ctx ?? new FunctionContext();
  return HybridEPCombine.forward(ctx, x, handle, { numPermutedTokens, padMultiple, fused: options.fused });
}
