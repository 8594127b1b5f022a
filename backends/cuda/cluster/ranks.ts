/** Which ranks a process drives: blocks of equal size, so many per node. */
import { InvalidArgument } from "../../../core/errors.ts";
import type { ClusterPlace } from "./environment.ts";

/**
 * The ranks of one process. Throws InvalidArgument when the group does not divide, or when several processes of a host
 * would hold more than one rank each.
 */
export function ranksOfProcess({ numProcesses, processRank, processesPerNode = 1 }: ClusterPlace, numRanks: number) {
  const each = numRanks / numProcesses;
  if (!Number.isInteger(each)) {
    throw new InvalidArgument({
      name: "numRanks",
      expected: `a multiple of the ${numProcesses} processes`,
      received: `${numRanks}`,
      remedy: "give every process the same number of ranks",
    });
  }
  if (processesPerNode > 1 && each > 1) {
    throw new InvalidArgument({
      name: "numRanks",
      expected: `${numProcesses}: one rank per process, as ${processesPerNode} processes share a host`,
      received: `${numRanks}`,
      remedy: "start one process per host that drives all of its ranks, or one process per rank",
    });
  }
  return Array.from({ length: each }, (_, i) => processRank * each + i);
}

/** Ranks on one host: what its processes drive together. */
export function ranksPerNodeOf(place: ClusterPlace, numRanks: number): number {
  return ranksOfProcess(place, numRanks).length * (place.processesPerNode ?? 1);
}
