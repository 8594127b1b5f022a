import { type Frame, rankOf, tokensPerRank } from "./dataset.ts";
import type { Selection } from "./state.ts";

/** Counts over the selected slots of one (step, layer). */
export interface SelectedCounts {
  /** [R, R] */
  readonly slots: Int32Array;
  /** [R, R] rows that at least one selected slot travels in. */
  readonly rows: Int32Array;
  /** [E] */
  readonly expertLoad: Int32Array;
  readonly numSlots: number;
  readonly numTokens: number;
}

/** One pass over the slots; `ignore` leaves out the dimension of the view that is being brushed. Null without tokens. */
export function countSelected(
  frame: Frame,
  selection: Selection,
  ignore: readonly (keyof Selection)[] = [],
): SelectedCounts | null {
  const { chunk, header } = frame;
  if (chunk === null) return null;
  const { numRanks, numExperts, topk } = header;
  const allows = (key: "src" | "dst" | "experts", count: number) => {
    const ids = ignore.includes(key) ? [] : selection[key];
    const allowed = new Uint8Array(count).fill(ids.length === 0 ? 1 : 0);
    for (const id of ids) if (id < count) allowed[id] = 1;
    return allowed;
  };
  const src = allows("src", numRanks);
  const dst = allows("dst", numRanks);
  const experts = allows("experts", numExperts);
  const rankOfExpert = Int32Array.from({ length: numExperts }, (_, e) => rankOf(header, e));
  for (let e = 0; e < numExperts; e++) experts[e] &= dst[rankOfExpert[e]];
  const tokens = ignore.includes("tokens") ? null : selection.tokens;
  const slots = new Int32Array(numRanks * numRanks);
  const rows = new Int32Array(numRanks * numRanks);
  const expertLoad = new Int32Array(numExperts);
  const lastToken = new Int32Array(numRanks);
  let numSlots = 0;
  let numTokens = 0;
  for (let s = 0; s < numRanks; s++) {
    if (!src[s]) continue;
    lastToken.fill(-1);
    const ids: Int32Array = chunk.topkIdx[s];
    const first = tokens ? tokens[0] : 0;
    const end = Math.min(tokensPerRank(frame)[s], tokens ? tokens[1] + 1 : Number.POSITIVE_INFINITY);
    for (let token = first; token < end; token++) {
      let touched = 0;
      for (let i = token * topk; i < (token + 1) * topk; i++) {
        const expert = ids[i];
        if (expert < 0 || !experts[expert]) continue;
        touched = 1;
        numSlots++;
        expertLoad[expert]++;
        const to = rankOfExpert[expert];
        slots[s * numRanks + to]++;
        if (lastToken[to] === token) continue;
        lastToken[to] = token;
        rows[s * numRanks + to]++;
      }
      numTokens += touched;
    }
  }
  return { slots, rows, expertLoad, numSlots, numTokens };
}
