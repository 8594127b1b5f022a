import type { Group } from "../../core/backend.ts";
import { InvalidArgument } from "../../core/errors.ts";
import { tensor } from "../../core/tensor.ts";
import { collect, type Outputs } from "./dispatch.ts";
import type { ApplyInput } from "./input.ts";

/** layout: topk_idx or routing_map. */
export async function layout(group: Group, input: ApplyInput): Promise<Outputs> {
  const routing = await input.routing();
  if (routing === null) {
    throw new InvalidArgument({
      name: "routing",
      expected: "topk_idx or routing_map tensors",
      received: "none of them",
      where: { file: input.file.name },
      remedy: "add rank{r}.topk_idx",
    });
  }
  const numExperts = await input.routingExperts();
  const layouts = await group.layout(routing, numExperts);
  const tensors = await collect({
    num_tokens_per_rank: layouts.map((one) => tensor("i32", [group.numRanks], one.numTokensPerRank)),
    num_tokens_per_expert: layouts.map((one) => tensor("i32", [numExperts], one.numTokensPerExpert)),
    is_token_in_rank: layouts.map((one) => tensor("bool", [one.numTokens, group.numRanks], one.isTokenInRank())),
  });
  const perNode = layouts.flatMap((one) => (one.numTokensPerNode === null ? [] : [one.numTokensPerNode]));
  if (perNode.length > 0) {
    tensors.set(
      "num_tokens_per_node",
      perNode.map((counts) => tensor("i32", [counts.length], counts)),
    );
  }
  return { tensors, handle: null };
}

/** cast-to-fp8: x. */
export async function castToFp8(group: Group, input: ApplyInput): Promise<Outputs> {
  const cast = await group.castToFp8(await input.read("x"));
  return { tensors: await collect({ x_fp8: cast.x, x_scales: cast.scales }), handle: null };
}

/** cast-back: x_fp8 and x_scales. */
export async function castBack(group: Group, input: ApplyInput): Promise<Outputs> {
  const x = await group.castBack(await input.read("x_fp8"), await input.read("x_scales"));
  return { tensors: await collect({ x }), handle: null };
}
