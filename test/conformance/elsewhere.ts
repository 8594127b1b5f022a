import type { Group } from "../../core/backend.ts";
import { decodeHandle, encodeHandle } from "../../core/handle/encode.ts";
import { Handle } from "../../core/handle/handle.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import type { Data } from "./data.ts";
import { checkFusedCached, checkFusedCombined, fusedPlans, fusedSettings } from "./fused.ts";
import { checkHybridCached, checkHybridCombined, hybridPlans, hybridSettings } from "./hybridEp.ts";

const SHARES = [0, 0.5];

/** Cached dispatch and combine with handles that another backend made, as they come out of a file; twice with each. */
export async function checkUploaded(group: Group, data: Data): Promise<void> {
  const { numRanks, ranksPerNode } = group;
  const { x, scales, topkIdx, topkWeights } = data;
  const oracle = await createOracleBackend().createGroup({ numRanks, ranksPerNode });
  for (const plan of fusedPlans(data, SHARES)) {
    const settings = fusedSettings(data, plan.numWorstTokens);
    const made = await oracle.dispatch({ kind: "fused", x, scales, routing: { topkIdx, topkWeights }, settings });
    const handle = await throughFile(made.handle);
    const named = { ...plan, what: `${plan.what}, handle of the oracle` };
    for (const numBiases of [2, 0]) {
      await checkFusedCached(data, named, async (again) => {
        return (await group.dispatch({ kind: "fused", x: again, scales: null, handle })).x;
      });
      await checkFusedCombined(data, named, numBiases, (y, weights, bias) =>
        group.combine({ handle, x: y, topkWeights: weights, probs: null, bias }),
      );
    }
  }
  for (const plan of hybridPlans(data, SHARES)) {
    const settings = hybridSettings(data, plan);
    const made = await oracle.dispatch({ kind: "hybrid-ep", x, scales, routing: { topkIdx, topkWeights }, settings });
    const handle = await throughFile(made.handle);
    const named = { ...plan, what: `${plan.what}, handle of the oracle` };
    for (const _ of [0, 1]) {
      await checkHybridCached(data, named, async (again) => {
        return (await group.dispatch({ kind: "hybrid-ep", x: again, scales: null, handle })).x;
      });
      await checkHybridCombined(data, named, (y, probs) =>
        group.combine({ handle, x: y, topkWeights: null, probs, bias: [] }),
      );
    }
  }
  await oracle.close();
}

async function throughFile(handle: Handle): Promise<Handle> {
  const data = await handle.data();
  const tensors = encodeHandle(data);
  return Handle.of(await decodeHandle(data.meta.localRanks, async (name) => tensors.get(name)));
}
