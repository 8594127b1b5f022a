import { copyBits } from "../dtype/float32.ts";
import { InvalidArgument } from "../errors.ts";
import { expectTensor, type Tensor, tensor } from "../tensor.ts";

/** The index form of a multihot routing: ids ascend within a token, -1 fills the rest. */
export interface IndexForm {
  readonly topkIdx: Tensor<"i32">;
  readonly topkWeights: Tensor<"fp32"> | null;
}

/** The most experts any token of `routingMap` ([tokens, experts] bool) has; at least 1. */
export function maxTopk(routingMap: Tensor): number {
  const [numTokens = 0, numExperts = 0] = routingMap.shape;
  const map = routingMap.data as Uint8Array;
  let most = 1;
  for (let token = 0; token < numTokens; token++) {
    let count = 0;
    for (let i = token * numExperts; i < (token + 1) * numExperts; i++) if (map[i] !== 0) count++;
    if (count > most) most = count;
  }
  return most;
}

/**
 * [tokens, experts] bool (and fp32 probs) -> index form with `topk` columns (maxTopk over all ranks of the group).
 * Throws InvalidArgument naming rank and token when a token has more experts than that.
 */
export function toIndexForm(rank: number, routingMap: Tensor, probs: Tensor | null, topk: number): IndexForm {
  expectTensor("routingMap", routingMap, ["bool", "u8"], [null, null], { rank });
  const [numTokens = 0, numExperts = 0] = routingMap.shape;
  if (probs !== null) expectTensor("probs", probs, ["fp32"], [numTokens, numExperts], { rank });
  const ids = new Int32Array(numTokens * topk).fill(-1);
  const weights = probs === null ? null : new Float32Array(numTokens * topk);
  const map = routingMap.data as Uint8Array;
  for (let token = 0; token < numTokens; token++) {
    let slot = token * topk;
    for (let expert = 0; expert < numExperts; expert++) {
      const i = token * numExperts + expert;
      if (map[i] === 0) continue;
      if (slot === (token + 1) * topk) {
        throw new InvalidArgument({
          name: "routingMap",
          expected: `at most topk ${topk} experts per token`,
          received: `expert ${expert} beyond them`,
          where: { rank, token },
          remedy: "pass maxTopk of all ranks as topk",
        });
      }
      ids[slot] = expert;
      if (weights !== null && probs !== null) copyBits(probs.data as Float32Array, i, weights, slot);
      slot++;
    }
  }
  return {
    topkIdx: tensor("i32", [numTokens, topk], ids),
    topkWeights: weights && tensor("fp32", [numTokens, topk], weights),
  };
}

/** Index form -> [tokens, experts] bool and fp32 probs. Ids must be valid (see rankRouting). */
export function toMultihotForm(
  topkIdx: Tensor,
  topkWeights: Tensor | null,
  numExperts: number,
): { routingMap: Tensor<"bool">; probs: Tensor<"fp32"> } {
  const [numTokens = 0, topk = 0] = topkIdx.shape;
  const routingMap = tensor("bool", [numTokens, numExperts]);
  const probs = tensor("fp32", [numTokens, numExperts]);
  for (let i = 0; i < numTokens * topk; i++) {
    const expert = Number(topkIdx.data[i]);
    if (expert === -1) continue;
    if (expert < -1 || expert >= numExperts) {
      throw new InvalidArgument({
        name: "topkIdx",
        expected: `-1..${numExperts - 1}`,
        received: `${expert}`,
        where: { token: Math.floor(i / topk), slot: i % topk },
        remedy: "use -1 for a slot without a choice",
      });
    }
    const at = Math.floor(i / topk) * numExperts + expert;
    routingMap.data[at] = 1;
    if (topkWeights !== null) copyBits(topkWeights.data as Float32Array, i, probs.data, at);
  }
  return { routingMap, probs };
}
