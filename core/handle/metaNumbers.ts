/** A handle's settings as numbers: what a file holds (docs/handle.md) and what the CUDA library takes. */
import type { HandleKind, HandleMeta } from "./handle.ts";

/** In the order of the file. */
export const META_NUMBERS = [
  "kind",
  "numRanks",
  "ranksPerNode",
  "numExperts",
  "topk",
  "expertAlignment",
  "numWorstTokens",
  "padMultiple",
  "numPermutedTokens",
] as const satisfies readonly (keyof HandleMeta)[];

/** `kind`: see KINDS; `numPermutedTokens`: -1 = exact. */
export type MetaNumbers = Readonly<Record<(typeof META_NUMBERS)[number], number>>;

type Settings = Omit<HandleMeta, "localRanks">;

/** By their number. */
export const KINDS: readonly HandleKind[] = ["fused", "hybrid-ep"];

export function metaNumbers({ kind, numPermutedTokens, ...rest }: Settings): MetaNumbers {
  return { ...rest, kind: KINDS.indexOf(kind), numPermutedTokens: numPermutedTokens ?? -1 };
}

export function metaOfNumbers({ kind, numPermutedTokens, ...rest }: MetaNumbers): Settings {
  return { ...rest, kind: KINDS[kind], numPermutedTokens: numPermutedTokens === -1 ? null : numPermutedTokens };
}
