/**
 * Design section 2 once more, written for tests: maps and lists, no typed arrays of the core, its own rounding. Slow and
 * independent: every backend, the oracle included, is compared with it.
 */
export interface Case {
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly numExperts: number;
  /** Per rank, per token: the expert of each slot, -1 = none. */
  readonly topkIdx: number[][][];
}

export interface Source {
  readonly rank: number;
  readonly token: number;
}

/** Fused: per destination the sources of its rows, by (source rank, source token). */
export function fusedRows(c: Case): Source[][] {
  const perRank = c.numExperts / c.numRanks;
  return Array.from({ length: c.numRanks }, (_, dst) =>
    c.topkIdx.flatMap((tokens, rank) =>
      tokens.flatMap((slots, token) =>
        slots.some((expert) => expert >= 0 && Math.floor(expert / perRank) === dst) ? [{ rank, token }] : [],
      ),
    ),
  );
}

/** Hybrid-ep: per destination, per local expert ascending, its sources; null rows pad each block to a multiple. */
export function permutedRows(c: Case, padMultiple: number): { rows: (Source | null)[]; counts: number[] }[] {
  const perRank = c.numExperts / c.numRanks;
  return Array.from({ length: c.numRanks }, (_, dst) => {
    const rows: (Source | null)[] = [];
    const counts: number[] = [];
    for (let expert = dst * perRank; expert < (dst + 1) * perRank; expert++) {
      const block: (Source | null)[] = [];
      c.topkIdx.forEach((tokens, rank) =>
        tokens.forEach((slots, token) => slots.includes(expert) && block.push({ rank, token })),
      );
      while (padMultiple > 1 && block.length % padMultiple !== 0) block.push(null);
      counts.push(block.length);
      rows.push(...block);
    }
    return { rows, counts };
  });
}

/** The experts' ranks of a token, ascending, each with the token's experts there, ascending. */
export function destinations(c: Case, source: Source): { dst: number; experts: number[] }[] {
  const perRank = c.numExperts / c.numRanks;
  const byRank = new Map<number, number[]>();
  for (const expert of c.topkIdx[source.rank][source.token].filter((e) => e >= 0).sort((a, b) => a - b)) {
    const dst = Math.floor(expert / perRank);
    byRank.set(dst, [...(byRank.get(dst) ?? []), expert]);
  }
  return [...byRank].map(([dst, experts]) => ({ dst, experts }));
}

// Numbers, by rules 2.11. A format is the sorted list of its finite non-negative values.

export type Format = "bf16" | "fp16" | "fp32" | "fp8e4m3";

const formats = new Map<
  Format,
  { values: Float64Array; overflow: number; infinity: number; nan: number; sign: number }
>();

function format(name: Exclude<Format, "fp32">) {
  let made = formats.get(name);
  if (made === undefined) {
    const [exponentBits, mantissaBits, bias] = { bf16: [8, 7, 127], fp16: [5, 10, 15], fp8e4m3: [4, 3, 7] }[name];
    const finite = name === "fp8e4m3" ? 127 : ((1 << exponentBits) - 1) << mantissaBits;
    const values = Float64Array.from({ length: finite }, (_, code) => {
      const exponent = code >> mantissaBits;
      const fraction = (code & ((1 << mantissaBits) - 1)) / (1 << mantissaBits);
      return exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias);
    });
    const step = values[finite - 1] - values[finite - 2];
    made = {
      values,
      overflow: name === "fp8e4m3" ? Number.POSITIVE_INFINITY : values[finite - 1] + step / 2,
      infinity: finite,
      nan: { bf16: 0x7fc0, fp16: 0x7e00, fp8e4m3: 0x7f }[name],
      sign: 1 << (exponentBits + mantissaBits),
    };
    formats.set(name, made);
  }
  return made;
}

const view = new DataView(new ArrayBuffer(4));

/** The value of a code. */
export function decode(name: Format, code: number): number {
  if (name === "fp32") {
    view.setUint32(0, code);
    return view.getFloat32(0);
  }
  const { values, infinity, sign } = format(name);
  const magnitude = code & (sign - 1);
  const factor = code & sign ? -1 : 1;
  if (magnitude < values.length) return factor * values[magnitude];
  return magnitude === infinity && name !== "fp8e4m3" ? factor * Number.POSITIVE_INFINITY : Number.NaN;
}

/** The nearest code, ties to the even one; NaN is the canonical NaN. fp32: the bits. */
export function encode(name: Format, value: number): number {
  if (name === "fp32") {
    if (Number.isNaN(value)) return 0x7fc00000;
    view.setFloat32(0, value);
    return view.getUint32(0);
  }
  const { values, overflow, infinity, nan, sign } = format(name);
  if (Number.isNaN(value)) return nan;
  const negative = value < 0 || Object.is(value, -0) ? sign : 0;
  const magnitude = Math.abs(value);
  if (magnitude >= overflow) return negative | infinity;
  let low = 0;
  let high = values.length - 1;
  if (magnitude >= values[high]) return negative | high;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (values[middle] <= magnitude) low = middle;
    else high = middle;
  }
  const below = magnitude - values[low];
  const above = values[high] - magnitude;
  const up = above < below || (above === below && low % 2 === 1);
  return negative | (up ? high : low);
}

const exponentField = (value: number) => {
  view.setFloat32(0, value);
  return (view.getUint32(0) >>> 23) & 0xff;
};
const zeroLike = (value: number) => (value < 0 || Object.is(value, -0) ? -0 : 0);

/** A float32 term or partial sum. */
export const term = (value: number) => (exponentField(value) === 0 ? zeroLike(value) : value);
/** A float32 product. */
export const product = (a: number, b: number) => {
  const rounded = Math.fround(term(a) * term(b));
  return exponentField(rounded) <= 1 ? zeroLike(rounded) : rounded;
};
const add = (a: number, b: number) => term(Math.fround(a + b));

/** Sums terms (codes) from +0 in order, in float32. */
export function sum(name: Format, codes: readonly number[], start = 0): number {
  return codes.reduce((total, code) => add(total, term(decode(name, code))), start);
}

/** A total as a code: a zero total is +0. */
export const total = (name: Format, value: number) => encode(name, value === 0 ? 0 : value);

/**
 * One combined element. `rows` gives, per destination rank ascending, the codes of the token's rows there, ascending by
 * expert; `bias` the biases' codes.
 */
export function combined(
  name: Format,
  c: Pick<Case, "numRanks" | "ranksPerNode">,
  rows: readonly { dst: number; codes: readonly number[] }[],
  bias: readonly number[],
): number {
  const perRank = rows.map(({ dst, codes }) => ({
    dst,
    code: codes.length === 1 ? codes[0] : total(name, sum(name, codes)),
  }));
  const start = sum(name, bias);
  if (c.ranksPerNode === c.numRanks) {
    return total(
      name,
      sum(
        name,
        perRank.map(({ code }) => code),
        start,
      ),
    );
  }
  const perNode = new Map<number, number[]>();
  for (const { dst, code } of perRank) {
    const node = Math.floor(dst / c.ranksPerNode);
    perNode.set(node, [...(perNode.get(node) ?? []), code]);
  }
  const nodeRows = [...perNode.values()].map((codes) => total(name, sum(name, codes)));
  return total(name, sum(name, nodeRows, start));
}
