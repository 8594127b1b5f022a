/** Digests of every output of random requests: the same on every device, in Node and in the browser. */
import type { Backend } from "../../core/backend.ts";
import { encodeHandle } from "../../core/handle/encode.ts";
import { type AnyTensor, bytesOf, type Tensor } from "../../core/tensor.ts";
import { randomNumbers, randomRouting, randomRows, randomSettings, randomShape } from "./samples.ts";

/** Per seed and kind one FNV-1a digest of the handle and of every tensor of dispatch, combine and the casts. */
export async function digests(backend: Backend, numSeeds: number): Promise<string[]> {
  const results: string[] = [];
  for (let seed = 0; seed < numSeeds; seed++) {
    const kind = seed % 2 === 0 ? "fused" : "hybrid-ep";
    const random = randomNumbers(seed + 500);
    const shape = randomShape(random);
    const group = await backend.createGroup(shape);
    const routing = randomRouting(random, shape, "i64");
    const dtype = (["bf16", "fp16", "fp32"] as const)[seed % 3];
    const x = routing.topkIdx.map((ids) => randomRows(random, dtype, [ids.shape[0], shape.hidden]));
    const settings = randomSettings(random, shape);
    const sent = await group.dispatch({ kind, x, scales: null, routing, settings });
    const rows = sent.x.map((value) => randomRows(random, dtype, value.shape));
    const weights = kind === "fused" ? sent.topkWeights : null;
    const probs = kind === "fused" ? null : sent.probs;
    const sums = await group.combine({ handle: sent.handle, x: rows, topkWeights: weights, probs, bias: [] });
    const cast = await group.castToFp8(rows);
    const tensors: AnyTensor[] = [...encodeHandle(await sent.handle.data()).values()];
    const groups = [sent.x, sent.topkIdx, sent.topkWeights, sent.probs, sums.x, sums.topkWeights, sums.probs];
    for (const values of [...groups, cast.x, cast.scales]) tensors.push(...(values ?? []));
    results.push(`${kind} ${dtype} ${tensors.length} tensors ${digest(tensors)}`);
    await group.close();
  }
  return results;
}

function digest(tensors: readonly AnyTensor[]): string {
  let hash = 0x811c9dc5;
  for (const value of tensors) {
    for (const byte of bytesOf(value as Tensor)) hash = Math.imul(hash ^ byte, 0x01000193);
  }
  return (hash >>> 0).toString(16).padStart(8, "0");
}
