/** Bytes of one dispatch by definition (docs/cost-model.md): the definition is printed beside every number. */
import { elementBytes, SCALE_BLOCK } from "../core/dtype/dtype.ts";
import type { HandleData } from "../core/handle/handle.ts";
import { numLocalExperts, type RankRouting } from "../core/layout/routing.ts";
import type { Job } from "./job.ts";

export interface Traffic {
  readonly numTokens: number;
  readonly numSlots: number;
  /** (token, destination rank) pairs, own rank included. */
  readonly numRows: number;
  /** Those that leave their rank. */
  readonly numRemoteRows: number;
  /** (token, destination node) pairs that leave their node. */
  readonly numNetworkRows: number;
  readonly rowBytes: number;
  readonly logicalBytes: number;
  readonly wireBytes: number;
  readonly networkBytes: number;
  /** Most and mean slots per rank. */
  readonly maxOverMeanRank: number;
}

export const TRAFFIC_FORMULAS = {
  logicalBytes: "rows received, one per (token, destination rank), own rank included, x row bytes",
  wireBytes: "the same without rows that stay on their rank",
  networkBytes: "one row per (token, other node) x row bytes",
  maxOverMeanRank: "max(slots per rank) / mean(slots per rank)",
} as const;

/** Bytes of a row on the wire: its elements, and with fp8 its scales. */
export function wireRowBytes(job: Pick<Job, "hidden" | "dtype">): number {
  const scales = job.dtype === "fp8e4m3" ? 4 * Math.ceil(job.hidden / SCALE_BLOCK) : 0;
  return job.hidden * elementBytes(job.dtype) + scales;
}

/** Bytes of a row on its way back: sums of fp8 rows are bf16. */
export function combineRowBytes({ hidden, dtype }: Pick<Job, "hidden" | "dtype">): number {
  return hidden * elementBytes(dtype === "fp8e4m3" ? "bf16" : dtype);
}

export function countTraffic(data: HandleData, routings: readonly RankRouting[], rowBytes: number): Traffic {
  const { meta } = data;
  const perRank = numLocalExperts(meta);
  const slotsPerRank = new Float64Array(meta.numRanks);
  let numRows = 0;
  let numRemoteRows = 0;
  let numNetworkRows = 0;
  let numTokens = 0;
  const lastRank = new Int32Array(meta.numRanks);
  const lastNode = new Int32Array(meta.numRanks / meta.ranksPerNode);
  for (const { rank, topkIdx, topk, numTokens: tokens } of routings) {
    lastRank.fill(-1);
    lastNode.fill(-1);
    numTokens += tokens;
    for (let i = 0; i < topkIdx.length; i++) {
      if (topkIdx[i] < 0) continue;
      const token = Math.floor(i / topk);
      const dst = Math.floor(topkIdx[i] / perRank);
      const node = Math.floor(dst / meta.ranksPerNode);
      slotsPerRank[dst]++;
      if (lastRank[dst] !== token) {
        numRows++;
        if (dst !== rank) numRemoteRows++;
      }
      if (lastNode[node] !== token && node !== Math.floor(rank / meta.ranksPerNode)) numNetworkRows++;
      lastRank[dst] = token;
      lastNode[node] = token;
    }
  }
  const numSlots = slotsPerRank.reduce((a, b) => a + b, 0);
  return {
    numTokens,
    numSlots,
    numRows,
    numRemoteRows,
    numNetworkRows,
    rowBytes,
    logicalBytes: numRows * rowBytes,
    wireBytes: numRemoteRows * rowBytes,
    networkBytes: numNetworkRows * rowBytes,
    maxOverMeanRank: numSlots === 0 ? 0 : (Math.max(...slotsPerRank) * meta.numRanks) / numSlots,
  };
}
