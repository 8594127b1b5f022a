import type { TraceHeader } from "../../core/trace/format.ts";
import { rankOf } from "./dataset.ts";
import type { Patch } from "./state.ts";

export interface Hit {
  readonly label: string;
  readonly patch: Patch;
}

const WORDS: Readonly<Record<string, "rank" | "expert" | "token" | "layer" | "node" | "step">> = {
  r: "rank",
  rank: "rank",
  e: "expert",
  expert: "expert",
  t: "token",
  token: "token",
  l: "layer",
  layer: "layer",
  n: "node",
  node: "node",
  s: "step",
  step: "step",
};

/** What a search text can mean: "expert 17", "e17", "rank 2 token 5", "layer 4"; a bare number is tried as everything. */
export function search(query: string, header: TraceHeader, currentRank: number): Hit[] {
  const found: Partial<Record<string, number>> = {};
  const text = query.trim().toLowerCase();
  for (const [, word, digits] of text.matchAll(/([a-z]+)\s*(\d{1,9})/g)) {
    if (WORDS[word]) found[WORDS[word]] = Number(digits);
  }
  if (/^\d{1,9}$/.test(text)) {
    const value = Number(text);
    return (["expert", "rank", "layer", "token"] as const).flatMap((kind) =>
      hits({ [kind]: value }, header, currentRank),
    );
  }
  return hits(found, header, currentRank);
}

function hits(found: Partial<Record<string, number>>, header: TraceHeader, currentRank: number): Hit[] {
  const { rank, expert, token, layer, node, step } = found;
  const result: Hit[] = [];
  const add = (ok: boolean, label: string, patch: Patch) => {
    if (ok) result.push({ label, patch });
  };
  if (token !== undefined) {
    const from = rank ?? currentRank;
    add(from < header.numRanks, `token ${token} of rank ${from}: inspect`, { view: "token", token: [from, token] });
    return result;
  }
  if (expert !== undefined) {
    const owner = rankOf(header, expert);
    add(expert < header.numExperts, `expert ${expert} on rank ${owner}: select`, {
      view: "load",
      unit: "expert",
      experts: [expert],
    });
  }
  if (rank !== undefined && rank < header.numRanks) {
    add(true, `rank ${rank}: what it receives`, { view: "buffers", dst: [rank] });
    add(true, `rank ${rank}: what it sends`, { view: "traffic", src: [rank] });
  }
  if (node !== undefined && node < header.numRanks / header.ranksPerNode) {
    const ranks = Array.from({ length: header.ranksPerNode }, (_, i) => node * header.ranksPerNode + i);
    add(true, `node ${node}: what its ranks receive`, { view: "traffic", dst: ranks });
  }
  if (layer !== undefined) add(layer < header.numLayers, `layer ${layer}: go there`, { layer });
  if (step !== undefined) add(step < header.numSteps, `step ${step}: go there`, { step });
  return result;
}
