/**
 * Megatron's flex dispatcher from router to output and back, with our functions where it calls DeepEP or HybridEP. What
 * only moves is compared bitwise; the outputs with the peer's float64 values, because the peer sums its unpermute in bf16.
 */
import { describe, expect, test } from "vitest";
import type { Group } from "../../core/backend.ts";
import { bf16FromNumber, bf16ToNumber } from "../../core/dtype/bf16.ts";
import { resetBuffer, resetHybridEpBuffer } from "../../core/functions/buffers.ts";
import { FunctionContext } from "../../core/functions/context.ts";
import { FusedCombine, FusedDispatch } from "../../core/functions/fused.ts";
import { HybridEPCombine, HybridEPDispatch } from "../../core/functions/hybridEp.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import { type AnyTensor, type Tensor, tensor } from "../../core/tensor.ts";
import { type GoldenFile, goldenPresent, goldenReason, openGolden } from "./file.ts";

const value = (x: Tensor, row: number, column: number) => bf16ToNumber(x.data[row * x.shape[1] + column] as number);
const round = (x: number) => bf16ToNumber(bf16FromNumber(x));
const host = (values: readonly AnyTensor[] | null) => values as Tensor[];

/** Megatron's topk of probs: descending, so that slot 0 is the strongest expert. */
function topkOfProbs(probs: Tensor, topk: number): { indices: Tensor; weights: Tensor } {
  const [tokens, numExperts] = probs.shape;
  const indices = tensor("i64", [tokens, topk]);
  const weights = tensor("fp32", [tokens, topk]);
  for (let token = 0; token < tokens; token++) {
    const row = Array.from(probs.data.slice(token * numExperts, (token + 1) * numExperts), Number);
    const order = row.map((_, expert) => expert).sort((a, b) => row[b] - row[a]);
    for (let slot = 0; slot < topk; slot++) {
      indices.data[token * topk + slot] = BigInt(order[slot]);
      weights.data[token * topk + slot] = row[order[slot]];
    }
  }
  return { indices, weights };
}

interface PermutedRow {
  readonly row: number;
  readonly slot: number;
  readonly expert: number;
  readonly prob: number;
}

/** Expert-major (row, slot) pairs of one rank's recv rows. */
function permuted(rank: number, local: number, ids: Tensor, weights: Tensor): PermutedRow[] {
  const [rows, topk] = ids.shape;
  const found: PermutedRow[] = [];
  for (let e = 0; e < local; e++) {
    for (let i = 0; i < rows * topk; i++) {
      if (Number(ids.data[i]) !== e) continue;
      found.push({
        row: Math.floor(i / topk),
        slot: i % topk,
        expert: rank * local + e,
        prob: Number(weights.data[i]),
      });
    }
  }
  return found;
}

function expectClose(what: string, got: readonly AnyTensor[] | null, want: readonly Tensor[]): void {
  const largest = Math.max(...want.flatMap((one) => [...(one.data as Float32Array)].map(Math.abs)));
  let worst = 0;
  want.forEach((exact, rank) => {
    const mine = host(got)[rank];
    expect(mine.shape, `${what}, rank ${rank}`).toEqual(exact.shape);
    const number = (i: number) => (mine.dtype === "bf16" ? bf16ToNumber(mine.data[i] as number) : Number(mine.data[i]));
    for (let i = 0; i < exact.data.length; i++) {
      worst = Math.max(worst, Math.abs(number(i) - Number(exact.data[i])));
    }
  });
  expect(largest).toBeGreaterThan(0);
  expect(worst / largest, what).toBeLessThan(1e-2);
}

/** f_e(x) = bf16(bf16(x * (e+1) / 8) * prob), e the global expert (stated in the golden file). */
const scaled = (x: number, expert: number) => round(Math.fround(x * ((expert + 1) / 8)));

async function fusedPipeline(golden: GoldenFile, group: Group): Promise<void> {
  const local = golden.numExperts / golden.numRanks;
  const [ctx, ctx2] = [new FunctionContext(), new FunctionContext()];
  const routed = golden.read("probs").map((probs) => topkOfProbs(probs, 2));
  const indices = routed.map((one) => one.indices);
  const weights = routed.map((one) => one.weights);
  await golden.expect("token_indices", indices);
  await golden.expect("token_probs", weights);
  const out = await FusedDispatch.forward(ctx, golden.read("x"), indices, weights, golden.numExperts, group);
  await golden.expect("recv_x", out.recvX);
  await golden.expect("recv_topk_idx", out.recvTokenIndices);
  await golden.expect("recv_topk_weights", out.recvTokenProbs);
  await golden.expect("num_recv_tokens_per_expert", out.tokensPerExpert);

  const recvX = host(out.recvX);
  const hidden = recvX[0].shape[1];
  const rows = recvX.map((_, rank) =>
    permuted(rank, local, host(out.recvTokenIndices)[rank], host(out.recvTokenProbs)[rank]),
  );
  const permutedX = rows.map((list, rank) =>
    tensor(
      "bf16",
      [list.length, hidden],
      Uint16Array.from({ length: list.length * hidden }, (_, i) => {
        return recvX[rank].data[list[Math.floor(i / hidden)].row * hidden + (i % hidden)] as number;
      }),
    ),
  );
  await golden.expect("permuted_x", permutedX);
  const outputs = rows.map((list, rank) =>
    list.map(({ row, expert, prob }) =>
      Array.from({ length: hidden }, (_, c) => round(Math.fround(scaled(value(recvX[rank], row, c), expert) * prob))),
    ),
  );
  await golden.expect(
    "expert_output",
    outputs.map((list) => tensor("bf16", [list.length, hidden], Uint16Array.from(list.flat(), bf16FromNumber))),
  );
  const sums = recvX.map((x) => new Float64Array(x.data.length));
  rows.forEach((list, rank) =>
    list.forEach(({ row }, i) => outputs[rank][i].forEach((one, c) => (sums[rank][row * hidden + c] += one))),
  );
  const unpermuted = sums.map((sum, rank) => tensor("bf16", recvX[rank].shape, Uint16Array.from(sum, bf16FromNumber)));
  const combined = await FusedCombine.forward(ctx2, unpermuted, group, out.handle);
  expectClose("output", combined.combinedX, golden.read("expected.output_f64"));

  // Backward: through combine, the experts by hand, and dispatch.
  const gradRows = host((await FusedCombine.backward(ctx2, golden.read("grad_output"))).gradX);
  const gradX = recvX.map((x) => new Float64Array(x.data.length));
  const gradProbs = host(out.recvTokenProbs).map((one) => tensor("fp32", one.shape));
  rows.forEach((list, rank) =>
    list.forEach(({ row, slot, expert, prob }) => {
      let sum = 0;
      for (let c = 0; c < hidden; c++) {
        const grad = value(gradRows[rank], row, c);
        gradX[rank][row * hidden + c] += (grad * prob * (expert + 1)) / 8;
        sum += grad * scaled(value(recvX[rank], row, c), expert);
      }
      gradProbs[rank].data[row * 2 + slot] = sum;
    }),
  );
  const gradRecvX = gradX.map((sum, rank) => tensor("bf16", recvX[rank].shape, Uint16Array.from(sum, bf16FromNumber)));
  const back = await FusedDispatch.backward(ctx, gradRecvX, null, gradProbs);
  expectClose("grad_x", back.gradX, golden.read("expected.grad_x_f64"));
  const dense = host(back.gradTokenProbs).map((grads, rank) => {
    const result = tensor("fp32", [grads.shape[0], golden.numExperts]);
    grads.data.forEach((one, i) => {
      result.data[Math.floor(i / 2) * golden.numExperts + Number(indices[rank].data[i])] = Number(one);
    });
    return result;
  });
  expectClose("grad_probs", dense, golden.read("expected.grad_probs_f64"));
}

async function hybridPipeline(golden: GoldenFile, group: Group): Promise<void> {
  const local = golden.numExperts / golden.numRanks;
  const [ctx, ctx2] = [new FunctionContext(), new FunctionContext()];
  const routingMap = golden.read("routing_map");
  const out = await HybridEPDispatch.forward(ctx, golden.read("x"), routingMap, golden.read("probs"), group, local);
  await golden.expect("permuted_x", out.dispatchedHidden);
  await golden.expect("permuted_probs", out.dispatchedProbs);
  await golden.expect("tokens_per_expert", out.tokensPerExpert);
  const x = host(out.dispatchedHidden);
  const hidden = x[0].shape[1];
  const experts = host(out.tokensPerExpert).map((counts, rank) =>
    Array.from(counts.data, Number).flatMap((count, e) => new Array<number>(count).fill(rank * local + e)),
  );
  const probs = host(out.dispatchedProbs).map((one) => Array.from(one.data, Number));
  const map = (f: (rank: number, row: number, column: number) => number) =>
    x.map((one, rank) => {
      const code = (_: unknown, i: number) => bf16FromNumber(f(rank, Math.floor(i / hidden), i % hidden));
      const codes = Uint16Array.from({ length: one.data.length }, code);
      return tensor("bf16", one.shape, codes);
    });
  const y = map((rank, row, c) => Math.fround(scaled(value(x[rank], row, c), experts[rank][row]) * probs[rank][row]));
  await golden.expect("expert_output", y);
  const combined = await HybridEPCombine.forward(ctx2, y, out.handle);
  expectClose("output", combined.combinedHidden, golden.read("expected.output_f64"));

  const grads = host((await HybridEPCombine.backward(ctx2, golden.read("grad_output"))).gradX);
  const gradX = map((rank, row, c) => (value(grads[rank], row, c) * probs[rank][row] * (experts[rank][row] + 1)) / 8);
  const gradProbs = x.map((one, rank) => {
    const result = tensor("fp32", [one.shape[0]]);
    for (let i = 0; i < one.data.length; i++) {
      const [row, c] = [Math.floor(i / hidden), i % hidden];
      result.data[row] += value(grads[rank], row, c) * scaled(value(one, row, c), experts[rank][row]);
    }
    return result;
  });
  const back = await HybridEPDispatch.backward(ctx, gradX, gradProbs);
  expectClose("grad_x", back.gradX, golden.read("expected.grad_x_f64"));
  expectClose("grad_probs", back.gradProbs, golden.read("expected.grad_probs_f64"));
}

describe.skipIf(!goldenPresent)(`Megatron's flex dispatcher, 2 ranks${goldenReason}`, () => {
  test.each([
    ["through FusedDispatch and FusedCombine", fusedPipeline],
    ["through HybridEPDispatch and HybridEPCombine", hybridPipeline],
  ])("%s", async (_, run) => {
    const golden = await openGolden("megatron_flex_deepep_r2");
    const group = await createOracleBackend().createGroup({ numRanks: golden.numRanks });
    await run(golden, group);
    resetBuffer();
    resetHybridEpBuffer();
  });
});
