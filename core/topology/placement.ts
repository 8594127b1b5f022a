import { InvalidArgument } from "../errors.ts";

/**
 * Which rank holds which expert. Physical experts lie in order: rank r owns the ids [r P/R, (r+1) P/R). Without redundancy
 * physical = a permutation of the logical experts; with it some logical experts have several replicas.
 */
export interface Placement {
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly numLogical: number;
  /** [P] logical expert of each physical one. */
  readonly physicalToLogical: Int32Array;
  /** [E + 1] and [P]: replicas of logical expert e are replicas[start[e] .. start[e+1]), ascending. */
  readonly replicaStart: Int32Array;
  readonly replicas: Int32Array;
}

/**
 * Which replica of an expert a token uses: "spread" takes them in turn over (source + token + expert), "nearest" prefers one on the
 * own rank, then on the own node, in turn among those.
 */
export type ReplicaChoice = "spread" | "nearest";

/** Throws InvalidArgument unless the map names every logical expert and divides over the ranks. */
export function placementOf(
  physicalToLogical: Int32Array,
  numLogical: number,
  group: { numRanks: number; ranksPerNode: number },
): Placement {
  const numPhysical = physicalToLogical.length;
  const bad = (name: string, expected: string, received: string, remedy: string) =>
    new InvalidArgument({ name, expected, received, remedy });
  if (numPhysical % group.numRanks !== 0) {
    throw bad(
      "physical experts",
      `a multiple of numRanks ${group.numRanks}`,
      `${numPhysical}`,
      `add redundant experts: ${Math.ceil(numPhysical / group.numRanks) * group.numRanks - numLogical} make it fit`,
    );
  }
  const replicaStart = new Int32Array(numLogical + 1);
  physicalToLogical.forEach((logical, physical) => {
    if (!(logical >= 0 && logical < numLogical)) {
      throw bad(`physicalToLogical[${physical}]`, `0..${numLogical - 1}`, `${logical}`, "correct the map");
    }
    replicaStart[logical + 1]++;
  });
  for (let e = 0; e < numLogical; e++) {
    if (replicaStart[e + 1] === 0) {
      throw bad("physicalToLogical", `a replica of every expert`, `none of expert ${e}`, "add one");
    }
    replicaStart[e + 1] += replicaStart[e];
  }
  const next = replicaStart.slice(0, numLogical);
  const replicas = new Int32Array(numPhysical);
  physicalToLogical.forEach((logical, physical) => {
    replicas[next[logical]++] = physical;
  });
  return { ...group, numLogical, physicalToLogical, replicaStart, replicas };
}

/** Expert e on rank floor(e / (E/R)), replicas round robin when there are more physical than logical experts. */
export function contiguousPlacement(
  numLogical: number,
  numPhysical: number,
  group: { numRanks: number; ranksPerNode: number },
): Placement {
  return placementOf(
    Int32Array.from({ length: numPhysical }, (_, physical) => physical % numLogical),
    numLogical,
    group,
  );
}

/**
 * Rewrites one source rank's logical ids into physical ones, into `out` (same length; -1 stays). Distinct experts of a
 * token stay distinct. Throws InvalidArgument with rank, token and slot for an id out of range.
 */
export function chooseReplicas(
  placement: Placement,
  choice: ReplicaChoice,
  src: number,
  ids: Int32Array,
  topk: number,
  out: Int32Array,
): void {
  const { start, list } = candidates(placement, choice, src);
  for (let i = 0, token = 0; i < ids.length; token++) {
    for (const end = i + topk; i < end; i++) {
      const expert = ids[i];
      if (expert < 0) {
        if (expert !== -1) throw badExpert(placement, src, i, topk, expert);
        out[i] = -1;
        continue;
      }
      if (expert >= placement.numLogical) throw badExpert(placement, src, i, topk, expert);
      const first = start[expert];
      const count = start[expert + 1] - first;
      out[i] = count === 1 ? list[first] : list[first + ((src + token + expert) % count)];
    }
  }
}

function badExpert(placement: Placement, rank: number, index: number, topk: number, id: number): InvalidArgument {
  return new InvalidArgument({
    name: "topkIdx",
    expected: `-1..${placement.numLogical - 1}`,
    received: `${id}`,
    where: { rank, token: Math.floor(index / topk), slot: index % topk },
    remedy: "use -1 for a slot without a choice, or raise --experts",
  });
}

/** The replicas that a source may use, per expert. */
function candidates(placement: Placement, choice: ReplicaChoice, src: number): { start: Int32Array; list: Int32Array } {
  if (choice === "spread") return { start: placement.replicaStart, list: placement.replicas };
  const perRank = placement.replicas.length / placement.numRanks;
  const perNode = perRank * placement.ranksPerNode;
  const node = Math.floor(src / placement.ranksPerNode);
  const start = new Int32Array(placement.numLogical + 1);
  const list: number[] = [];
  for (let e = 0; e < placement.numLogical; e++) {
    const all = placement.replicas.subarray(placement.replicaStart[e], placement.replicaStart[e + 1]);
    const own = all.filter((physical) => Math.floor(physical / perRank) === src);
    const near = own.length > 0 ? own : all.filter((physical) => Math.floor(physical / perNode) === node);
    list.push(...(near.length > 0 ? near : all));
    start[e + 1] = list.length;
  }
  return { start, list: Int32Array.from(list) };
}
