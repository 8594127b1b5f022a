// One process of a group on emulated devices that ends badly, for tests of what it leaves behind. Every process makes the
// same routing for all ranks from a seed and brings its own. Prints one JSON object per step.
// Usage: node failing.mjs '{"place":{...},"numRanks":4,"bundleDir":"...","steps":["dispatch","combine","cached","stop","die",{"dieInMs":50}]}'
import { createCudaBackend } from "../../dist/backends/cuda/index.js";

const options = JSON.parse(process.argv[2]);
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
const settings = {
  numExperts,
  expertAlignment: 4,
  numWorstTokens: 0,
  padMultiple: style === "fused" ? 1 : 8,
  numPermutedTokens: null,
  ...options.settings,
};
const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const backend = await createCudaBackend({ emulated: true, cluster: { place, timeoutMs, deadlineMs, bundleDir } });
const group = await backend.createGroup({ numRanks });
say({ met: group.localRanks });
let seed = 1;
let handle = null;
let numTokens = [];
let numRows = [];
const elsewhere = options.elsewhere === true;
for (const step of options.steps) {
  try {
    if (step === "stop") process.kill(process.pid, "SIGSTOP");
    else if (step === "die") process.kill(process.pid, "SIGKILL");
    else if (step.dieInMs) setTimeout(() => process.kill(process.pid, "SIGKILL"), step.dieInMs);
    else if (step.stopInMs) setTimeout(() => process.kill(process.pid, "SIGSTOP"), step.stopInMs);
    else if (step.sleepMs) await new Promise((resolve) => setTimeout(resolve, step.sleepMs));
    else {
      await { dispatch, cached, combine }[step]();
      say({ done: step });
    }
  } catch (error) {
    if (error.code === undefined) throw error;
    say({ code: error.code, message: error.message });
  }
}
await group.close();
await backend.close();

function rows(count, columns = hidden) {
  const next = random(seed++);
  const data = Uint16Array.from({ length: count * columns }, () => 0x3f80 + Math.floor(next() * 64));
  return { dtype: "bf16", shape: [count, columns], data };
}

/** Of all ranks: rank 1 holds no tokens, the others different numbers of them. */
function routingOf() {
  const next = random(77);
  const counts = Array.from({ length: numRanks }, (_, rank) => (rank === 1 ? 0 : tokens + rank));
  const topkIdx = counts.map((count) => choices(count, next));
  const topkWeights = topkIdx.map(({ data, shape }) => ({
    dtype: "fp32",
    shape,
    data: Float32Array.from(data, (id) => (id < 0 ? 0 : next())),
  }));
  return { counts, topkIdx, topkWeights };
}

function choices(count, next) {
  const data = new Int32Array(count * topk).fill(-1);
  for (let token = 0; token < count; token++) {
    const left = Array.from({ length: numExperts }, (_, expert) => expert);
    for (let slot = 0; slot < topk; slot++) {
      const [expert] = left.splice(Math.floor(next() * left.length), 1);
      if (slot === 0 || next() > 0.15) data[token * topk + slot] = expert;
    }
  }
  return { dtype: "i32", shape: [count, topk], data };
}

function multihot({ shape: [count], data }, weights) {
  const routingMap = { dtype: "bool", shape: [count, numExperts], data: new Uint8Array(count * numExperts) };
  const probs = { dtype: "fp32", shape: [count, numExperts], data: new Float32Array(count * numExperts) };
  data.forEach((expert, i) => {
    if (expert < 0) return;
    const at = Math.floor(i / topk) * numExperts + expert;
    routingMap.data[at] = 1;
    probs.data[at] = weights.data[i];
  });
  return { routingMap, probs };
}

async function dispatch() {
  const all = routingOf();
  const local = (values) => group.localRanks.map((rank) => values[rank]);
  const place = (values) =>
    resident ? Promise.all(values.map((value, i) => group.upload(group.localRanks[i], value))) : values;
  const [topkIdx, topkWeights] = [local(all.topkIdx), local(all.topkWeights)];
  const hot = topkIdx.map((ids, i) => multihot(ids, topkWeights[i]));
  const routing =
    form === "index"
      ? { topkIdx: await place(topkIdx), topkWeights: await place(topkWeights) }
      : { routingMap: await place(hot.map((one) => one.routingMap)), probs: await place(hot.map((one) => one.probs)) };
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

function random(start) {
  let state = Math.imul(start, 0x9e3779b1);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
