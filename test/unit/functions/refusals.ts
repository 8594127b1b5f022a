/** Bad input of every kind, and what the message must say: every backend reports the same (core/backend.ts). */
import type { Group } from "../../../core/backend.ts";
import { fusedCombine, fusedDispatch, hybridEpDispatch } from "../../../core/functions/wrappers.ts";
import { tensor } from "../../../core/tensor.ts";
import { IDS, MAPS, PROBS, recordingGroup, WEIGHTS, X } from "./recording.ts";

export interface Refusal {
  readonly name: string;
  /** On a group of two ranks. */
  readonly run: (on: { readonly group: Group }) => Promise<unknown>;
  readonly message: RegExp;
}

const CASES: [string, Refusal["run"], RegExp][] = [
  ["no x at all", ({ group }) => fusedDispatch([], IDS, WEIGHTS, 4, group), /x: expected one tensor per local rank/],
  [
    "x of one dimension",
    ({ group }) => fusedDispatch([tensor("bf16", [4]), X[1]], IDS, WEIGHTS, 4, group),
    /^x: .*\[4\].*rank 0/,
  ],
  [
    "x without columns",
    ({ group }) =>
      fusedDispatch(
        X.map((x) => tensor("bf16", [x.shape[0], 0])),
        IDS,
        WEIGHTS,
        4,
        group,
      ),
    /at least 1 column/,
  ],
  [
    "x with less data than its shape says",
    ({ group }) => fusedDispatch([{ ...X[0], data: X[0].data.slice(1) as Float32Array }, X[1]], IDS, WEIGHTS, 4, group),
    /^x: expected Float32Array of \d+ elements for fp32 \[.*\], received Float32Array of \d+ at rank 0; /,
  ],
  [
    "x with data of another kind",
    ({ group }) =>
      fusedDispatch(
        [X[0], { ...X[1], data: Int32Array.from(X[1].data as Float32Array) as never }],
        IDS,
        WEIGHTS,
        4,
        group,
      ),
    /^x: expected Float32Array of \d+ elements for fp32 \[.*\], received Int32Array of \d+ at rank 1; /,
  ],
  [
    "routing with less data than its shape says",
    ({ group }) => fusedDispatch(X, [{ ...IDS[0], data: IDS[0].data.slice(1) as never }, IDS[1]], WEIGHTS, 4, group),
    /^topkIdx: expected \w+ of \d+ elements for \w+ \[.*\], received \w+ of \d+ at rank 0; /,
  ],
  [
    "probs with more data than their shape says",
    ({ group }) => hybridEpDispatch(X, MAPS, [PROBS[0], { ...PROBS[1], data: new Float32Array(99) }], group, 2),
    /^probs: expected Float32Array of \d+ elements for fp32 \[.*\], received Float32Array of 99 at rank 1; /,
  ],
  ["x of ids", ({ group }) => fusedDispatch(IDS, IDS, WEIGHTS, 4, group), /^x: expected bf16/],
  [
    "ranks of different dtypes",
    ({ group }) => fusedDispatch([X[0], tensor("bf16", [1, 1])], IDS, WEIGHTS, 4, group),
    /^x: expected fp32.*rank 1/,
  ],
  [
    "routing of another length",
    ({ group }) => fusedDispatch([X[1], X[1]], IDS, WEIGHTS, 4, group),
    /^topkIdx: expected 1 rows as x, received 2 at rank 0/,
  ],
  [
    "E not divisible by R",
    ({ group }) => fusedDispatch(X, IDS, WEIGHTS, 5, group),
    /^numExperts: expected a multiple of numRanks 2, received 5/,
  ],
  [
    "a negative budget",
    ({ group }) => fusedDispatch(X, IDS, WEIGHTS, 4, group, { numWorstTokens: -1 }),
    /^numWorstTokens/,
  ],
  [
    "a budget beyond int32",
    ({ group }) => fusedDispatch(X, IDS, WEIGHTS, 4, group, { numWorstTokens: 2 ** 40 }),
    /^numWorstTokens/,
  ],
  [
    "budget no multiple of padding",
    ({ group }) => hybridEpDispatch(X, MAPS, PROBS, group, 2, { padMultiple: 4, numPermutedTokens: 6 }),
    /^numPermutedTokens: expected a multiple of padMultiple 4, received 6/,
  ],
  [
    "a map of other experts",
    ({ group }) => hybridEpDispatch(X, MAPS, PROBS, group, 3),
    /^routingMap: .*\[2, 4\] at rank 0/,
  ],
  ["no local experts", ({ group }) => hybridEpDispatch(X, MAPS, PROBS, group, 0), /^numLocalExperts/],
  [
    "combine of too few rows",
    async ({ group }) => {
      const out = await fusedDispatch(X, IDS, WEIGHTS, 4, group);
      return fusedCombine(X, group, out.handle);
    },
    /^x: expected 3 rows, received 2 at rank 0/,
  ],
  [
    "combine of fp8 rows",
    async ({ group }) => {
      const out = await fusedDispatch(X, IDS, WEIGHTS, 4, group);
      return fusedCombine([tensor("fp8e4m3", [3, 1]), tensor("fp8e4m3", [2, 1])], group, out.handle);
    },
    /^x: expected bf16 or fp16 or fp32/,
  ],
  [
    "a fused handle for a hybrid combine's probs",
    async ({ group }) => {
      const out = await fusedDispatch(X, IDS, WEIGHTS, 4, group);
      return group.combine({ handle: out.handle, x: out.recvX, topkWeights: null, probs: [], bias: [] });
    },
    /^probs: expected a hybrid-ep handle/,
  ],
  [
    "a handle of another group",
    async ({ group }) => {
      const out = await fusedDispatch(X, IDS, WEIGHTS, 4, group);
      const other = await recordingGroup(1);
      return fusedCombine([out.recvX[0]], other.group, out.handle);
    },
    /^handle: expected one of this group/,
  ],
  [
    "layout with E not divisible by R",
    ({ group }) => group.layout({ topkIdx: IDS, topkWeights: null }, 5),
    /^numExperts/,
  ],
  [
    "routing without settings",
    ({ group }) => group.dispatch({ kind: "fused", x: X, scales: null, routing: { topkIdx: IDS, topkWeights: null } }),
    /^settings/,
  ],
  [
    "neither routing nor handle",
    ({ group }) => group.dispatch({ kind: "fused", x: X, scales: null }),
    /^routing: .*neither/,
  ],
  [
    "three biases",
    async ({ group }) => {
      const out = await fusedDispatch(X, IDS, WEIGHTS, 4, group);
      return group.combine({ handle: out.handle, x: out.recvX, topkWeights: null, probs: null, bias: [X, X, X] });
    },
    /^bias: expected at most 2/,
  ],
  [
    "a bias beside a hybrid-ep handle",
    async ({ group }) => {
      const out = await hybridEpDispatch(X, MAPS, PROBS, group, 2);
      const x = out.dispatchedHidden;
      return group.combine({ handle: out.handle, x, topkWeights: null, probs: null, bias: [X] });
    },
    /^bias: expected a fused handle/,
  ],
  [
    "outputs of a wrong shape",
    ({ group }) => {
      const settings = {
        numExperts: 4,
        expertAlignment: 1,
        numWorstTokens: 0,
        padMultiple: 1,
        numPermutedTokens: null,
      };
      return group.dispatch({
        kind: "fused",
        x: X,
        scales: null,
        routing: { topkIdx: IDS, topkWeights: null },
        settings,
        out: X,
      });
    },
    /^out: expected fp32 \[3, 1\], received fp32 \[2, 1\] at rank 0/,
  ],
];

export const REFUSALS: readonly Refusal[] = CASES.map(([name, run, message]) => ({ name, run, message }));
