import type { Group } from "../../core/backend.ts";
import { resetBuffer, resetHybridEpBuffer } from "../../core/functions/buffers.ts";
import { FunctionContext } from "../../core/functions/context.ts";
import { FusedCombine, FusedDispatch } from "../../core/functions/fused.ts";
import { HybridEPCombine, HybridEPDispatch } from "../../core/functions/hybridEp.ts";
import { type Data, random, rows, sumDtype } from "./data.ts";
import { checkFusedCached, checkFusedCombined, fusedPlans } from "./fused.ts";
import { checkHybridCached, checkHybridCombined, hybridPlans, multihot } from "./hybridEp.ts";

const SHARES = [0, 0.5];

/** The four functions, forward and backward (design 2.6): a backward is a combine, or a dispatch with the saved handle. */
export async function checkBackward(group: Group, data: Data): Promise<void> {
  try {
    await checkFusedBackward(group, data);
    await checkHybridBackward(group, data);
  } finally {
    resetBuffer();
    resetHybridEpBuffer();
  }
}

async function checkFusedBackward(group: Group, data: Data): Promise<void> {
  const { x, topkIdx, topkWeights, shape } = data;
  for (const plan of fusedPlans(data, SHARES)) {
    const [dispatched, combined] = [new FunctionContext(), new FunctionContext()];
    const { numExperts } = shape;
    const options = { numWorstTokens: plan.numWorstTokens };
    const out = await FusedDispatch.forward(dispatched, x, topkIdx, topkWeights, numExperts, group, options);
    await checkFusedCombined(data, { ...plan, what: `${plan.what}, dispatch backward` }, 0, async (y, weights) => {
      const { gradX, gradTokenProbs } = await FusedDispatch.backward(dispatched, y, null, weights);
      return { x: gradX, topkWeights: gradTokenProbs };
    });
    const next = random(41);
    const y = plan.numRows.map((count) => rows(sumDtype(shape), count, shape.hidden, shape.values, next));
    await FusedCombine.forward(combined, y, group, out.handle);
    await checkFusedCached(data, { ...plan, what: `${plan.what}, combine backward` }, async (grad) => {
      return (await FusedCombine.backward(combined, grad)).gradX;
    });
  }
}

async function checkHybridBackward(group: Group, data: Data): Promise<void> {
  const { x, shape } = data;
  const { routingMap, probs: given } = multihot(data);
  const numLocalExperts = shape.numExperts / shape.numRanks;
  for (const plan of hybridPlans(data, SHARES)) {
    const [dispatched, combined] = [new FunctionContext(), new FunctionContext()];
    const { padMultiple, budget: numPermutedTokens } = plan;
    const options = { padMultiple, numPermutedTokens, scalingFactor: data.scales };
    const forward = HybridEPDispatch.forward(dispatched, x, routingMap, given, group, numLocalExperts, options);
    const out = await forward;
    await checkHybridCombined(data, { ...plan, what: `${plan.what}, dispatch backward` }, async (y, probs) => {
      const { gradX, gradProbs } = await HybridEPDispatch.backward(dispatched, y, probs);
      return { x: gradX, probs: gradProbs };
    });
    const next = random(43);
    const y = plan.kept.map((all) => {
      return rows(sumDtype(shape), numPermutedTokens ?? all.length, shape.hidden, shape.values, next);
    });
    await HybridEPCombine.forward(combined, y, out.handle);
    await checkHybridCached(data, { ...plan, what: `${plan.what}, combine backward` }, async (grad) => {
      return (await HybridEPCombine.backward(combined, grad)).gradX;
    });
  }
}
