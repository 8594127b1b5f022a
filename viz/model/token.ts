import { type Frame, layoutOf, logicalOf, nodeOf, rankOf, tokensPerRank } from "./dataset.ts";
import { type FlowModel, flowModel } from "./flow.ts";
import { percent, sum, text } from "./numbers.ts";
import type { Quantity, ViewState } from "./state.ts";
import type { Table } from "./table.ts";

/** One slot of the inspected token. */
export interface TokenSlot {
  readonly slot: number;
  readonly expert: number;
  readonly logical: number;
  readonly rank: number;
  readonly node: number;
  readonly weight: number | null;
  /** Row on the destination; null when it was cut by overflow. */
  readonly row: number | null;
}

/** What combine adds, in this order (design 2.4, 2.5): rows of a rank, ranks of a node, nodes. */
export interface CombineNode {
  readonly node: number;
  readonly ranks: readonly { readonly rank: number; readonly rows: readonly number[] }[];
}

/** One token from its rank through its experts and back; and the neighbours it is chosen from. */
export interface TokenModel {
  readonly rank: number;
  readonly token: number;
  readonly numTokens: number;
  readonly slots: readonly TokenSlot[];
  readonly combine: readonly CombineNode[];
  readonly weightSum: number | null;
  readonly style: "fused" | "hybrid-ep";
  readonly numNodes: number;
  readonly quantity: Quantity;
  /** [numTokens] of the source rank, NaN where it does not apply. */
  readonly strip: Float64Array;
  readonly stripRange: readonly [number, number];
  /** Where the selected slots flow. */
  readonly flow: FlowModel | null;
}

export function tokenModel(frame: Frame, state: ViewState): TokenModel {
  const { header, chunk, layer } = frame;
  const counts = tokensPerRank(frame);
  const fallback = Math.max(
    0,
    counts.findIndex((count) => count > 0),
  );
  const wanted = state.token ?? [state.src[0] ?? fallback, state.tokens?.[0] ?? 0];
  const rank = Math.min(wanted[0], header.numRanks - 1);
  const numTokens = counts[rank];
  const token = Math.max(0, Math.min(wanted[1], numTokens - 1));
  const ids = chunk?.topkIdx[rank] ?? new Int32Array(0);
  const weights = chunk?.topkWeights?.[rank] ?? null;
  const rows = new Map<string, number>();
  const source = numTokens > 0 ? layoutOf(frame)?.ranks[rank] : undefined;
  const combine: { node: number; ranks: { rank: number; rows: number[] }[] }[] = [];
  for (let i = 0; source && i < source.numEntries; i++) {
    const at = token * source.numEntries + i;
    const dst = source.sendRank[at];
    if (dst < 0) continue;
    rows.set(source.sendExpert ? `expert ${source.sendExpert[at]}` : `rank ${dst}`, source.sendRow[at]);
    const node = nodeOf(header, dst);
    if (combine.at(-1)?.node !== node) combine.push({ node, ranks: [] });
    const ranks = combine[combine.length - 1].ranks;
    if (ranks.at(-1)?.rank !== dst) ranks.push({ rank: dst, rows: [] });
    ranks[ranks.length - 1].rows.push(source.sendRow[at]);
  }
  const slots: TokenSlot[] = [];
  for (let slot = 0; slot < header.topk && numTokens > 0; slot++) {
    const expert = ids[token * header.topk + slot];
    if (expert < 0) continue;
    const dst = rankOf(header, expert);
    slots.push({
      slot,
      expert,
      logical: logicalOf(header, layer, expert),
      rank: dst,
      node: nodeOf(header, dst),
      weight: weights ? weights[token * header.topk + slot] : null,
      row: rows.get(`expert ${expert}`) ?? rows.get(`rank ${dst}`) ?? null,
    });
  }
  const strip = stripOf(frame, rank, numTokens, state.quantity);
  return {
    rank,
    token,
    numTokens,
    slots,
    combine,
    weightSum: weights ? sum(slots.map(({ weight }) => weight ?? 0)) : null,
    style: header.style,
    numNodes: header.numRanks / header.ranksPerNode,
    quantity: state.quantity,
    strip,
    stripRange: rangeOf(strip),
    flow: flowModel(frame, state),
  };
}

/** A quantity per token: share of remote slots, ranks reached, largest weight, entropy of the weights in bits. */
function stripOf(frame: Frame, rank: number, numTokens: number, quantity: Quantity): Float64Array {
  const { header, chunk } = frame;
  const result = new Float64Array(numTokens).fill(Number.NaN);
  const ids = chunk?.topkIdx[rank];
  const weights = chunk?.topkWeights?.[rank];
  if (!ids || ((quantity === "top" || quantity === "entropy") && !weights)) return result;
  const lastToken = new Int32Array(header.numRanks).fill(-1);
  for (let token = 0; token < numTokens; token++) {
    let [count, remote, ranks, top, total] = [0, 0, 0, 0, 0];
    for (let i = token * header.topk; i < (token + 1) * header.topk; i++) {
      if (ids[i] < 0) continue;
      const dst = rankOf(header, ids[i]);
      count++;
      if (dst !== rank) remote++;
      if (lastToken[dst] !== token) ranks++;
      lastToken[dst] = token;
      const weight = weights?.[i] ?? 0;
      total += weight;
      top = Math.max(top, weight);
    }
    if (count === 0) continue;
    let entropy = 0;
    for (let i = token * header.topk; quantity === "entropy" && i < (token + 1) * header.topk; i++) {
      const share = ids[i] < 0 ? 0 : (weights?.[i] ?? 0) / total;
      if (share > 0) entropy -= share * Math.log2(share);
    }
    result[token] = { remote: remote / count, ranks, top, entropy }[quantity];
  }
  return result;
}

function rangeOf(values: Float64Array): [number, number] {
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : [0, 1];
}

export const QUANTITY_NAMES: Readonly<Record<Quantity, string>> = {
  remote: "share of slots on other ranks",
  ranks: "ranks reached",
  top: "largest weight",
  entropy: "entropy of the weights (bits)",
};

export function tokenTable(model: TokenModel): Table {
  return {
    title: `Token ${model.token} of rank ${model.rank}`,
    columns: ["slot", "expert", "logical expert", "rank", "node", "weight", "row on that rank"],
    rows: model.slots.map((s) => [s.slot, s.expert, s.logical, s.rank, s.node, s.weight, s.row]),
    numKeys: 1,
  };
}

/** The combine order in words: "((rank 1: row 4) + (rank 2: row 9 + row 12)) of node 0, then ...". */
export function combineOrder(model: TokenModel): string {
  if (model.combine.length === 0) return "zeros (plus bias): the token went nowhere";
  const rankText = ({ rank, rows }: { rank: number; rows: readonly number[] }) => {
    const list = rows.map((row) => `row ${text(row)}`).join(" + ");
    return `${rows.length > 1 ? `(${list})` : list} of rank ${rank}`;
  };
  if (model.numNodes === 1) return model.combine[0].ranks.map(rankText).join(" + ");
  return model.combine.map(({ node, ranks }) => `[${ranks.map(rankText).join(" + ")}] of node ${node}`).join(" + ");
}

export function describeToken(model: TokenModel): string {
  if (model.numTokens === 0) return `Rank ${model.rank} holds no tokens in this layer.`;
  const remote = model.slots.filter((slot) => slot.rank !== model.rank).length;
  const ranks = new Set(model.slots.map((slot) => slot.rank)).size;
  const once = model.slots.length > ranks && model.style === "fused" ? `, sent ${ranks} times thanks to dedup` : "";
  const weights = model.weightSum === null ? "no weights in the file" : `weights sum to ${text(model.weightSum)}`;
  return (
    `Token ${model.token} of ${text(model.numTokens)} on rank ${model.rank}: ${model.slots.length} experts on ${ranks} ranks${once}, ` +
    `${percent(model.slots.length ? remote / model.slots.length : 0)} remote; ${weights}. Combine adds ${combineOrder(model)}.`
  );
}
