/** How fast the network between processes was in a layer: the figures to hold against the hardware's. */
import type { Phase } from "../core/backend.ts";
import { elementBytes } from "../core/dtype/dtype.ts";
import { type NetworkRate, networkRate } from "../core/topology/rates.ts";
import type { Job } from "./job.ts";
import { formatBytes } from "./output.ts";
import { combineRowBytes } from "./traffic.ts";

export interface LayerNetwork {
  readonly dispatch: NetworkRate;
  readonly combine: NetworkRate;
}

/** Rows that a source rank sends to a node, over its rail. */
export type RowsTo = (srcRank: number, node: number) => number;

export const NETWORK_FORMULA =
  "bytes of a pair's rows (dispatch) or sums (combine) / the time that both ranks were in its transfers, beside other work; " +
  "<->: both directions at once, the larger counts; NIC: all pairs of a receiving rank; medians; 1 GB = 1e9 bytes";

/** Null where no rows crossed the network by NCCL. `phases`: of all ranks. */
export function networkOf(job: Job, numRowsTo: RowsTo, phases: readonly Phase[]): LayerNetwork | null {
  const nodeOf = (rank: number) => Math.floor(rank / job.shape.ranksPerNode);
  // Scales are messages of their own, as small as they are: they are no measure of the network.
  const outBytes = job.hidden * elementBytes(job.dtype);
  const backBytes = combineRowBytes(job);
  const dispatch = networkRate(
    phases,
    "network rows",
    job.shape,
    (rank, srcRank) => numRowsTo(srcRank, nodeOf(rank)) * outBytes,
  );
  const combine = networkRate(
    phases,
    "network sums",
    job.shape,
    (rank, srcRank) => numRowsTo(rank, nodeOf(srcRank)) * backBytes,
  );
  return dispatch === null || combine === null ? null : { dispatch, combine };
}

export function describeNetwork({ dispatch, combine }: LayerNetwork): string {
  return `dispatch ${inWords(dispatch)}; combine ${inWords(combine)}`;
}

function inWords({ bytes, messageBytes, nicGBps, pairGBps, slowest }: NetworkRate): string {
  const { rank, srcRank, orBack } = slowest;
  const [nic, pair, least] = [nicGBps, pairGBps, slowest.GBps].map((value) => Number(value.toPrecision(3)));
  const size = `${formatBytes(bytes)} in messages of ${formatBytes(Math.round(messageBytes))}`;
  return `${size}: ${nic} GB/s per NIC, ${pair} per pair, slowest pair ${rank} ${orBack ? "<->" : "<-"} ${srcRank} ${least}`;
}
