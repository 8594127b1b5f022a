import { InvalidArgument } from "../../errors.ts";
import { exp, log } from "../elementary.ts";
import { iota, Random } from "../random.ts";
import { uniformSampler, weightedSampler } from "../sample.ts";
import { STREAM, type Workload } from "../workload.ts";

/** Successive draws without replacement from Zipf's law over a random order of the experts, the same on every rank. */
export const zipf: Workload = {
  name: "zipf",
  description: "a few popular experts: popularity falls as a power of the rank in popularity",
  formula: "k draws without replacement, P(expert perm[i]) proportional to (i + 1)^-exponent",
  params: { exponent: { description: "skew; 0 is uniform", default: 1, min: 0, max: 10 } },
  prepare: ({ seed, layer, numExperts, topk, params }) => {
    const weights = Float64Array.from({ length: numExperts }, (_, i) => exp(-params.exponent * log(i + 1)));
    const order = new Random(seed, layer, STREAM.tables).shuffle(iota(numExperts));
    const sample = weightedSampler(weights, order);
    return { rows: (_, random) => (_token, ids, at) => sample(random, ids, at, topk) };
  },
};

/** DeepEP#427's hot expert: the first choice of a share of all tokens is one expert. */
export const hotExpert: Workload = {
  name: "hot-expert",
  description: "one expert is the first choice of a share of all tokens, the rest is uniform",
  formula: "with probability share: hotExpert and a uniform (k-1)-subset of the others; else a uniform k-subset",
  params: {
    share: { description: "share of tokens that choose the hot expert first", default: 0.8, min: 0, max: 1 },
    hotExpert: { description: "its id", default: 0, min: 0, max: 1e9, whole: true },
  },
  prepare: ({ numExperts, topk, params: { share, hotExpert: hot } }) => {
    checkId("hotExpert", hot, numExperts);
    const others = uniformSampler(
      numExperts - 1,
      iota(numExperts - 1).map((e) => (e < hot ? e : e + 1)),
    );
    const all = uniformSampler(numExperts);
    return {
      rows: (_, random) => (_token, ids, at) => {
        if (random.float() < share) {
          ids[at] = hot;
          others(random, ids, at + 1, topk - 1);
        } else all(random, ids, at, topk);
      },
    };
  },
};

/** One rank's experts take a share of the draws; a token that has used them all goes elsewhere. */
export const hotRank: Workload = {
  name: "hot-rank",
  description: "the experts of one rank take a share of all choices, the rest is uniform",
  formula:
    "k draws without replacement, P(e) proportional to share / L on the hot rank, (1 - share) / (E - L) elsewhere",
  params: {
    share: { description: "share of the draws that go to the hot rank", default: 0.8, min: 0, max: 1 },
    hotRank: { description: "its number", default: 0, min: 0, max: 1e9, whole: true },
  },
  prepare: ({ numExperts, numRanks, topk, params: { share, hotRank: hot } }) => {
    checkId("hotRank", hot, numRanks);
    const local = numExperts / numRanks;
    const elsewhere = numExperts - local;
    const sampleHot = uniformSampler(
      local,
      iota(local).map((i) => hot * local + i),
    );
    const sampleOthers = uniformSampler(
      elsewhere,
      iota(elsewhere).map((e) => (e < hot * local ? e : e + local)),
    );
    return {
      // The weights have two values only: choose between hot and other by the weight that is left, then fill in each
      // kind uniformly. An alias table would reject nearly every draw once a hot rank of few experts is used up.
      rows: (_, random) => {
        const isHot = new Uint8Array(topk);
        const hotIds = new Int32Array(topk);
        const otherIds = new Int32Array(topk);
        return (_token, ids, at) => {
          let numHot = 0;
          for (let slot = 0; slot < topk; slot++) {
            const hotLeft = (share * (local - numHot)) / local;
            const otherLeft = elsewhere > 0 ? ((1 - share) * (elsewhere - slot + numHot)) / elsewhere : 0;
            const total = hotLeft + otherLeft;
            const takesHot = total > 0 ? random.float() * total < hotLeft : numHot < local;
            isHot[slot] = takesHot ? 1 : 0;
            if (takesHot) numHot++;
          }
          sampleHot(random, hotIds, 0, numHot);
          sampleOthers(random, otherIds, 0, topk - numHot);
          for (let slot = 0, h = 0, o = 0; slot < topk; slot++)
            ids[at + slot] = isHot[slot] ? hotIds[h++] : otherIds[o++];
        };
      },
    };
  },
};

function checkId(name: string, value: number, count: number): void {
  if (Number.isInteger(value) && value >= 0 && value < count) return;
  throw new InvalidArgument({
    name,
    expected: `0..${count - 1}`,
    received: `${value}`,
    remedy: "choose one of the group's",
  });
}
