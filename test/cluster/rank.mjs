// One process of a group on emulated devices, for tests: it meets the others, runs what it is told and compares its own
// ranks with the oracle, which simulates the whole group from the same seed. Prints one JSON object per step.
// Usage: node rank.mjs '{"place":{...},"numRanks":8,"steps":[{"style":"fused",...}, {"sleepMs":100}, {"dieInMs":50}, "stop", "die"]}'
import { createCudaBackend } from "../../dist/backends/cuda/index.js";
import { createOracleBackend } from "../../dist/core/oracle/index.js";
import { choices, countsOf, options, random, routingMapOf, say, settingsOf, takeSteps } from "./steps.mjs";

const { place, numRanks, secret, deadlineMs = 20_000, timeoutMs = 20_000, combinePath, devices } = options;
const ranksPerNode = options.ranksPerNode ?? (numRanks / place.numProcesses) * (place.processesPerNode ?? 1);

const cluster = { place, secret, timeoutMs, deadlineMs };
const backend = await createCudaBackend({ emulated: true, combinePath, devices, cluster }).catch((error) => {
  say({ code: error.code, message: error.message });
  process.exit(0);
});
const oracle = await createOracleBackend().createGroup({ numRanks, ranksPerNode });
let group = null;
try {
  group = await backend.createGroup({ numRanks, ranksPerNode });
  say({ met: group.localRanks });
  // Counts operations alone: the processes draw the same data whatever else they do.
  let sequence = 0;
  await takeSteps(
    async (step) => {
      if (step.exchange !== undefined) say({ exchanged: await group.exchange("a value", step.exchange) });
      else if (step.scale) {
        // No other process takes part in this.
        const of = (shape) => ({ dtype: "fp32", shape, data: new Float32Array(shape[0] * (shape[1] ?? 1)) });
        const all = (shape) => group.localRanks.map(() => of(shape));
        say({ scaled: (await group.scaleRows(all([3, 8]), all([3]))).length });
      } else if (step.buffer) (await group.allocateBuffer(step.buffer)).free();
      else say({ done: sequence, ...(await run({ seed: ++sequence, ...step })) });
    },
    async ({ code }) => {
      // After a lost process the memory goes back soon after the call has failed.
      if (["TIMEOUT", "BACKEND_FAILURE"].includes(code)) say({ reserved: await reservedBytes() });
    },
  );
  await group.close();
} catch (error) {
  say({ code: error.code, message: error.message });
}
// Still alive: the event loop turns, and an ordinary group works.
const alone = await createCudaBackend({ emulated: true });
const other = await alone.createGroup({ numRanks: 2 });
await other.close();
await alone.close();
await backend.close().catch((error) => say({ closing: error.message }));
say({ alive: true });

/** The memory that the group still holds, once it holds none or half a second has passed. */
async function reservedBytes() {
  let reserved = 1;
  for (let turn = 0; turn < 50 && reserved > 0; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    reserved = (await group.memory()).reduce((total, one) => total + one.reserved, 0);
  }
  return reserved;
}

async function run(step) {
  const { style = "fused", tokens = 23, hidden = 24, numExperts = 16, topk = 4, dtype = "bf16", settings = {} } = step;
  const next = random(step.seed);
  const counts = countsOf(numRanks, tokens);
  const x = counts.map((rows) => rowsOf(dtype, rows, hidden, next));
  const scales = dtype === "fp8e4m3" ? counts.map((rows) => rowsOf("fp32", rows, 1, next)) : null;
  // Multihot: tokens of the last ranks choose fewer experts, so that processes differ in their largest number.
  const topkIdx = counts.map((rows, rank) =>
    choices(rows, step.multihot && rank >= numRanks / 2 ? topk - 2 : topk, numExperts, next),
  );
  const topkWeights = counts.map((rows) => rowsOf("fp32", rows, topk, next));
  const routing = step.multihot ? multihot(topkIdx, numExperts, next) : { topkIdx, topkWeights };
  const request = {
    kind: style,
    x,
    scales,
    routing,
    settings: settingsOf(style, numExperts, settings),
  };
  const local = (values) => values && group.localRanks.map((rank) => values[rank]);
  const mine = (whole) => ({
    ...whole,
    x: local(whole.x),
    scales: local(whole.scales ?? null),
    routing: whole.routing && Object.fromEntries(Object.entries(routing).map(([name, all]) => [name, local(all)])),
  });
  const sentBefore = await group.network();
  const expected = await oracle.dispatch(request);
  const given = mine(request);
  if (step.multihot === "device" || step.resident) {
    for (const name of Object.keys(given.routing)) {
      given.routing[name] = await Promise.all(
        given.routing[name].map((one, i) => group.upload(group.localRanks[i], one)),
      );
    }
  }
  if (step.wrong) {
    const [{ dtype, shape, data }, ...others] = given.routing.topkIdx;
    given.routing.topkIdx = [{ dtype, shape, data: data.map(() => 99n) }, ...others];
  }
  const earlier = step.twice && (await group.dispatch(given));
  const got = await group.dispatch(given);
  const differing = [];
  const compare = (name, wanted, received) => {
    if (wanted === null && received === null) return;
    local(wanted).forEach((tensor, i) => {
      const a = bytesOf(tensor);
      const b = bytesOf(received[i]);
      if (Buffer.compare(a, b) !== 0) differing.push(`${name} of rank ${group.localRanks[i]}`);
    });
  };
  for (const name of ["x", "scales", "topkIdx", "topkWeights", "probs"]) compare(name, expected[name], got[name]);
  const wantedHandle = await expected.handle.data();
  const handle = await got.handle.data();
  handle.ranks.forEach((rank) => {
    for (const [key, value] of Object.entries(wantedHandle.ranks[rank.rank])) {
      if (JSON.stringify(value) !== JSON.stringify(rank[key])) differing.push(`handle.${key} of rank ${rank.rank}`);
    }
  });
  const fused = style === "fused";
  const sumType = dtype === "fp8e4m3" ? "bf16" : dtype;
  const rows = wantedHandle.ranks.map((rank) => rowsOf(sumType, rank.numRows, hidden, next));
  const columns = got.handle.meta.topk;
  const values = wantedHandle.ranks.map((rank) => rowsOf("fp32", rank.numRows, fused ? columns : 1, next));
  if (!fused) for (const value of values) value.shape = [value.shape[0]];
  const bias = fused ? [counts.map((count) => rowsOf(sumType, count, hidden, next))] : [];
  const combine = { x: rows, topkWeights: fused ? values : null, probs: fused ? null : values, bias };
  const back = await oracle.combine({ ...combine, handle: expected.handle });
  const sum = await group.combine({
    handle: step.twice === "earlier" ? earlier.handle : got.handle,
    x: local(rows),
    topkWeights: local(combine.topkWeights),
    probs: local(combine.probs),
    bias: bias.map(local),
  });
  for (const name of ["x", "topkWeights", "probs"]) compare(`combined ${name}`, back[name], sum[name]);
  const sent = await group.network();
  const layouts = await oracle.layout(request.routing, numExperts);
  const node = Math.floor(group.localRanks[0] / ranksPerNode);
  sent.forEach((now, i) => {
    const rank = group.localRanks[i];
    const perNode = (one) => one.numTokensPerNode ?? [0];
    const out = perNode(layouts[rank]).reduce((total, count, n) => total + (n === node ? 0 : count), 0);
    const back = layouts.reduce((total, one, src) => {
      const sameRail = src % ranksPerNode === rank % ranksPerNode && Math.floor(src / ranksPerNode) !== node;
      return total + (sameRail ? perNode(one)[node] : 0);
    }, 0);
    const size = { bf16: 2, fp16: 2, fp32: 4, fp8e4m3: 1 };
    const wanted = out * (hidden * size[dtype] + (scales ? 4 : 0)) + back * (hidden * size[sumType] + columns * 4);
    const bytes = now.rowBytes - sentBefore[i].rowBytes;
    if (bytes !== wanted) differing.push(`${bytes} bytes sent by rank ${rank}, the layout says ${wanted}`);
  });
  const again = { ...request, x: counts.map((count) => rowsOf(dtype, count, hidden, next)), routing: undefined };
  const wantedAgain = await oracle.dispatch({ ...again, handle: expected.handle, settings: undefined });
  const gotAgain = await group.dispatch({ ...mine(again), handle: got.handle, settings: undefined });
  compare("cached x", wantedAgain.x, gotAgain.x);
  const agree = got.phases.filter((phase) => phase.name === "agree" && phase.rank === group.localRanks[0]);
  return {
    differing,
    topk: columns,
    agreeUs: agree.length === 0 ? null : Math.max(...agree.map((phase) => phase.durationUs)),
    lateRanks: agree.filter((phase) => phase.durationUs > 150_000).map((phase) => phase.srcRank),
    phases: [...new Set(got.phases.map((phase) => phase.name))],
  };
}

function bytesOf({ data }) {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}

/** Any bits: infinities and NaN too in the 16-bit and 8-bit dtypes. */
function rowsOf(dtype, rows, columns, next) {
  const n = rows * columns;
  const whole = (limit) => Math.floor(next() * limit);
  const data =
    dtype === "fp32"
      ? Float32Array.from({ length: n }, () => (next() - 0.5) * 2 ** (whole(40) - 20))
      : dtype === "fp8e4m3"
        ? Uint8Array.from({ length: n }, () => whole(256))
        : Uint16Array.from({ length: n }, () => whole(65536));
  return { dtype, shape: [rows, columns], data };
}

/** With probs at experts that were not chosen, too: they must have no effect. */
function multihot(topkIdx, numExperts, next) {
  const routingMap = topkIdx.map((ids) => routingMapOf(ids, numExperts));
  return { routingMap, probs: routingMap.map(({ shape }) => rowsOf("fp32", ...shape, next)) };
}
