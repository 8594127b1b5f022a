/**
 * Fits the parameters of the `realistic` workload to a recorded routing file, and prints the fit beside the data.
 *
 *   npm run build && node scripts/fit-realistic.mjs ROUTING.safetensors [LOADS.safetensors]
 *
 * ROUTING is a routing file of documents of `documentTokens` successive tokens (64 in gpt-oss-20b.decode.128x64). Each
 * statistic is averaged over the layers; for each number of topics the parameters minimise the sum of the squared log ratios
 * of the generated to the recorded statistics (FITTED), with the same seeds throughout, so that the objective does not
 * jitter; the number of topics is the one whose other statistics (CHECKED) come out best. LOADS, a file of expert
 * loads of other models, is not fitted: what the fitted parameters predict for it is printed beside it.
 * docs/routing.md keeps the result; the parameters themselves live in core/routing/workloads/realistic.ts.
 */

import { openFile } from "../dist/cli/files.js";
import { generateRouting } from "../dist/core/routing/generate.js";
import { openRouting } from "../dist/core/routing/import/index.js";
import { loadStatistics } from "../dist/core/routing/statistics/index.js";

const DOCUMENT = 64;
const SEEDS = [1, 2];

/** Statistics of one layer of [tokens, topk] ids without -1. */
function layerStatistics(ids, topk, numExperts) {
  const numTokens = ids.length / topk;
  const numDocuments = Math.floor(numTokens / DOCUMENT);
  const counts = new Float64Array(numExperts);
  const pairs = new Float64Array(numExperts * numExperts);
  for (let i = 0; i < ids.length; i += topk) {
    for (let a = i; a < i + topk; a++) {
      counts[ids[a]]++;
      for (let b = i; b < i + topk; b++) if (a !== b) pairs[ids[a] * numExperts + ids[b]]++;
    }
  }
  const p = counts.map((count) => count / numTokens);
  // How many experts two tokens share: of one document, and of the whole layer.
  let inside = 0;
  for (let d = 0; d < numDocuments; d++) {
    const inDocument = new Float64Array(numExperts);
    for (let i = d * DOCUMENT * topk; i < (d + 1) * DOCUMENT * topk; i++) inDocument[ids[i]]++;
    for (const n of inDocument) inside += (n * (n - 1)) / (DOCUMENT * (DOCUMENT - 1));
  }
  const overlapSd = sharedSd(ids, topk, numDocuments);
  const across = p.reduce((sum, share) => sum + share * share, 0);
  // Mean over chosen pairs of log(P(i, j) / (P(i) P(j))): how much experts are chosen together.
  let information = 0;
  let total = 0;
  for (let i = 0; i < numExperts; i++) {
    for (let j = 0; j < numExperts; j++) {
      const pair = pairs[i * numExperts + j] / numTokens;
      if (pair === 0) continue;
      information += pair * Math.log(pair / (p[i] * p[j]));
      total += pair;
    }
  }
  const ranks = new Float64Array(8);
  counts.forEach((count, e) => (ranks[Math.floor((e * 8) / numExperts)] += count));
  const experts = loadStatistics(counts);
  return {
    loadCv: experts.cv,
    loadMax: experts.maxOverMean,
    loadP50: experts.p50 / experts.mean,
    documentOverlap: inside / numDocuments,
    overlapSd,
    layerOverlap: across,
    // Without co-selection, drawing without replacement alone gives log of (k - 1) / k.
    pairInformation: information / total + Math.log(topk / (topk - 1)),
    rankMax: loadStatistics(ranks).maxOverMean,
  };
}

/** Standard deviation of how many experts two tokens of one document share, over a sample of the pairs. */
function sharedSd(ids, topk, numDocuments) {
  let [count, sum, squares] = [0, 0, 0];
  for (let d = 0; d < numDocuments; d++) {
    for (let a = d * DOCUMENT; a < (d + 1) * DOCUMENT; a += 3) {
      for (let b = a + 1; b < (d + 1) * DOCUMENT; b += 5) {
        let shared = 0;
        for (let i = 0; i < topk; i++)
          for (let j = 0; j < topk; j++) if (ids[a * topk + i] === ids[b * topk + j]) shared++;
        count++;
        sum += shared;
        squares += shared * shared;
      }
    }
  }
  return Math.sqrt(squares / count - (sum / count) ** 2);
}

function mean(list) {
  const keys = Object.keys(list[0]);
  return Object.fromEntries(keys.map((key) => [key, list.reduce((sum, s) => sum + s[key], 0) / list.length]));
}

/** The statistics of generated routing of the same size, averaged over layers and seeds. */
function generated(params, { numExperts, topk, numTokens, numLayers }) {
  const all = [];
  for (const seed of SEEDS) {
    for (let layer = 0; layer < numLayers; layer++) {
      const options = { workload: "realistic", seed, layer, numRanks: 1, numTokens, numExperts, topk, params };
      const [{ topkIdx }] = generateRouting({ ...options, weights: false });
      all.push(layerStatistics(topkIdx.data, topk, numExperts));
    }
  }
  return mean(all);
}

/** What the search minimises for a number of topics, and what then chooses among the numbers of topics. */
const FITTED = ["loadCv", "documentOverlap", "pairInformation"];
const CHECKED = ["loadMax", "loadP50", "rankMax", "overlapSd"];

function loss(found, wanted, keys = FITTED) {
  return keys.reduce((sum, key) => sum + Math.log(found[key] / wanted[key]) ** 2, 0);
}

/** Minimises over popularitySd, topicSd, topicShare by pattern search. */
function search(numTopics, wanted, size) {
  let best = { popularitySd: 0.8, topicSd: 1.4, topicShare: 0.6, numTopics, documentTokens: DOCUMENT };
  let bestLoss = loss(generated(best, size), wanted);
  const steps = { popularitySd: 0.4, topicSd: 0.4, topicShare: 0.2 };
  for (let round = 0; round < 6; round++) {
    for (let improved = true; improved; ) {
      improved = false;
      for (const key of Object.keys(steps)) {
        for (const sign of [1, -1]) {
          const candidate = { ...best, [key]: Math.max(0, best[key] + sign * steps[key]) };
          if (candidate.topicShare > 1) continue;
          const candidateLoss = loss(generated(candidate, size), wanted);
          if (candidateLoss >= bestLoss) continue;
          [best, bestLoss, improved] = [candidate, candidateLoss, true];
        }
      }
    }
    for (const key of Object.keys(steps)) steps[key] /= 2;
  }
  return { params: best, loss: bestLoss };
}

/** The spread for which the mean of the largest weight is the recorded one; bisection, the mean grows with the spread. */
function fitWeights(wanted, topk, numExperts) {
  const meansOf = (weightSpread) => {
    const params = { weightSpread };
    const [{ topkWeights }] = generateRouting({
      workload: "realistic",
      seed: 1,
      numRanks: 1,
      numTokens: 50000,
      numExperts,
      topk,
      params,
    });
    return sortedMeans(topkWeights.data, topk);
  };
  let [low, high] = [0, 10];
  for (let i = 0; i < 20; i++) {
    const middle = (low + high) / 2;
    if (meansOf(middle)[0] < wanted[0]) low = middle;
    else high = middle;
  }
  return { weightSpread: low, means: meansOf(low) };
}

function sortedMeans(weights, topk) {
  const means = new Array(topk).fill(0);
  for (let i = 0; i < weights.length; i += topk) {
    const row = Array.from(weights.subarray(i, i + topk)).sort((a, b) => b - a);
    row.forEach((weight, k) => (means[k] += weight / (weights.length / topk)));
  }
  return means;
}

const rounded = (object) =>
  Object.fromEntries(Object.entries(object).map(([key, value]) => [key, Number(value.toFixed(4))]));

const [routingPath, loadsPath] = process.argv.slice(2);
const file = await openRouting(await openFile(routingPath));
const size = { numExperts: file.numExperts, topk: file.topk, numTokens: file.numTokens, numLayers: file.numLayers };
const recorded = [];
const weightMeans = new Array(file.topk).fill(0);
for (let i = 0; i < file.numLayers; i++) {
  const { topkIdx, topkWeights } = await file.layer(i);
  recorded.push(layerStatistics(topkIdx.data, file.topk, file.numExperts));
  sortedMeans(topkWeights.data, file.topk).forEach((w, k) => (weightMeans[k] += w / file.numLayers));
}
const wanted = mean(recorded);
await file.close();
console.log("recorded (mean over layers)  ", JSON.stringify(rounded(wanted)));
let best = null;
for (const numTopics of [4, 8, 16, 32]) {
  const result = search(numTopics, wanted, size);
  const found = generated(result.params, size);
  const total = result.loss + loss(found, wanted, CHECKED);
  console.log(`numTopics ${numTopics}: loss ${result.loss.toFixed(5)}, with what is not fitted ${total.toFixed(4)}`);
  console.log("                             ", JSON.stringify(rounded(result.params)));
  console.log("                             ", JSON.stringify(rounded(found)));
  if (best === null || total < best.total) best = { ...result, total };
}
const weights = fitWeights(weightMeans, file.topk, file.numExperts);
console.log("weights, recorded means      ", weightMeans.map((w) => w.toFixed(4)).join(" "));
console.log(
  `weightSpread ${weights.weightSpread.toFixed(4)}          `,
  weights.means.map((w) => w.toFixed(4)).join(" "),
);

if (loadsPath !== undefined) {
  for (const [table, numExperts, topk] of [
    ["olmoe_counts", 64, 8],
    ["mixtral_counts", 8, 2],
  ]) {
    const loads = await openRouting(await openFile(loadsPath), { table });
    const cvs = [];
    for (let i = 0; i < loads.numLayers; i++) cvs.push(loadStatistics(await loads.loads(i)).cv);
    const predicted = generated(best.params, { numExperts, topk, numTokens: 8192, numLayers: 8 }).loadCv;
    await loads.close();
    cvs.sort((a, b) => a - b);
    const range = `${cvs[0].toFixed(2)} .. ${cvs[cvs.length - 1].toFixed(2)}, median ${cvs[cvs.length >> 1].toFixed(2)}`;
    console.log(`${table}: load CV ${range}; predicted ${predicted.toFixed(2)} (not fitted)`);
  }
}
