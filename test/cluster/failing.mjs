// One process of a group on emulated devices that ends badly, for tests of what it leaves behind. Every process makes the
// same routing for all ranks from a seed and brings its own. Prints one JSON object per step.
// Usage: node failing.mjs '{"place":{...},"numRanks":4,"bundleDir":"...","steps":["dispatch","combine","cached","stop","die",{"dieInMs":50}]}'
import { createCudaBackend } from "../../dist/backends/cuda/index.js";
import { choices, countsOf, options, random, routingMapOf, say, settingsOf, takeSteps } from "./steps.mjs";

const { place, numRanks, bundleDir, deadlineMs = 20_000, timeoutMs = 20_000 } = options;
const {
  style = "fused",
  tokens = 20,
  hidden = 16,
  numExperts = 16,
  topk = 4,
  form = "index",
  resident = false,
} = options;
const settings = settingsOf(style, numExperts, options.settings);

const backend = await createCudaBackend({ emulated: true, cluster: { place, timeoutMs, deadlineMs, bundleDir } });
const group = await backend.createGroup({ numRanks });
say({ met: group.localRanks });
let seed = 1;
let handle = null;
let numTokens = [];
let numRows = [];
const elsewhere = options.elsewhere === true;
await takeSteps(async (step) => {
  await { dispatch, cached, combine }[step]();
  say({ done: step });
});
await group.close();
await backend.close();

function rows(count, columns = hidden) {
  const next = random(seed++);
  const data = Uint16Array.from({ length: count * columns }, () => 0x3f80 + Math.floor(next() * 64));
  return { dtype: "bf16", shape: [count, columns], data };
}

/** Of all ranks; every token has a choice. */
function routingOf() {
  const next = random(77);
  const counts = countsOf(numRanks, tokens);
  const topkIdx = counts.map((count) => {
    const { shape, data } = choices(count, topk, numExperts, next, 1);
    return { dtype: "i32", shape, data: Int32Array.from(data, Number) };
  });
  const topkWeights = topkIdx.map(({ data, shape }) => ({
    dtype: "fp32",
    shape,
    data: Float32Array.from(data, (id) => (id < 0 ? 0 : next())),
  }));
  return { counts, topkIdx, topkWeights };
}

/** [tokens, numExperts]: the weight of each choice at its expert, 0 elsewhere. */
function probsOf({ shape: [count], data }, weights) {
  const probs = { dtype: "fp32", shape: [count, numExperts], data: new Float32Array(count * numExperts) };
  data.forEach((expert, i) => {
    if (expert >= 0) probs.data[Math.floor(i / topk) * numExperts + expert] = weights.data[i];
  });
  return probs;
}

async function dispatch() {
  const all = routingOf();
  const local = (values) => group.localRanks.map((rank) => values[rank]);
  const place = (values) =>
    resident ? Promise.all(values.map((value, i) => group.upload(group.localRanks[i], value))) : values;
  const [topkIdx, topkWeights] = [local(all.topkIdx), local(all.topkWeights)];
  const routing =
    form === "index"
      ? { topkIdx: await place(topkIdx), topkWeights: await place(topkWeights) }
      : {
          routingMap: await place(topkIdx.map((ids) => routingMapOf(ids, numExperts))),
          probs: await place(topkIdx.map((ids, i) => probsOf(ids, topkWeights[i]))),
        };
  const x = await place(local(all.counts).map((count) => rows(count)));
  const result = await group.dispatch({ kind: style, x, scales: null, routing, settings });
  handle = result.handle;
  numTokens = local(all.counts);
  numRows = result.x.map((value) => value.shape[0]);
}

async function cached() {
  const x = numTokens.map((count) => rows(count));
  await group.dispatch({ kind: style, x, scales: null, handle: await bring() });
}

async function combine() {
  const x = numRows.map((count) => rows(count));
  await group.combine({ handle: await bring(), x, topkWeights: null, probs: null, bias: [] });
}

/** The handle of this group, or one of the same arrays that was made elsewhere. */
async function bring() {
  if (!elsewhere) return handle;
  const data = await handle.data();
  const { Handle } = await import("../../dist/core/handle/handle.js");
  return Handle.of(data);
}
