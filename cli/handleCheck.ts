/**
 * The handle in a bundle against the handle that a reference computes from the routing: array by array, element by element.
 * Where some ranks' routing is unknown, what those ranks do not change is compared.
 */
import { encodeHandle } from "../core/handle/encode.ts";
import type { HandleData } from "../core/handle/handle.ts";
import { type Tensor, tensor } from "../core/tensor.ts";
import type { BundleFile } from "./bundles.ts";
import type { Replay } from "./replay.ts";

export interface HandleDifference {
  readonly rank: number;
  readonly array: string;
  /** Position in the array; null: the array is missing, or of another shape. */
  readonly index: number | null;
  readonly expected: string;
  readonly received: string;
}

export interface HandleReport {
  readonly file: string;
  readonly process: number;
  readonly reference: string;
  readonly numElements: number;
  readonly numDiffering: number;
  readonly first: HandleDifference | null;
  /** Why nothing, or not everything, was compared. */
  readonly notCompared: string | null;
}

type Arrays = Map<string, Tensor>;

export function checkHandles(
  { bundles, unknownRanks, job }: Replay,
  reference: string,
  data: HandleData,
): HandleReport[] {
  const { numWorstTokens, numPermutedTokens } = job.settings;
  const fixed = numWorstTokens > 0 || numPermutedTokens !== null;
  return bundles.map((bundle) => {
    const about = { file: bundle.file, process: bundle.header.process, reference };
    const nothing = (notCompared: string) => ({ ...about, numElements: 0, numDiffering: 0, first: null, notCompared });
    if (bundle.handle.size === 0) return nothing("the bundle has no handle");
    if (unknownRanks.length > 0 && fixed) return nothing("rows of unknown ranks may fill the row budget");
    const ranks = data.ranks.filter(({ rank }) => bundle.header.localRanks.includes(rank));
    const expected = encodeHandle({ meta: { ...data.meta, localRanks: bundle.header.localRanks }, ranks });
    if (unknownRanks.length === 0) return { ...about, ...compare(expected, new Map(bundle.handle)), notCompared: null };
    const known = (arrays: ReadonlyMap<string, Tensor>) => knownPart(arrays, bundle, new Set(unknownRanks));
    const notCompared = "counts, padding and rows of unknown ranks";
    return { ...about, ...compare(known(expected), known(bundle.handle)), notCompared };
  });
}

function compare(expected: Arrays, received: Arrays) {
  let numElements = 0;
  let numDiffering = 0;
  let first: HandleDifference | null = null;
  for (const name of new Set([...expected.keys(), ...received.keys()])) {
    const [, rank, array] = /^rank(\d+)\.handle\.(.*)$/.exec(name) ?? ["", "0", name];
    const [want, got] = [expected.get(name), received.get(name)];
    const found = want && got && sameForm(want, got) ? want.data.findIndex((value, i) => value !== got.data[i]) : null;
    numElements += got?.data.length ?? 0;
    if (found === -1) continue;
    numDiffering +=
      want && got && found !== null
        ? (want.data as Int32Array).reduce((count, value, i) => count + (value === got.data[i] ? 0 : 1), 0)
        : Math.max(want?.data.length ?? 0, got?.data.length ?? 0, 1);
    const tell = (value: Tensor | undefined) =>
      found === null ? (value ? `${value.dtype} [${value.shape.join(", ")}]` : "none") : `${value?.data[found]}`;
    first ??= { rank: Number(rank), array, index: found, expected: tell(want), received: tell(got) };
  }
  return { numElements, numDiffering, first };
}

function sameForm(a: Tensor, b: Tensor): boolean {
  return a.dtype === b.dtype && a.shape.join() === b.shape.join();
}

/** Lists of a source, whose entries do not depend on other ranks' tokens; `send_row` does, by an offset. */
const OWN = ["send_rank", "send_expert", "send_slot"];

/** Which fields of `meta` do not count rows (core/handle/encode.ts): all but the last. */
function knownPart(arrays: ReadonlyMap<string, Tensor>, bundle: BundleFile, unknown: ReadonlySet<number>): Arrays {
  const known: Arrays = new Map();
  for (const rank of bundle.header.localRanks) {
    const name = (array: string) => `rank${rank}.handle.${array}`;
    const get = (array: string) => arrays.get(name(array));
    const put = (array: string, values: readonly number[]) =>
      known.set(name(array), tensor("i32", [values.length], Int32Array.from(values)));
    for (const array of OWN) {
      const value = get(array);
      if (value !== undefined) known.set(name(array), value);
    }
    const meta = get("meta");
    if (meta !== undefined) put("meta without rows", Array.from(meta.data.slice(0, -1), Number));
    const block = [get("send_rank"), get("send_expert")].map((value) => value?.data);
    put("send_row of its block", withinBlocks(get("send_row"), block[0], block[1]));
    const src = Array.from(get("row_src_rank")?.data ?? [], Number);
    const token = Array.from(get("row_src_token")?.data ?? [], Number);
    const fromKnown = (_: number, row: number) => src[row] !== -1 && !unknown.has(src[row]);
    put("row_src_rank of known ranks", src.filter(fromKnown));
    put("row_src_token of known ranks", token.filter(fromKnown));
  }
  return known;
}

/** Rows counted from the first one that this source has in the block of a destination (and expert). */
function withinBlocks(
  rows: Tensor | undefined,
  ranks: Tensor["data"] | undefined,
  experts: Tensor["data"] | undefined,
): number[] {
  const values = Array.from(rows?.data ?? [], Number);
  const blockOf = (i: number) => `${ranks?.[i]}.${experts?.[i]}`;
  const firsts = new Map<string, number>();
  values.forEach((row, i) => {
    if (row >= 0) firsts.set(blockOf(i), Math.min(row, firsts.get(blockOf(i)) ?? row));
  });
  return values.map((row, i) => (row < 0 ? row : row - (firsts.get(blockOf(i)) ?? 0)));
}

export function describeHandle(report: HandleReport): string {
  const { process, reference, numElements, numDiffering, first, notCompared } = report;
  const what = `handle of process ${process} against ${reference}`;
  const rest = notCompared === null ? "" : `; not compared: ${notCompared}`;
  if (numElements === 0 && notCompared !== null) return `${what}: not compared: ${notCompared}`;
  const elements = numElements.toLocaleString("en-US");
  if (numDiffering === 0) return `${what}: ${elements} elements, 0 differ${rest}`;
  const counts = `${numDiffering.toLocaleString("en-US")} of ${elements} elements differ`;
  if (first === null) return `${what}: ${counts}${rest}`;
  const at = first.index === null ? first.array : `${first.array}[${first.index}]`;
  return `${what}: ${counts}; first at rank ${first.rank}, ${at}: expected ${first.expected}, received ${first.received}${rest}`;
}
