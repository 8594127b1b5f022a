import type { DispatchSettings, Group } from "../../core/backend.ts";
import { type AnyTensor, type Tensor, tensor } from "../../core/tensor.ts";
import { BUDGETS } from "./cases.ts";
import { codes, type Data, random, rows, sumDtype } from "./data.ts";
import { expectCodes, expectEqual } from "./expect.ts";
import { gather, grid } from "./fused.ts";
import { combined, destinations, permutedRows, type Source } from "./reference.ts";

/** What one row budget keeps. */
export interface HybridPlan {
  readonly what: string;
  readonly padMultiple: number;
  /** null: exact. */
  readonly budget: number | null;
  /** Per destination: its rows and padded counts, and the rows that fit. */
  readonly exact: ReturnType<typeof permutedRows>;
  readonly kept: (Source | null)[][];
}

/** An exact run and the row budgets. */
export function hybridPlans(data: Data, shares: readonly number[] = BUDGETS): HybridPlan[] {
  const padMultiple = data.shape.padMultiple ?? 1;
  const exact = permutedRows(data.case, padMultiple);
  const most = Math.max(...exact.map(({ rows: all }) => all.length));
  return shares.map((share) => {
    const budget = share === 0 ? null : Math.ceil((most * share) / padMultiple) * padMultiple;
    const kept = exact.map(({ rows: all }) => (budget === null ? all : all.slice(0, budget)));
    return { what: `hybrid-ep, numPermutedTokens ${budget}`, padMultiple, budget, exact, kept };
  });
}

/** Dispatch with permute from both routing forms, cached dispatch, combine with unpermute; exact and with row budgets. */
export async function checkHybridEp(group: Group, data: Data): Promise<void> {
  for (const plan of hybridPlans(data)) {
    for (const form of plan.budget === null ? (["index", "multihot"] as const) : (["index"] as const)) {
      const result = await group.dispatch({
        kind: "hybrid-ep",
        x: data.x,
        scales: data.scales,
        routing: form === "index" ? { topkIdx: data.topkIdx, topkWeights: data.topkWeights } : multihot(data),
        settings: hybridSettings(data, plan),
      });
      await checkDispatched(data, result, plan, form);
      const { handle } = result;
      await checkHybridCached(data, plan, async (x) => {
        return (await group.dispatch({ kind: "hybrid-ep", x, scales: null, handle })).x;
      });
      await checkHybridCombined(data, plan, (x, probs) =>
        group.combine({ handle, x, topkWeights: null, probs, bias: [] }),
      );
    }
  }
}

export const hybridSettings = (data: Data, { padMultiple, budget }: HybridPlan): DispatchSettings => ({
  numExperts: data.shape.numExperts,
  expertAlignment: 1,
  numWorstTokens: 0,
  padMultiple,
  numPermutedTokens: budget,
});

type Result = Awaited<ReturnType<Group["dispatch"]>>;

async function checkDispatched(
  data: Data,
  result: Result,
  { what: run, kept, exact, budget }: HybridPlan,
  form: string,
): Promise<void> {
  const { shape } = data;
  const what = `${run}, ${form}`;
  const perRank = shape.numExperts / shape.numRanks;
  const handle = await result.handle.data();
  for (let dst = 0; dst < shape.numRanks; dst++) {
    const at = `${what}, rank ${dst}`;
    const numRows = budget ?? kept[dst].length;
    const want = gather(data.x, kept[dst], numRows);
    await expectCodes(`${at}, dispatchedHidden`, result.x[dst], [numRows, shape.hidden], want);
    if (data.scales !== null) {
      const wantScales = gather(data.scales, kept[dst], numRows);
      const size = [numRows, data.scales[0].shape[1]];
      await expectCodes(`${at}, dispatchedScalingFactor`, result.scales?.[dst], size, wantScales);
    }
    const experts = expertOfRow(exact[dst].counts, dst * perRank);
    const probs = Array.from({ length: numRows }, (_, row) => {
      const source = kept[dst][row] ?? null;
      if (source === null) return 0;
      const slot = data.case.topkIdx[source.rank][source.token].indexOf(experts[row]);
      return codes(data.topkWeights[source.rank])[source.token * shape.topk + slot];
    });
    await expectCodes(`${at}, dispatchedProbs`, result.probs?.[dst], [numRows], probs);
    let offset = 0;
    const trimmed = exact[dst].counts.map((count) => {
      const left = budget === null ? count : Math.min(count, Math.max(0, budget - offset));
      offset += count;
      return left;
    });
    expectEqual(`${at}, tokensPerExpert`, [...handle.ranks[dst].tokensPerExpert], trimmed);
    const cut = exact[dst].rows.slice(kept[dst].length).filter((source) => source !== null).length;
    expectEqual(`${at}, numCut`, handle.ranks[dst].overflow.numCut, cut);
    expectEqual(`${at}, overflow flag`, handle.ranks[dst].overflow.flag, cut > 0);
    const rowSources = kept[dst].map((source) => [source?.rank ?? -1, source?.token ?? -1]);
    const got = kept[dst].map((_, row) => [handle.ranks[dst].rowSrcRank[row], handle.ranks[dst].rowSrcToken[row]]);
    expectEqual(`${at}, sources of rows`, got, rowSources);
  }
}

/** New rows over the movement of an earlier dispatch. */
export async function checkHybridCached(
  data: Data,
  { what, kept, budget }: HybridPlan,
  dispatch: (x: Tensor[]) => Promise<readonly AnyTensor[]>,
): Promise<void> {
  const next = random(29);
  const { shape } = data;
  const again = data.x.map((value) => rows(sumDtype(shape), value.shape[0], shape.hidden, shape.values, next));
  const cached = await dispatch(again);
  for (let dst = 0; dst < shape.numRanks; dst++) {
    const numRows = budget ?? kept[dst].length;
    const want = gather(again, kept[dst], numRows);
    await expectCodes(`${what}, cached, rank ${dst}`, cached[dst], [numRows, shape.hidden], want);
  }
}

/** Sums of permuted rows, and their probs scattered to [tokens, experts]. */
export async function checkHybridCombined(
  data: Data,
  { what, kept, budget }: HybridPlan,
  combine: (
    y: Tensor[],
    probs: Tensor[],
  ) => Promise<{ readonly x: readonly AnyTensor[]; readonly probs: readonly AnyTensor[] | null }>,
): Promise<void> {
  const { shape } = data;
  const perRank = shape.numExperts / shape.numRanks;
  const dtype = sumDtype(shape);
  const next = random(31);
  // Padding rows hold noise, NaN among it: it must never reach a result.
  const y = kept.map((all) => rows(dtype, budget ?? all.length, shape.hidden, shape.values, next));
  const probs = y.map((value) => {
    const noise = rows("fp32", value.shape[0], 1, shape.values, next);
    return tensor("fp32", [value.shape[0]], noise.data as Float32Array);
  });
  const result = await combine(y, probs);
  const counts = permutedRows(data.case, shape.padMultiple ?? 1).map((one) => one.counts);
  const rowOf = kept.map((all, dst) => {
    const experts = expertOfRow(counts[dst], dst * perRank);
    return new Map(
      all.flatMap((s, row) => (s === null ? [] : [[`${s.rank}.${s.token}.${experts[row]}`, row] as const])),
    );
  });
  const yCodes = y.map(codes);
  for (let rank = 0; rank < shape.numRanks; rank++) {
    const tokens = shape.numTokens[rank];
    const parts = Array.from({ length: tokens }, (_, token) =>
      destinations(data.case, { rank, token })
        .map(({ dst, experts }) => ({
          dst,
          rows: experts.flatMap((expert) => rowOf[dst].get(`${rank}.${token}.${expert}`) ?? []),
        }))
        .filter((part) => part.rows.length > 0),
    );
    const wantX = grid(tokens, shape.hidden, (token, column) => {
      const terms = parts[token].map((part) => ({
        dst: part.dst,
        codes: part.rows.map((row) => yCodes[part.dst][row * shape.hidden + column]),
      }));
      return combined(dtype, data.case, terms, []);
    });
    await expectCodes(`${what}, combinedHidden, rank ${rank}`, result.x[rank], [tokens, shape.hidden], wantX);
    const wantProbs = grid(tokens, shape.numExperts, (token, expert) => {
      const dst = Math.floor(expert / perRank);
      const row = rowOf[dst].get(`${rank}.${token}.${expert}`);
      return row === undefined ? 0 : codes(probs[dst])[row];
    });
    const size = [tokens, shape.numExperts];
    await expectCodes(`${what}, combinedProbs, rank ${rank}`, result.probs?.[rank], size, wantProbs);
  }
}

/** The global expert of each row, from the padded counts. */
function expertOfRow(counts: number[], firstExpert: number): number[] {
  return counts.flatMap((count, i) => new Array<number>(count).fill(firstExpert + i));
}

export function multihot(data: Data): { routingMap: Tensor[]; probs: Tensor[] } {
  const { numExperts, topk } = data.shape;
  const maps: Tensor[] = [];
  const probs: Tensor[] = [];
  data.case.topkIdx.forEach((tokens, rank) => {
    const map = tensor("bool", [tokens.length, numExperts]);
    const values = tensor("fp32", [tokens.length, numExperts]);
    const bits = new Uint32Array(values.data.buffer);
    tokens.forEach((slots, token) =>
      slots.forEach((expert, slot) => {
        if (expert < 0) return;
        map.data[token * numExperts + expert] = 1;
        bits[token * numExperts + expert] = codes(data.topkWeights[rank])[token * topk + slot];
      }),
    );
    maps.push(map);
    probs.push(values);
  });
  return { routingMap: maps, probs };
}
