import { InvalidArgument } from "../errors.ts";
import type { HandleData, HandleMeta, RankHandle } from "./handle.ts";

/** Settings and sizes of a handle fit each other and the lengths of its arrays. Throws InvalidArgument. */
export function checkMeta(data: HandleData): void {
  const { meta } = data;
  checkSettings(meta);
  const ranks = data.ranks.map((rank) => rank.rank);
  const listed = ranks.length > 0 && ranks.join() === meta.localRanks.join();
  const ascending = ranks.every((rank, i) => rank >= 0 && rank < meta.numRanks && (i === 0 || rank > ranks[i - 1]));
  if (!listed || !ascending) {
    throw bad("handle ranks", `ascending ranks of 0..${meta.numRanks - 1}, as listed`, ranks.join() || "none");
  }
  for (const rank of data.ranks) checkSizes(meta, rank);
}

function checkSettings(meta: HandleMeta): void {
  const { kind, topk, expertAlignment, numWorstTokens, padMultiple, numPermutedTokens } = meta;
  if (kind !== "fused" && kind !== "hybrid-ep") throw bad("handle kind", "fused or hybrid-ep", `${kind}`);
  expectWhole("handle topk", topk, 1, meta.numExperts);
  const fused = kind === "fused";
  expectWhole("handle expertAlignment", expertAlignment, 1, fused ? MOST : 1);
  expectWhole("handle numWorstTokens", numWorstTokens, 0, fused ? MOST : 0);
  expectWhole("handle padMultiple", padMultiple, 1, fused ? 1 : MOST);
  if (numPermutedTokens === null) return;
  expectWhole("handle numPermutedTokens", numPermutedTokens, 0, fused ? -1 : MOST);
  if (numPermutedTokens % padMultiple === 0) return;
  throw bad("handle numPermutedTokens", `a multiple of padMultiple ${padMultiple}`, `${numPermutedTokens}`);
}

function checkSizes(meta: HandleMeta, rank: RankHandle): void {
  const fused = meta.kind === "fused";
  const at = rank.rank;
  const width = fused ? Math.min(meta.topk, meta.numRanks) : meta.topk;
  const budget = fused ? meta.numWorstTokens || null : meta.numPermutedTokens;
  expectWhole("handle numTokens", rank.numTokens, 0, MOST, at);
  expectWhole("handle numEntries", rank.numEntries, width, width, at);
  expectWhole("handle numRows", rank.numRows, budget ?? 0, budget ?? MOST, at);
  const entries = rank.numTokens * rank.numEntries;
  const numLocalExperts = meta.numExperts / meta.numRanks;
  const sizes: [string, ArrayLike<number> | null, number | null][] = [
    ["send_rank", rank.sendRank, entries],
    ["send_row", rank.sendRow, entries],
    ["send_expert", rank.sendExpert, fused ? null : entries],
    ["send_slot", rank.sendSlot, fused ? null : entries],
    ["row_src_rank", rank.rowSrcRank, rank.numRows],
    ["row_src_token", rank.rowSrcToken, rank.numRows],
    ["num_tokens_per_expert", rank.numTokensPerExpert, numLocalExperts],
    ["tokens_per_expert", rank.tokensPerExpert, fused && meta.numWorstTokens > 0 ? 0 : numLocalExperts],
  ];
  for (const [name, values, expected] of sizes) {
    if ((values?.length ?? null) === expected) continue;
    throw bad(`handle.${name}`, `${expected ?? "no"} elements`, `${values?.length ?? "none"}`, at);
  }
}

const MOST = 2 ** 31 - 1;

function expectWhole(name: string, value: number, least: number, most: number, rank?: number): void {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return;
  const range = most < least ? "none" : least === most ? `${least}` : `a whole number of ${least}..${most}`;
  throw bad(name, range, `${value}`, rank);
}

function bad(name: string, expected: string, received: string, rank?: number): InvalidArgument {
  const where = rank === undefined ? {} : { rank };
  return new InvalidArgument({ name, expected, received, where, remedy: HANDLE_REMEDY });
}

export const HANDLE_REMEDY = "use the handle tensors of one dispatch, unchanged";
