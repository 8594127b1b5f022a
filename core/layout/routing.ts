import { InvalidArgument } from "../errors.ts";
import { expectData, type Tensor } from "../tensor.ts";

/** The index form of one rank's routing, checked: every id is -1 or in 0..numExperts-1, no expert twice in a token. */
export interface RankRouting {
  readonly rank: number;
  readonly numTokens: number;
  readonly topk: number;
  /** [numTokens, topk] global expert ids, -1 = no choice. */
  readonly topkIdx: Int32Array;
  /** [numTokens, topk] float32; null when only the movement matters. */
  readonly topkWeights: Float32Array | null;
}

/** The shape of a group and its experts: everything a layout needs beside the routing. */
export interface GroupShape {
  readonly numRanks: number;
  /** Ranks of one NVLink domain; numRanks when there is one node. */
  readonly ranksPerNode: number;
  readonly numExperts: number;
}

export function numNodes(shape: Pick<GroupShape, "numRanks" | "ranksPerNode">): number {
  return shape.numRanks / shape.ranksPerNode;
}

export function numLocalExperts(shape: Pick<GroupShape, "numRanks" | "numExperts">): number {
  return shape.numExperts / shape.numRanks;
}

/** Throws InvalidArgument unless R = nodes x G and E is divisible by R (design 2.2). */
export function checkShape(shape: GroupShape): void {
  const { numRanks, ranksPerNode, numExperts } = shape;
  const whole = (name: string, value: number) => {
    if (Number.isSafeInteger(value) && value >= 1) return;
    throw new InvalidArgument({
      name,
      expected: "a whole number of at least 1",
      received: `${value}`,
      remedy: "pass the size of the group",
    });
  };
  whole("numRanks", numRanks);
  whole("ranksPerNode", ranksPerNode);
  whole("numExperts", numExperts);
  if (numRanks % ranksPerNode !== 0) {
    throw new InvalidArgument({
      name: "ranksPerNode",
      expected: `a divisor of numRanks ${numRanks}`,
      received: `${ranksPerNode}`,
      remedy: "every node must hold the same number of ranks",
    });
  }
  if (numExperts % numRanks !== 0) {
    const nearest = Math.ceil(numExperts / numRanks) * numRanks;
    throw new InvalidArgument({
      name: "numExperts",
      expected: `a multiple of numRanks ${numRanks}`,
      received: `${numExperts}`,
      remedy: `use ${nearest} experts (redundant or empty ones count) or another number of ranks`,
    });
  }
}

/**
 * Checks one rank's topkIdx ([tokens, topk] i32 or i64) and topkWeights ([tokens, topk] fp32).
 * Throws InvalidArgument naming rank, token, slot and value for an id outside -1..E-1 or an expert twice in a token.
 */
export function rankRouting(
  rank: number,
  topkIdx: Tensor,
  topkWeights: Tensor | null,
  numExperts: number,
): RankRouting {
  const [numTokens, topk] = matrixShape("topkIdx", topkIdx, ["i32", "i64"], rank);
  if (topk < 1 || topk > numExperts) {
    throw new InvalidArgument({
      name: "topk",
      expected: `1..${numExperts} (numExperts)`,
      received: `${topk}`,
      where: { rank },
      remedy: "give topkIdx that many columns",
    });
  }
  if (topkWeights !== null) {
    const [rows, columns] = matrixShape("topkWeights", topkWeights, ["fp32"], rank);
    if (rows !== numTokens || columns !== topk) {
      throw new InvalidArgument({
        name: "topkWeights",
        expected: `shape [${numTokens}, ${topk}] as topkIdx`,
        received: `[${rows}, ${columns}]`,
        where: { rank },
        remedy: "pass one weight per slot",
      });
    }
  }
  const ids =
    topkIdx.dtype === "i64"
      ? narrowIds(topkIdx as Tensor<"i64">, rank, topk, numExperts)
      : (topkIdx.data as Int32Array);
  checkIds(ids, rank, topk, numExperts);
  return { rank, numTokens, topk, topkIdx: ids, topkWeights: topkWeights ? (topkWeights.data as Float32Array) : null };
}

function matrixShape(name: string, value: Tensor, dtypes: string[], rank: number): [number, number] {
  const [rows, columns] = value.shape;
  if (value.shape.length === 2 && rows !== undefined && columns !== undefined && dtypes.includes(value.dtype)) {
    expectData(name, value, { rank });
    return [rows, columns];
  }
  throw new InvalidArgument({
    name,
    expected: `${dtypes.join(" or ")} [tokens, topk]`,
    received: `${value.dtype} [${value.shape.join(", ")}]`,
    where: { rank },
    remedy: "convert or reshape it",
  });
}

function narrowIds(value: Tensor<"i64">, rank: number, topk: number, numExperts: number): Int32Array {
  // Two 32-bit loads per id are 20 times faster than BigInt arithmetic; the high word must be the sign.
  const words = new Int32Array(value.data.buffer, value.data.byteOffset, value.data.length * 2);
  const ids = new Int32Array(value.data.length);
  for (let i = 0; i < ids.length; i++) {
    const low = words[2 * i];
    if (words[2 * i + 1] !== low >> 31) throw badId(rank, i, topk, `${value.data[i]}`, `-1..${numExperts - 1}`);
    ids[i] = low;
  }
  return ids;
}

function checkIds(ids: Int32Array, rank: number, topk: number, numExperts: number): void {
  const lastToken = new Int32Array(numExperts).fill(-1);
  for (let i = 0, token = 0; i < ids.length; token++) {
    for (let slot = 0; slot < topk; slot++, i++) {
      const expert = ids[i];
      if (expert === -1) continue;
      if (expert < -1 || expert >= numExperts) throw badId(rank, i, topk, `${expert}`, `-1..${numExperts - 1}`);
      if (lastToken[expert] === token)
        throw badId(rank, i, topk, `expert ${expert} a second time`, "each expert once per token");
      lastToken[expert] = token;
    }
  }
}

function badId(rank: number, index: number, topk: number, received: string, expected: string): InvalidArgument {
  return new InvalidArgument({
    name: "topkIdx",
    expected,
    received,
    where: { rank, token: Math.floor(index / topk), slot: index % topk },
    remedy: "use -1 for a slot without a choice",
  });
}
