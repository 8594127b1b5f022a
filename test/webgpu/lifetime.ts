/** One small run of everything, for tests that repeat it. */
import type { Backend } from "../../core/backend.ts";
import { tensor } from "../../core/tensor.ts";

export async function runOnce(backend: Backend, seed: number): Promise<void> {
  const numTokens = 16 + (seed % 5);
  const group = await backend.createGroup({ numRanks: 4 });
  const x = [0, 1, 2, 3].map(() => tensor("bf16", [numTokens, 64], new Uint16Array(numTokens * 64).fill(0x3f80)));
  const ids = Int32Array.from({ length: numTokens * 2 }, (_, i) => (i * 3 + seed) % 8);
  const topkIdx = x.map(() => tensor("i32", [numTokens, 2], ids));
  const settings = { numExperts: 8, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null };
  const routing = { topkIdx, topkWeights: null };
  const sent = await group.dispatch({ kind: "fused", x, scales: null, routing, settings });
  const sums = await group.combine({ handle: sent.handle, x: sent.x, topkWeights: null, probs: null, bias: [] });
  // A token of ones comes back from each distinct rank once: 1 or 2.
  sums.x.forEach((value, rank) => {
    const first = (value as { data: Uint16Array }).data[0];
    const ranks = new Set([ids[0] >> 1, ids[1] >> 1]).size;
    const expected = ranks === 2 ? 0x4000 : 0x3f80;
    if (first !== expected) throw new Error(`rank ${rank}: ${first.toString(16)} instead of ${expected.toString(16)}`);
  });
  await group.close();
}
