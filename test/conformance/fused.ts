import type { DispatchSettings, Group } from "../../core/backend.ts";
import type { AnyTensor, Tensor } from "../../core/tensor.ts";
import { BUDGETS } from "./cases.ts";
import { codes, type Data, random, rows, sumDtype } from "./data.ts";
import { expectCodes, expectEqual } from "./expect.ts";
import { type Case, combined, destinations, fusedRows, type Source } from "./reference.ts";

export const fusedSettings = (data: Data, numWorstTokens: number): DispatchSettings => ({
  numExperts: data.shape.numExperts,
  expertAlignment: data.shape.expertAlignment ?? 1,
  numWorstTokens,
  padMultiple: 1,
  numPermutedTokens: null,
});

/** What one row budget keeps. */
export interface FusedPlan {
  readonly what: string;
  readonly numWorstTokens: number;
  /** Per destination: its rows, those that fit, and how many rows the output has. */
  readonly exact: Source[][];
  readonly kept: Source[][];
  readonly numRows: number[];
}

/** An exact run and the row budgets. */
export function fusedPlans(data: Data, shares: readonly number[] = BUDGETS): FusedPlan[] {
  const exact = fusedRows(data.case);
  const most = Math.max(...exact.map((sources) => sources.length));
  return shares.flatMap((share) => {
    const numWorstTokens = Math.ceil(most * share);
    if (share > 0 && numWorstTokens === 0) return [];
    const kept = exact.map((sources) => (share === 0 ? sources : sources.slice(0, numWorstTokens)));
    const numRows = kept.map((sources) => (share === 0 ? sources.length : numWorstTokens));
    return [{ what: `fused, numWorstTokens ${numWorstTokens}`, numWorstTokens, exact, kept, numRows }];
  });
}

/** Dispatch, cached dispatch, combine with weights and biases, for an exact run and for row budgets. */
export async function checkFused(group: Group, data: Data): Promise<void> {
  for (const plan of fusedPlans(data)) await checkRun(group, data, plan);
}

async function checkRun(group: Group, data: Data, plan: FusedPlan): Promise<void> {
  const { shape, x, scales, topkIdx, topkWeights } = data;
  const { what, numWorstTokens, exact, kept, numRows } = plan;
  const result = await group.dispatch({
    kind: "fused",
    x,
    scales,
    routing: { topkIdx, topkWeights },
    settings: fusedSettings(data, numWorstTokens),
  });
  const handle = await result.handle.data();
  const perRank = shape.numExperts / shape.numRanks;
  for (let dst = 0; dst < shape.numRanks; dst++) {
    const at = `${what}, rank ${dst}`;
    await expectCodes(`${at}, recvX`, result.x[dst], [numRows[dst], shape.hidden], gather(x, kept[dst], numRows[dst]));
    if (scales !== null) {
      const width = scales[0].shape[1];
      const want = gather(scales, kept[dst], numRows[dst]);
      await expectCodes(`${at}, recvXScales`, result.scales?.[dst], [numRows[dst], width], want);
    }
    const slots = kept[dst].map(({ rank, token }) =>
      data.case.topkIdx[rank][token].map((expert) => local(expert, dst, perRank)),
    );
    const ids = slots.flat();
    const tail = Array.from({ length: (numRows[dst] - kept[dst].length) * shape.topk }, () => -1);
    await expectCodes(`${at}, recvTopkIdx`, result.topkIdx?.[dst], [numRows[dst], shape.topk], [...ids, ...tail]);
    const weights = gather(topkWeights, kept[dst], numRows[dst]).map((code, i) => ((ids[i] ?? -1) < 0 ? 0 : code));
    await expectCodes(`${at}, recvTopkWeights`, result.topkWeights?.[dst], [numRows[dst], shape.topk], weights);
    const counts = Array.from({ length: perRank }, (_, e) => ids.filter((expert) => expert === e).length);
    const alignment = shape.expertAlignment ?? 1;
    const rounded = counts.map((count) => Math.ceil(count / alignment) * alignment);
    expectEqual(`${at}, tokensPerExpert`, [...handle.ranks[dst].tokensPerExpert], numWorstTokens > 0 ? [] : rounded);
    expectEqual(
      `${at}, recvSrcToken`,
      [...handle.ranks[dst].rowSrcToken].slice(0, kept[dst].length),
      kept[dst].map((s) => s.token),
    );
    const cut = exact[dst].slice(kept[dst].length).flatMap((source) => cutSlots(data.case, source, dst));
    expectEqual(`${at}, overflow`, [...handle.ranks[dst].overflow.cut], cut.flat());
    expectEqual(`${at}, overflow flag`, handle.ranks[dst].overflow.flag, cut.length > 0);
  }
  const { handle: made } = result;
  await checkFusedCached(data, plan, async (again) => {
    return (await group.dispatch({ kind: "fused", x: again, scales: null, handle: made })).x;
  });
  for (const numBiases of [0, 1, 2]) {
    await checkFusedCombined(data, plan, numBiases, (y, weights, bias) =>
      group.combine({ handle: made, x: y, topkWeights: weights, probs: null, bias }),
    );
  }
}

/** New rows over the movement of an earlier dispatch. */
export async function checkFusedCached(
  data: Data,
  { what, kept, numRows }: FusedPlan,
  dispatch: (x: Tensor[]) => Promise<readonly AnyTensor[]>,
): Promise<void> {
  const { shape } = data;
  const next = random(17);
  const again = data.x.map((value) => rows(value.dtype, value.shape[0], shape.hidden, shape.values, next));
  const cached = await dispatch(again);
  for (let dst = 0; dst < shape.numRanks; dst++) {
    const want = gather(again, kept[dst], numRows[dst]);
    await expectCodes(`${what}, cached, rank ${dst}`, cached[dst], [numRows[dst], shape.hidden], want);
  }
}

/** Sums of rows, of weights, and of 0, 1 or 2 biases. */
export async function checkFusedCombined(
  data: Data,
  { what, kept, numRows }: FusedPlan,
  numBiases: number,
  combine: (
    y: Tensor[],
    weights: Tensor[],
    bias: Tensor[][],
  ) => Promise<{ readonly x: readonly AnyTensor[]; readonly topkWeights: readonly AnyTensor[] | null }>,
): Promise<void> {
  const { shape } = data;
  const dtype = sumDtype(shape);
  const next = random(23);
  const y = numRows.map((count) => rows(dtype, count, shape.hidden, shape.values, next));
  const weights = numRows.map((count) => rows("fp32", count, shape.topk, shape.values, next));
  const biases = [0, 1].map(() => data.x.map((value) => rows(dtype, value.shape[0], shape.hidden, shape.values, next)));
  const rowOf = kept.map((sources) => new Map(sources.map(({ rank, token }, row) => [`${rank}.${token}`, row])));
  const [yCodes, weightCodes] = [y.map(codes), weights.map(codes)];
  const bias = biases.slice(0, numBiases);
  const result = await combine(y, weights, bias);
  for (let rank = 0; rank < shape.numRanks; rank++) {
    const at = `${what}, combine with ${bias.length} biases, rank ${rank}`;
    const tokens = shape.numTokens[rank];
    const parts = Array.from({ length: tokens }, (_, token) =>
      destinations(data.case, { rank, token }).flatMap(({ dst }) => {
        const row = rowOf[dst].get(`${rank}.${token}`);
        return row === undefined ? [] : [{ dst, row }];
      }),
    );
    const element = (
      values: ArrayLike<number>[],
      width: number,
      format: typeof dtype,
      token: number,
      column: number,
      extra: number[],
    ) =>
      combined(
        format,
        data.case,
        parts[token].map(({ dst, row }) => ({ dst, codes: [values[dst][row * width + column]] })),
        extra,
      );
    const biasCodes = bias.map((b) => codes(b[rank]));
    const wantX = grid(tokens, shape.hidden, (token, column) =>
      element(
        yCodes,
        shape.hidden,
        dtype,
        token,
        column,
        biasCodes.map((b) => b[token * shape.hidden + column]),
      ),
    );
    await expectCodes(`${at}, combinedX`, result.x[rank], [tokens, shape.hidden], wantX);
    const wantWeights = grid(tokens, shape.topk, (token, slot) =>
      element(weightCodes, shape.topk, "fp32", token, slot, []),
    );
    await expectCodes(`${at}, combinedTopkWeights`, result.topkWeights?.[rank], [tokens, shape.topk], wantWeights);
  }
}

const local = (expert: number, dst: number, perRank: number) =>
  expert >= 0 && Math.floor(expert / perRank) === dst ? expert - dst * perRank : -1;

function cutSlots(c: Case, { rank, token }: Source, dst: number): number[][] {
  const perRank = c.numExperts / c.numRanks;
  return c.topkIdx[rank][token].flatMap((expert, slot) =>
    local(expert, dst, perRank) >= 0 ? [[rank, token, slot, expert]] : [],
  );
}

/** The codes of the sources' rows, then zeros up to `numRows`. */
export function gather(values: readonly Tensor[], sources: readonly (Source | null)[], numRows: number): number[] {
  const width = values[0].shape[1];
  const all = values.map(codes);
  const rows = new Array<number>(numRows * width).fill(0);
  sources.slice(0, numRows).forEach((source, row) => {
    if (source === null) return;
    for (let i = 0; i < width; i++) rows[row * width + i] = all[source.rank][source.token * width + i];
  });
  return rows;
}

export function grid(rowCount: number, width: number, value: (row: number, column: number) => number): number[] {
  return Array.from({ length: rowCount * width }, (_, i) => value(Math.floor(i / width), i % width));
}
