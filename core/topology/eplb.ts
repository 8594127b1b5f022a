import { InvalidArgument } from "../errors.ts";
import { type Placement, placementOf } from "./placement.ts";

/**
 * Balanced placement with redundant experts: the published EPLB idea (deepseek-ai/EPLB), written from its description.
 *   global        replicate over all experts, pack the replicas onto ranks
 *   hierarchical  pack groups of experts onto nodes first, so that a group's traffic stays in a node; then replicate and
 *                 pack inside each node
 */
export type BalanceMode = "global" | "hierarchical";

export interface BalanceOptions {
  /** [E] tokens (or any load) per logical expert. */
  readonly load: Float64Array;
  readonly numPhysical: number;
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly mode: BalanceMode;
  /** Groups of consecutive experts that stay on one node (hierarchical); default: one per node. */
  readonly numGroups?: number;
}

/** Throws InvalidArgument for numbers that do not divide. */
export function balancedPlacement(options: BalanceOptions): Placement {
  const { load, numPhysical, numRanks, ranksPerNode, mode } = options;
  const numLogical = load.length;
  if (numPhysical < numLogical || numPhysical % numRanks !== 0) {
    throw new InvalidArgument({
      name: "physical experts",
      expected: `at least ${numLogical} (experts) and a multiple of ${numRanks} (ranks)`,
      received: `${numPhysical}`,
      remedy: `use ${Math.ceil(Math.max(numPhysical, numLogical) / numRanks) * numRanks}`,
    });
  }
  const group = { numRanks, ranksPerNode };
  const all = Int32Array.from(load, (_, e) => e);
  if (mode === "global") {
    return placementOf(placeInNode(load, all, numPhysical, numRanks), numLogical, group);
  }
  const nodes = numRanks / ranksPerNode;
  const numGroups = options.numGroups ?? nodes;
  if (numGroups % nodes !== 0 || numLogical % numGroups !== 0) {
    throw new InvalidArgument({
      name: "groups",
      expected: `a multiple of ${nodes} (nodes) that divides ${numLogical} (experts)`,
      received: `${numGroups}`,
      remedy: "use --balance global, or another number of groups",
    });
  }
  const perGroup = numLogical / numGroups;
  const groupLoad = new Float64Array(numGroups);
  load.forEach((value, e) => {
    groupLoad[Math.floor(e / perGroup)] += value;
  });
  const nodeOfGroup = packEqually(groupLoad, nodes);
  const physicalToLogical = new Int32Array(numPhysical);
  const perNode = numPhysical / nodes;
  for (let node = 0; node < nodes; node++) {
    const experts = all.filter((e) => nodeOfGroup[Math.floor(e / perGroup)] === node);
    physicalToLogical.set(placeInNode(load, experts, perNode, ranksPerNode), node * perNode);
  }
  return placementOf(physicalToLogical, numLogical, group);
}

/** Replicates `experts` to `numPhysical` and packs them onto `numRanks`: the logical expert of each physical place. */
function placeInNode(load: Float64Array, experts: Int32Array, numPhysical: number, numRanks: number): Int32Array {
  const numReplicas = replicate(load, experts, numPhysical, numRanks);
  const items: { expert: number; share: number }[] = [];
  experts.forEach((expert, i) => {
    for (let r = 0; r < numReplicas[i]; r++) items.push({ expert, share: load[expert] / numReplicas[i] });
  });
  items.sort((a, b) => b.share - a.share || a.expert - b.expert);
  const perRank = numPhysical / numRanks;
  const ranks = Array.from({ length: numRanks }, () => ({ load: 0, experts: [] as number[] }));
  for (const { expert, share } of items) {
    // The least loaded rank with room; one that holds the expert already only when no other has room.
    let best = -1;
    let bestHolds = true;
    for (let r = 0; r < numRanks; r++) {
      if (ranks[r].experts.length === perRank) continue;
      const holds = ranks[r].experts.includes(expert);
      if (best < 0 || (bestHolds && !holds) || (holds === bestHolds && ranks[r].load < ranks[best].load)) {
        best = r;
        bestHolds = holds;
      }
    }
    ranks[best].experts.push(expert);
    ranks[best].load += share;
  }
  return Int32Array.from(ranks.flatMap((rank) => rank.experts.sort((a, b) => a - b)));
}

/** Every expert once; each further replica to the expert whose replicas carry most (no more of one than ranks if avoidable). */
function replicate(load: Float64Array, experts: Int32Array, numPhysical: number, numRanks: number): Int32Array {
  const count = new Int32Array(experts.length).fill(1);
  const heap = new MaxHeap(experts.length, (i) => load[experts[i]] / count[i] - (count[i] >= numRanks ? 1e18 : 0));
  for (let used = experts.length; used < numPhysical; used++) {
    count[heap.top()]++;
    heap.settle();
  }
  return count;
}

/** Packs items into `numBins` bins of equally many items, heaviest first, each into the lightest bin with room. */
function packEqually(weights: Float64Array, numBins: number): Int32Array {
  const room = weights.length / numBins;
  const order = [...weights.keys()].sort((a, b) => weights[b] - weights[a] || a - b);
  const bins = Array.from({ length: numBins }, () => ({ load: 0, count: 0 }));
  const binOf = new Int32Array(weights.length);
  for (const item of order) {
    let best = -1;
    for (let b = 0; b < numBins; b++) {
      if (bins[b].count < room && (best < 0 || bins[b].load < bins[best].load)) best = b;
    }
    binOf[item] = best;
    bins[best].load += weights[item];
    bins[best].count++;
  }
  return binOf;
}

/** Items 0..n-1 by a key that only ever falls, and only at the top: ties go to the smaller item. */
class MaxHeap {
  readonly #items: Int32Array;
  readonly #key: (item: number) => number;
  constructor(n: number, key: (item: number) => number) {
    this.#key = key;
    this.#items = Int32Array.from({ length: n }, (_, i) => i);
    for (let i = (n >> 1) - 1; i >= 0; i--) this.#sink(i);
  }
  top(): number {
    return this.#items[0];
  }
  settle(): void {
    this.#sink(0);
  }
  #before(a: number, b: number): boolean {
    const difference = this.#key(a) - this.#key(b);
    return difference > 0 || (difference === 0 && a < b);
  }
  #sink(start: number): void {
    const items = this.#items;
    for (let i = start; ; ) {
      let largest = i;
      for (const child of [2 * i + 1, 2 * i + 2]) {
        if (child < items.length && this.#before(items[child], items[largest])) largest = child;
      }
      if (largest === i) return;
      [items[i], items[largest]] = [items[largest], items[i]];
      i = largest;
    }
  }
}
