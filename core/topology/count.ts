import { InvalidArgument } from "../errors.ts";
import { emptyTraffic, type Traffic } from "./traffic.ts";

export interface CounterShape {
  readonly numRanks: number;
  readonly ranksPerNode: number;
  /** Physical experts, divisible by numRanks; rank r owns [r P/R, (r+1) P/R). */
  readonly numExperts: number;
  /** Keep rows per (source, destination): R x R numbers; for groups small enough to draw or to simulate. */
  readonly keepPairs?: boolean;
}

/**
 * Counts traffic exactly, one source rank after the other, so that no more than one rank's routing is in memory. Cost per
 * source: linear in its slots, plus R.
 */
export class TrafficCounter {
  readonly traffic: Traffic;
  /** [R, R] rows (token, destination rank) from row to column; null unless asked for. */
  readonly pairRows: Int32Array | null;
  /** [R, R] slots from row to column; null unless asked for. */
  readonly pairSlots: Int32Array | null;
  /** [R, nodes] rows (token, node); null unless asked for. */
  readonly pairNodeRows: Int32Array | null;
  /** [P] slots per physical expert. */
  readonly expertSlots: Float64Array;
  readonly #shape: CounterShape;
  readonly #rankOfExpert: Int32Array;
  readonly #nodeOfRank: Int32Array;
  readonly #rowsTo: Int32Array;
  readonly #slotsTo: Int32Array;
  readonly #multiTo: Int32Array;
  readonly #rowsToNode: Int32Array;
  readonly #lastOfRank: Int32Array;
  readonly #secondOfRank: Int32Array;
  readonly #lastOfNode: Int32Array;
  #stamp = 0;

  constructor(shape: CounterShape) {
    const { numRanks, ranksPerNode, numExperts } = shape;
    if (numExperts % numRanks !== 0 || numRanks % ranksPerNode !== 0) {
      throw new InvalidArgument({
        name: "numExperts",
        expected: `a multiple of numRanks ${numRanks}, itself a multiple of ranksPerNode ${ranksPerNode}`,
        received: `${numExperts}`,
        remedy: "add redundant experts (--physical-experts) or change the number of ranks",
      });
    }
    const nodes = numRanks / ranksPerNode;
    const perRank = numExperts / numRanks;
    this.#shape = shape;
    this.traffic = emptyTraffic(numRanks, ranksPerNode);
    this.expertSlots = new Float64Array(numExperts);
    this.pairRows = shape.keepPairs ? new Int32Array(numRanks * numRanks) : null;
    this.pairSlots = shape.keepPairs ? new Int32Array(numRanks * numRanks) : null;
    this.pairNodeRows = shape.keepPairs ? new Int32Array(numRanks * nodes) : null;
    this.#rankOfExpert = Int32Array.from({ length: numExperts }, (_, e) => Math.floor(e / perRank));
    this.#nodeOfRank = Int32Array.from({ length: numRanks }, (_, r) => Math.floor(r / ranksPerNode));
    this.#rowsTo = new Int32Array(numRanks);
    this.#slotsTo = new Int32Array(numRanks);
    this.#multiTo = new Int32Array(numRanks);
    this.#rowsToNode = new Int32Array(nodes);
    this.#lastOfRank = new Int32Array(numRanks).fill(-1);
    this.#secondOfRank = new Int32Array(numRanks).fill(-1);
    this.#lastOfNode = new Int32Array(nodes).fill(-1);
  }

  /**
   * Adds one source rank's physical expert ids, [tokens, topk] with -1 = no choice. Throws InvalidArgument with rank,
   * token and slot for an id out of range. Each source is added once.
   */
  add(src: number, ids: Int32Array, topk: number): void {
    const { numExperts } = this.#shape;
    const rankOfExpert = this.#rankOfExpert;
    const nodeOfRank = this.#nodeOfRank;
    const rowsTo = this.#rowsTo.fill(0);
    const slotsTo = this.#slotsTo.fill(0);
    const multiTo = this.#multiTo.fill(0);
    const rowsToNode = this.#rowsToNode.fill(0);
    const lastOfRank = this.#lastOfRank;
    const secondOfRank = this.#secondOfRank;
    const lastOfNode = this.#lastOfNode;
    const expertSlots = this.expertSlots;
    let stamp = this.#stamp;
    for (let i = 0; i < ids.length; stamp++) {
      for (const end = i + topk; i < end; i++) {
        const expert = ids[i];
        if (expert === -1) continue;
        if (!(expert >= 0 && expert < numExperts)) throw badId(src, i, topk, expert, numExperts);
        expertSlots[expert]++;
        const dst = rankOfExpert[expert];
        slotsTo[dst]++;
        if (lastOfRank[dst] !== stamp) {
          lastOfRank[dst] = stamp;
          rowsTo[dst]++;
          const node = nodeOfRank[dst];
          if (lastOfNode[node] !== stamp) {
            lastOfNode[node] = stamp;
            rowsToNode[node]++;
          }
        } else if (secondOfRank[dst] !== stamp) {
          secondOfRank[dst] = stamp;
          multiTo[dst]++;
        }
      }
    }
    this.#stamp = stamp;
    this.traffic.numTokens[src] = ids.length / topk;
    this.#fold(src);
  }

  #fold(src: number): void {
    const { numRanks, ranksPerNode } = this.#shape;
    const t = this.traffic;
    const local = src % ranksPerNode;
    const srcNode = this.#nodeOfRank[src];
    for (let dst = 0; dst < numRanks; dst++) {
      const rows = this.#rowsTo[dst];
      if (rows === 0) continue;
      const slots = this.#slotsTo[dst];
      const node = this.#nodeOfRank[dst];
      // The rail stop: the rank with the source's local index on the destination's node.
      const stop = node * ranksPerNode + local;
      t.sendRows[src] += rows;
      t.recvRows[dst] += rows;
      t.sendSlots[src] += slots;
      t.recvSlots[dst] += slots;
      t.multiRows[dst] += this.#multiTo[dst];
      t.railWrites[stop] += rows;
      if (dst !== stop) {
        t.railNvlinkOut[stop] += rows;
        t.railNvlinkIn[dst] += rows;
      }
      if (node !== srcNode) {
        t.directNicOut[src] += rows;
        t.directNicIn[dst] += rows;
        t.slotNicOut[src] += slots;
        t.slotNicIn[dst] += slots;
      } else if (dst !== src) {
        t.directNvlinkOut[src] += rows;
        t.directNvlinkIn[dst] += rows;
        t.slotNvlinkOut[src] += slots;
        t.slotNvlinkIn[dst] += slots;
      }
    }
    for (let node = 0; node < this.#rowsToNode.length; node++) {
      const rows = this.#rowsToNode[node];
      if (rows === 0) continue;
      const stop = node * ranksPerNode + local;
      t.nodeRows[src] += rows;
      t.railReads[stop] += rows;
      if (node === srcNode) continue;
      t.railNicOut[src] += rows;
      t.railNicIn[stop] += rows;
    }
    this.pairRows?.set(this.#rowsTo, src * numRanks);
    this.pairSlots?.set(this.#slotsTo, src * numRanks);
    this.pairNodeRows?.set(this.#rowsToNode, src * this.#rowsToNode.length);
  }
}

function badId(rank: number, index: number, topk: number, id: number, numExperts: number): InvalidArgument {
  return new InvalidArgument({
    name: "topkIdx",
    expected: `-1..${numExperts - 1}`,
    received: `${id}`,
    where: { rank, token: Math.floor(index / topk), slot: index % topk },
    remedy: "use -1 for a slot without a choice, or raise --experts",
  });
}
