/** Real routing of gpt-oss, from beside the repository where it exists. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import type { Backend, RoutingInput } from "../../core/backend.ts";
import { memorySource } from "../../core/io/bytes.ts";
import { openSafetensors } from "../../core/io/safetensors/index.ts";
import { type Tensor, tensor } from "../../core/tensor.ts";
import { expectSameHandle, expectSameTensors } from "./compare.ts";
import { randomNumbers, randomRows } from "./samples.ts";

const NUM_RANKS = 8;
const NUM_EXPERTS = 32;
const HIDDEN = 64;

export function routingFile(name: string): string | null {
  const path = fileURLToPath(new URL(`../../../shared/routing/${name}`, import.meta.url));
  return existsSync(path) ? path : null;
}

/** Compares every output of both styles on each layer of the file, tokens split evenly over 8 ranks. */
export async function compareLayers(path: string, backend: Backend, oracle: Backend): Promise<number> {
  const file = await openSafetensors(memorySource(readFileSync(path), path));
  const idx = await file.read("topk_idx");
  const weights = await file.read("topk_weights");
  const [numLayers, numTokens, topk] = idx.shape;
  const group = await backend.createGroup({ numRanks: NUM_RANKS });
  const reference = await oracle.createGroup({ numRanks: NUM_RANKS });
  const settings = {
    numExperts: NUM_EXPERTS,
    expertAlignment: 1,
    numWorstTokens: 0,
    padMultiple: 16,
    numPermutedTokens: null,
  };
  for (let layer = 0; layer < numLayers; layer++) {
    const routing = layerRouting(idx, weights, layer, numTokens, topk);
    const random = randomNumbers(layer);
    const x = routing.topkIdx.map((ids) => randomRows(random, "bf16", [ids.shape[0], HIDDEN]));
    for (const kind of ["fused", "hybrid-ep"] as const) {
      const request = { kind, x, scales: null, routing, settings };
      const received = await group.dispatch(request);
      const expected = await reference.dispatch(request);
      expectSameHandle(await received.handle.data(), await expected.handle.data());
      for (const name of ["x", "topkIdx", "topkWeights", "probs"] as const) {
        expectSameTensors(`layer ${layer} ${kind} ${name}`, received[name], expected[name]);
      }
      const combine = {
        handle: expected.handle,
        x: expected.x,
        topkWeights: expected.topkWeights,
        probs: expected.probs,
        bias: [],
      };
      const sums = await group.combine(combine);
      const expectedSums = await reference.combine(combine);
      for (const name of ["x", "topkWeights", "probs"] as const) {
        expectSameTensors(`layer ${layer} ${kind} combined ${name}`, sums[name], expectedSums[name]);
      }
    }
  }
  expect(numLayers).toBeGreaterThan(0);
  return numLayers;
}

function layerRouting(
  idx: Tensor,
  weights: Tensor,
  layer: number,
  numTokens: number,
  topk: number,
): Extract<RoutingInput, { topkIdx: unknown }> {
  const perRank = numTokens / NUM_RANKS;
  const ranks = Array.from({ length: NUM_RANKS }, (_, rank) => rank);
  const part = (value: Tensor, rank: number) => {
    const first = (layer * numTokens + rank * perRank) * topk;
    return Array.from(value.data.subarray(first, first + perRank * topk), Number);
  };
  return {
    topkIdx: ranks.map((rank) => tensor("i32", [perRank, topk], Int32Array.from(part(idx, rank)))),
    topkWeights: ranks.map((rank) => tensor("fp32", [perRank, topk], Float32Array.from(part(weights, rank)))),
  };
}
