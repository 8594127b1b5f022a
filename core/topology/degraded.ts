import { InvalidArgument } from "../errors.ts";
import type { Placement } from "./placement.ts";

/** What a group loses when ranks are gone: their tokens, and the contributions of experts that live nowhere else. */
export interface Degradation {
  readonly deadRanks: readonly number[];
  /** Tokens whose source rank is dead: nobody has them. */
  readonly numTokensGone: number;
  /** Tokens of living ranks that miss at least one expert's contribution, and those that miss all of them. */
  readonly numTokensDegraded: number;
  readonly numTokensEmpty: number;
  /** Slots of living ranks that found no living replica, and those that another replica took over. */
  readonly numSlotsLost: number;
  readonly numSlotsMoved: number;
  /** Logical experts without a living replica, ascending. */
  readonly lostExperts: readonly number[];
}

/** Masks dead ranks out of a routing, rank by rank: their tokens vanish, slots move to living replicas or become -1. */
export class DeadRanks {
  readonly #placement: Placement;
  readonly #isDead: Uint8Array;
  readonly #perRank: number;
  readonly #result = { numTokensGone: 0, numTokensDegraded: 0, numTokensEmpty: 0, numSlotsLost: 0, numSlotsMoved: 0 };

  /** Throws InvalidArgument for a rank that is not in the group, or when none is left. */
  constructor(placement: Placement, deadRanks: readonly number[]) {
    this.#placement = placement;
    this.#isDead = new Uint8Array(placement.numRanks);
    this.#perRank = placement.replicas.length / placement.numRanks;
    for (const rank of deadRanks) {
      if (!(Number.isInteger(rank) && rank >= 0 && rank < placement.numRanks)) {
        throw new InvalidArgument({
          name: "dead ranks",
          expected: `0..${placement.numRanks - 1}`,
          received: `${rank}`,
          remedy: "name ranks of the group",
        });
      }
      this.#isDead[rank] = 1;
    }
    if (this.#isDead.every((dead) => dead === 1)) {
      throw new InvalidArgument({
        name: "dead ranks",
        expected: `fewer than ${placement.numRanks}`,
        received: "all of them",
        remedy: "leave one alive",
      });
    }
  }

  /** Rewrites one source's physical ids ([tokens, topk]) in place; a dead source keeps no token: an empty view. */
  mask(src: number, ids: Int32Array, topk: number): Int32Array {
    const result = this.#result;
    if (this.#isDead[src]) {
      result.numTokensGone += ids.length / topk;
      return ids.subarray(0, 0);
    }
    for (let i = 0; i < ids.length; ) {
      let lost = 0;
      let left = 0;
      for (const end = i + topk; i < end; i++) {
        const physical = ids[i];
        if (physical < 0) continue;
        if (this.#isDead[Math.floor(physical / this.#perRank)]) {
          ids[i] = this.#livingReplica(physical, src + i);
          if (ids[i] < 0) {
            lost++;
            continue;
          }
          result.numSlotsMoved++;
        }
        left++;
      }
      result.numSlotsLost += lost;
      if (lost > 0) result.numTokensDegraded++;
      if (lost > 0 && left === 0) result.numTokensEmpty++;
    }
    return ids;
  }

  degradation(): Degradation {
    const { numLogical, replicaStart, replicas } = this.#placement;
    const lostExperts: number[] = [];
    for (let expert = 0; expert < numLogical; expert++) {
      const own = replicas.subarray(replicaStart[expert], replicaStart[expert + 1]);
      if (own.every((physical) => this.#isDead[Math.floor(physical / this.#perRank)])) lostExperts.push(expert);
    }
    const deadRanks = [...this.#isDead.keys()].filter((rank) => this.#isDead[rank]);
    return { deadRanks, ...this.#result, lostExperts };
  }

  /** Another replica of the same expert on a living rank, in turn; -1 when there is none. */
  #livingReplica(physical: number, turn: number): number {
    const { physicalToLogical, replicaStart, replicas } = this.#placement;
    const expert = physicalToLogical[physical];
    const first = replicaStart[expert];
    const count = replicaStart[expert + 1] - first;
    for (let i = 0; i < count; i++) {
      const candidate = replicas[first + ((turn + i) % count)];
      if (!this.#isDead[Math.floor(candidate / this.#perRank)]) return candidate;
    }
    return -1;
  }
}
