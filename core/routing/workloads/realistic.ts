import { exp, log } from "../elementary.ts";
import { Random } from "../random.ts";
import { type Sampler, weightedSampler } from "../sample.ts";
import { STREAM, type WeightWriter, type Workload } from "../workload.ts";

/** Fitted by scripts/fit-realistic.mjs to the loads of gpt-oss-20b; docs/routing.md has the data and the quality of the fit. */
const FITTED = { popularitySd: 0.8, topicSd: 2.6, topicShare: 0.65, numTopics: 8, weightSpread: 0.33 } as const;

/**
 * Routing with the statistics of a real router: experts differ in popularity, experts of one topic are chosen together,
 * and the tokens of a document share a topic. Popularity and topics belong to the layer and are the same on every rank;
 * documents are each rank's own.
 */
export const realistic: Workload = {
  name: "realistic",
  description: "expert popularity, co-selection and topics fitted to real router decisions (gpt-oss-20b)",
  formula:
    "token's topic c = its document's with probability topicShare, else any; k draws without replacement, P(e) proportional " +
    "to exp(popularitySd g[e] + topicSd h[c][e]), g = 1 - Exp(1) (a long tail of unpopular experts), h standard normal; " +
    "weights = softmax of logits whose j-th gap is weightSpread Exp(1) / j",
  params: {
    popularitySd: {
      description: "spread of the experts' log popularity",
      default: FITTED.popularitySd,
      min: 0,
      max: 10,
    },
    topicSd: { description: "spread of a topic's log preferences", default: FITTED.topicSd, min: 0, max: 10 },
    topicShare: {
      description: "share of tokens on their document's topic",
      default: FITTED.topicShare,
      min: 0,
      max: 1,
    },
    numTopics: { description: "topics", default: FITTED.numTopics, min: 1, max: 4096, whole: true },
    documentTokens: { description: "tokens of a document", default: 64, min: 1, max: 1e9, whole: true },
    weightSpread: { description: "spread of a token's logits", default: FITTED.weightSpread, min: 0, max: 10 },
  },
  prepare: ({ seed, layer, numExperts, topk, params }) => {
    const { popularitySd, topicSd, topicShare, numTopics, documentTokens, weightSpread } = params;
    const random = new Random(seed, layer, STREAM.tables);
    const popularity = Float64Array.from(
      { length: numExperts },
      () => popularitySd * (1 + log(random.float() + 2 ** -32)),
    );
    const topics: Sampler[] = Array.from({ length: numTopics }, () =>
      weightedSampler(popularity.map((logit) => exp(logit + topicSd * random.normal()))),
    );
    return {
      rows: (_, stream) => {
        let topic = 0;
        return (token, ids, at) => {
          if (token % documentTokens === 0) topic = stream.below(numTopics);
          const used = stream.float() < topicShare ? topic : stream.below(numTopics);
          topics[used](stream, ids, at, topk);
        };
      },
      weights: softmaxOfSpacings(weightSpread),
    };
  },
};

/**
 * The gaps between the largest of many logits with an exponential tail are independent: the j-th gap is Exp(1) / j
 * (Renyi). One parameter scales them; softmax gives the weights.
 */
function softmaxOfSpacings(spread: number): WeightWriter {
  return (random, weights, at, topk) => {
    let sum = 0;
    let logit = 0;
    for (let i = 0; i < topk; i++) {
      if (i > 0) logit += (spread * log(random.float() + 2 ** -32)) / i;
      const weight = exp(Math.max(logit, -80));
      weights[at + i] = weight;
      sum += weight;
    }
    for (let i = at; i < at + topk; i++) weights[i] /= sum;
  };
}
