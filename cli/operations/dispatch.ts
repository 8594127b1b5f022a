import type { DispatchRequest, DispatchResult, Group } from "../../core/backend.ts";
import { InvalidArgument } from "../../core/errors.ts";
import type { Handle, HandleKind, RankHandle } from "../../core/handle/handle.ts";
import { type Tensor, tensor, toHost } from "../../core/tensor.ts";
import type { ApplyInput } from "./input.ts";

/** What an operation writes: per name one tensor per rank, and the handle it used. */
export interface Outputs {
  readonly tensors: ReadonlyMap<string, readonly Tensor[]>;
  readonly handle: Handle | null;
}

/** fused-dispatch: x (fp8: and x_scales), topk_idx, topk_weights; or x and handle.* (cached). */
export async function fusedDispatch(group: Group, input: ApplyInput): Promise<Outputs> {
  const result = await dispatch(group, input, "fused", "x_scales");
  const data = await result.handle.data();
  const tensors = await collect({
    recv_x: result.x,
    recv_x_scales: result.scales,
    recv_topk_idx: result.topkIdx,
    recv_topk_weights: result.topkWeights,
  });
  tensors.set("tokens_per_expert", data.ranks.map(tokensPerExpert));
  tensors.set(
    "recv_src_token",
    data.ranks.map((rank) => tensor("i32", [rank.numRows], rank.rowSrcToken)),
  );
  return { tensors, handle: result.handle };
}

/** hybrid-ep-dispatch: x, routing_map and probs (or topk_idx, topk_weights), optional scaling_factor; or x and handle.*. */
export async function hybridEpDispatch(group: Group, input: ApplyInput): Promise<Outputs> {
  const result = await dispatch(group, input, "hybrid-ep", "scaling_factor");
  const data = await result.handle.data();
  const tensors = await collect({
    dispatched_hidden: result.x,
    dispatched_probs: result.probs,
    dispatched_scaling_factor: result.scales,
  });
  tensors.set("tokens_per_expert", data.ranks.map(tokensPerExpert));
  tensors.set(
    "overflow_flag",
    data.ranks.map((rank) => tensor("bool", [1], Uint8Array.of(Number(rank.overflow.flag)))),
  );
  return { tensors, handle: result.handle };
}

/** fused-combine-backward and hybrid-ep-combine-backward: a dispatch of the gradient with the cached handle. */
export function combineBackward(kind: HandleKind, gradient: string) {
  return async (group: Group, input: ApplyInput): Promise<Outputs> => {
    const handle = await input.handle(group);
    const result = await group.dispatch({ kind, x: await input.read(gradient), scales: null, handle });
    return { tensors: await collect({ grad_x: result.x }), handle };
  };
}

async function dispatch(
  group: Group,
  input: ApplyInput,
  kind: HandleKind,
  scalesName: string,
): Promise<DispatchResult> {
  const rows = { kind, x: await input.read("x"), scales: await input.readOptional(scalesName) };
  const routing = await input.routing();
  if (routing === null) {
    if (input.hasHandle()) return group.dispatch({ ...rows, handle: await input.handle(group) });
    throw new InvalidArgument({
      name: "routing",
      expected: "topk_idx, routing_map or handle.* tensors",
      received: "none of them",
      where: { file: input.file.name },
      remedy: "add rank{r}.topk_idx and rank{r}.topk_weights",
    });
  }
  const request: DispatchRequest = {
    ...rows,
    routing,
    settings: {
      numExperts: await input.routingExperts(),
      expertAlignment: input.setting("expert_alignment") ?? 1,
      numWorstTokens: input.setting("num_worst_tokens") ?? 0,
      padMultiple: input.setting("pad_multiple") ?? 1,
      numPermutedTokens: input.setting("num_permuted_tokens"),
    },
  };
  return group.dispatch(request);
}

/** Host copies of the outputs that there are. */
export async function collect(
  values: Readonly<Record<string, DispatchResult["x"] | null>>,
): Promise<Map<string, readonly Tensor[]>> {
  const found = new Map<string, readonly Tensor[]>();
  for (const [name, tensors] of Object.entries(values)) {
    if (tensors !== null) found.set(name, await Promise.all(tensors.map((value) => toHost(value))));
  }
  return found;
}

function tokensPerExpert(rank: RankHandle): Tensor<"i64"> {
  return tensor("i64", [rank.tokensPerExpert.length], BigInt64Array.from(rank.tokensPerExpert, BigInt));
}
