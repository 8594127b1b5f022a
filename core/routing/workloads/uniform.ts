import { InvalidArgument } from "../../errors.ts";
import { type Random, Random as RandomStream } from "../random.ts";
import { uniformSampler } from "../sample.ts";
import { type RowWriter, STREAM, type Workload, type WorkloadRequest } from "../workload.ts";

function uniformRows({ numExperts, topk }: WorkloadRequest, random: Random): RowWriter {
  const sample = uniformSampler(numExperts);
  return (_, ids, at) => sample(random, ids, at, topk);
}

/** Every k-subset of the experts is equally likely. */
export const uniform: Workload = {
  name: "uniform",
  description: "every expert equally likely, tokens independent",
  formula: "P(set) = 1 / C(E, k)",
  params: {},
  prepare: (request) => ({ rows: (_, random) => uniformRows(request, random) }),
};

/** DeepEP#621: one rank works, the others send -1. */
export const onlyRank0: Workload = {
  name: "only-rank-0",
  description: "rank 0 routes uniformly, every token of the other ranks chooses nothing (all -1)",
  formula: "rank 0: P(set) = 1 / C(E, k); other ranks: -1",
  params: {},
  prepare: (request) => ({
    rows: (rank, random) =>
      rank === 0 ? uniformRows(request, random) : (_, ids, at) => ids.fill(-1, at, at + request.topk),
  }),
};

/** Tokens that lost some or all of their choices: -1 anywhere in a row. */
export const drops: Workload = {
  name: "drops",
  description: "uniform, with slots and whole tokens dropped at random (-1)",
  formula: "uniform; each slot -1 with probability dropShare; each token all -1 with probability emptyShare",
  params: {
    dropShare: { description: "probability that a slot is dropped", default: 0.1, min: 0, max: 1 },
    emptyShare: { description: "probability that a token loses every slot", default: 0.02, min: 0, max: 1 },
  },
  prepare: (request) => ({
    rows: (_, random) => {
      const { dropShare, emptyShare } = request.params;
      const sample = uniformSampler(request.numExperts);
      return (_token, ids, at) => {
        sample(random, ids, at, request.topk);
        const empty = random.float() < emptyShare;
        for (let i = at; i < at + request.topk; i++) if (random.float() < dropShare || empty) ids[i] = -1;
      };
    },
  }),
};

/**
 * Perfect balance: over all ranks the experts' counts differ by at most one. The tokens of the group, numbered rank by
 * rank, fall into blocks of E / gcd(E, k) tokens; a block deals out a random permutation of the experts, over and over, so
 * that each expert comes k / gcd(E, k) times per block and no token gets an expert twice.
 */
export const balanced: Workload = {
  name: "balanced",
  description: "every expert gets the same number of slots over the group (differing by at most 1)",
  formula: "token t = B b + i of the group, B = E / gcd(E, k): expert of slot j = perm_b[(i k + j) mod E]",
  params: {},
  prepare: ({ seed, layer, numExperts, topk, numTokens }) => {
    const blockTokens = numExperts / gcd(numExperts, topk);
    const firstTokens: number[] = [];
    numTokens.reduce((first, tokens, rank) => {
      firstTokens[rank] = first;
      return first + tokens;
    }, 0);
    return {
      rows: (rank) => {
        let block = -1;
        const permutation = new Int32Array(numExperts);
        return (token, ids, at) => {
          const index = firstTokens[rank] + token;
          if (Math.floor(index / blockTokens) !== block) {
            block = Math.floor(index / blockTokens);
            for (let e = 0; e < numExperts; e++) permutation[e] = e;
            new RandomStream(seed, layer, STREAM.blocks, block).shuffle(permutation);
          }
          const first = (index % blockTokens) * topk;
          for (let slot = 0; slot < topk; slot++) ids[at + slot] = permutation[(first + slot) % numExperts];
        };
      },
    };
  },
};

/**
 * DeepSeek-V3's node-limited gate: a token's experts lie in at most `topkGroups` of `numGroups` groups of experts (a group
 * = the experts of a node, when there are as many). Groups are chosen uniformly without replacement, then k experts
 * uniformly among theirs. That is the gate's law for exchangeable scores, but for its slight preference for groups whose
 * two best experts are good.
 */
export const groupLimited: Workload = {
  name: "group-limited",
  description: "DeepSeek-V3: each token's experts come from topkGroups of numGroups groups (nodes)",
  formula: "groups: uniform (topkGroups)-subset of numGroups; experts: uniform k-subset of the groups' experts",
  params: {
    numGroups: {
      description: "groups of experts; 0 = number of nodes, or 8 on one node",
      default: 0,
      min: 0,
      max: 1e6,
      whole: true,
    },
    topkGroups: {
      description: "groups a token may use; 0 = half of them, or more for topk",
      default: 0,
      min: 0,
      max: 1e6,
      whole: true,
    },
  },
  prepare: ({ numExperts, topk, numRanks, ranksPerNode, params }) => {
    const nodes = numRanks / ranksPerNode;
    const numGroups = params.numGroups || (nodes > 1 ? nodes : gcd(8, numExperts));
    const groupExperts = numExperts / numGroups;
    const topkGroups = params.topkGroups || Math.max(Math.ceil(numGroups / 2), Math.ceil(topk / groupExperts));
    if (!Number.isInteger(groupExperts) || topkGroups > numGroups || topk > topkGroups * groupExperts) {
      throw new InvalidArgument({
        name: "group-limited",
        expected: `numGroups that divide ${numExperts} experts, and topkGroups of them with at least topk ${topk} experts`,
        received: `numGroups ${numGroups}, topkGroups ${topkGroups}`,
        remedy: "set numGroups and topkGroups",
      });
    }
    return {
      rows: (_, random) => {
        const sampleGroups = uniformSampler(numGroups);
        const sample = uniformSampler(topkGroups * groupExperts);
        const groups = new Int32Array(topkGroups);
        return (_token, ids, at) => {
          sampleGroups(random, groups, 0, topkGroups);
          sample(random, ids, at, topk);
          for (let i = at; i < at + topk; i++) {
            const group = Math.floor(ids[i] / groupExperts);
            ids[i] = groups[group] * groupExperts + (ids[i] - group * groupExperts);
          }
        };
      },
    };
  },
};

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}
