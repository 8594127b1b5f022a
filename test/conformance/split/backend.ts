/** A backend whose groups are split over several processes: parts in this process, or real ones. */
import type { ClusterPlace } from "../../../backends/cuda/index.ts";
import type { Backend, Group, GroupOptions } from "../../../core/backend.ts";
import { settle } from "./errors.ts";
import { SplitGroup } from "./group.ts";
import { freePort } from "./port.ts";

/** One host per process, or one rank per process. */
export type PerProcess = "node" | "rank";

/** Where the parts of a group are made; `index` tells them apart, and one of an earlier group may serve again. */
export interface Parts {
  open(index: number, place: ClusterPlace, options: GroupOptions): Promise<Group>;
  close(): Promise<void>;
}

/** Why a group of this shape cannot be split, or null. */
export function unsplittable(per: PerProcess, { numRanks, ranksPerNode = numRanks }: GroupOptions): string | null {
  if (per === "rank") return numRanks > 1 ? null : "one rank";
  return numRanks > ranksPerNode ? null : "one node";
}

/** `whole` makes the groups that cannot be split. */
export function splitBackend(per: PerProcess, parts: Parts, whole: Backend): Backend {
  const groups = new Set<Group>();
  return {
    name: whole.name,
    async createGroup(options) {
      const { numRanks, ranksPerNode = numRanks } = options;
      if (unsplittable(per, options) !== null) return whole.createGroup(options);
      const processesPerNode = per === "node" ? 1 : ranksPerNode;
      const numProcesses = (numRanks / ranksPerNode) * processesPerNode;
      const port = await freePort();
      const made = await settle(
        Array.from({ length: numProcesses }, (_, processRank) => {
          const localProcess = processRank % processesPerNode;
          const where = { numProcesses, processRank, processesPerNode, localProcess };
          const place = { launcher: "by hand", ...where, host: "127.0.0.1", port };
          return parts.open(processRank, place, { numRanks, ranksPerNode });
        }),
      );
      const group = new SplitGroup(made);
      groups.add(group);
      return group;
    },
    async close() {
      await settle([...groups].map((group) => group.close()));
      await Promise.all([parts.close(), whole.close()]);
    },
  };
}
