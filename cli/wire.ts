/** What the backend counted on NICs and NVLinks, against the arithmetic of the layout. */
import type { CudaGroup } from "../backends/cuda/index.ts";
import type { Group } from "../core/backend.ts";
import { type Law, placewise } from "../core/layout/conservation.ts";
import { numLocalExperts, type RankRouting } from "../core/layout/routing.ts";
import type { Job } from "./job.ts";
import { combineRowBytes, wireRowBytes } from "./traffic.ts";

/** Rows and bytes that one rank has sent in a dispatch and the combine of it. */
export interface Wire {
  readonly rank: number;
  readonly networkRows: number;
  readonly networkBytes: number;
  readonly linkRows: number;
  readonly linkBytes: number;
}

/** The counters of the layer before: they count from the making of the group. */
const before = new WeakMap<Group, readonly Wire[]>();

/** What each local rank has sent since the last call. */
export async function countedWire(group: Group): Promise<Wire[]> {
  const counters = "network" in group ? await (group as CudaGroup).network() : [];
  const now = counters.map((one, i) => ({
    rank: group.localRanks[i],
    networkRows: one.rowsDispatched + one.rowsCombined,
    networkBytes: one.rowBytes,
    linkRows: one.linkRowsDispatched + one.linkRowsCombined,
    linkBytes: one.linkBytes,
  }));
  const last = before.get(group);
  before.set(group, now);
  if (last === undefined) return now;
  return now.map((one, i) => ({
    rank: one.rank,
    networkRows: one.networkRows - last[i].networkRows,
    networkBytes: one.networkBytes - last[i].networkBytes,
    linkRows: one.linkRows - last[i].linkRows,
    linkBytes: one.linkBytes - last[i].linkBytes,
  }));
}

/**
 * What each rank must send. A token's row goes once to each other node, to the rank there with the source's index; that
 * rank, or the source itself on its own node, is the holder, which brings the row to each other rank of the node that
 * wants it. A combine goes the same ways back.
 */
export function expectedWire(job: Pick<Job, "shape" | "hidden" | "dtype">, routings: readonly RankRouting[]): Wire[] {
  const { numRanks, ranksPerNode } = job.shape;
  const perRank = numLocalExperts(job.shape);
  const sent = new Float64Array(numRanks);
  const relayed = new Float64Array(numRanks);
  const linked = new Float64Array(numRanks);
  const returned = new Float64Array(numRanks);
  const wanted = new Int32Array(numRanks).fill(-1);
  const holders = new Int32Array(numRanks).fill(-1);
  let number = 0;
  for (const { rank: src, topkIdx, topk, numTokens } of routings) {
    for (let token = 0; token < numTokens; token++, number++) {
      for (let i = token * topk; i < (token + 1) * topk; i++) {
        if (topkIdx[i] < 0) continue;
        const dst = Math.floor(topkIdx[i] / perRank);
        if (wanted[dst] === number) continue;
        wanted[dst] = number;
        const holder = dst - (dst % ranksPerNode) + (src % ranksPerNode);
        if (dst !== holder) {
          linked[holder]++;
          returned[dst]++;
        }
        if (holder === src || holders[holder] === number) continue;
        holders[holder] = number;
        sent[src]++;
        relayed[holder]++;
      }
    }
  }
  const outBytes = wireRowBytes(job);
  const backBytes = combineRowBytes(job);
  return Array.from({ length: numRanks }, (_, rank) => ({
    rank,
    networkRows: sent[rank] + relayed[rank],
    networkBytes: sent[rank] * outBytes + relayed[rank] * backBytes,
    linkRows: linked[rank] + returned[rank],
    linkBytes: linked[rank] * outBytes + returned[rank] * backBytes,
  }));
}

/** Rows that a budget cut cross hosts but no NVLink: with such, NVLinks are not compared. */
export function wireLaws(expected: readonly Wire[], counted: readonly Wire[], isCut: boolean): Law[] {
  const laws = (where: string, rows: "networkRows" | "linkRows", bytes: "networkBytes" | "linkBytes") =>
    ([rows, bytes] as const).map((key) =>
      placewise(
        `${key === rows ? "rows" : "bytes"} that each rank sent ${where} = the layout's`,
        counted.map((one) => ({ where: `rank ${one.rank}`, expected: expected[one.rank][key], received: one[key] })),
      ),
    );
  return [
    ...laws("to other hosts", "networkRows", "networkBytes"),
    ...(isCut ? [] : laws("over NVLink", "linkRows", "linkBytes")),
  ];
}
