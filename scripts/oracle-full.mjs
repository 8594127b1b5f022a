#!/usr/bin/env node
/**
 * The oracle and the layout at full size, after `npm run build`. Each part runs in a process of its own, so that its
 * peak memory is its own:
 *
 *   node scripts/oracle-full.mjs [full | layout] [--build FOLDER]
 *
 * full    8 ranks x 4096 tokens x 7168 bf16, top-8 of 256 experts: dispatch + combine, beside memcpy in the same run.
 * layout  8 x 4096 x top-8 of 256 (goal: < 30 ms), then 128, 256 and 512 ranks x 4096 tokens x top-8 of 512 experts
 *         (goal: < 4 GiB, time and memory linear in slots). 512 ranks need a multiple of 512 experts: 256 is refused.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";

const given = process.argv.indexOf("--build");
const dist = given > 0 ? process.argv[given + 1] : fileURLToPath(new URL("../dist", import.meta.url));
if (!existsSync(`${dist}/core/oracle/group.js`)) {
  console.error("oracle-full: no build found; run `npm run build` first");
  process.exit(2);
}
const load = (path) => import(pathToFileURL(`${dist}/core/${path}`).href);
const part = process.argv[2];
if (part === "full") await full();
else if (part === "layout") await layout();
else {
  const statuses = ["full", "layout"].map(
    (name) =>
      spawnSync(process.execPath, [fileURLToPath(import.meta.url), name, "--build", dist], { stdio: "inherit" }).status,
  );
  process.exitCode = statuses.some((status) => status !== 0) ? 1 : 0;
}

async function full() {
  const { createOracleBackend } = await load("oracle/group.js");
  const { tensor } = await load("tensor.js");
  const [numRanks, tokens, hidden, topk, numExperts] = [8, 4096, 7168, 8, 256];
  const next = random(1);
  const topkIdx = routing(tensor, numRanks, tokens, topk, numExperts, next);
  const topkWeights = topkIdx.map(() =>
    tensor("fp32", [tokens, topk], Float32Array.from({ length: tokens * topk }, next)),
  );
  const x = topkIdx.map(() => {
    const rows = tensor("bf16", [tokens, hidden]);
    // Exponents around 1: ordinary activations.
    for (let i = 0; i < rows.data.length; i++) rows.data[i] = 0x3f00 + ((next() * 0x1ff) | 0) + (i & 1) * 0x8000;
    return rows;
  });
  const group = await createOracleBackend().createGroup({ numRanks });
  const settings = { numExperts, expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null };
  const copy = memcpy(2 ** 28);
  let started = performance.now();
  const out = await group.dispatch({ kind: "fused", x, scales: null, routing: { topkIdx, topkWeights }, settings });
  const dispatchMs = performance.now() - started;
  const layoutMs = out.phases.find(({ name }) => name === "layout").durationUs / 1e3;
  started = performance.now();
  const back = await group.combine({
    handle: out.handle,
    x: out.x,
    topkWeights: out.topkWeights,
    probs: null,
    bias: [],
  });
  const combineMs = performance.now() - started;
  const after = memcpy(2 ** 28);
  const rows = out.x.reduce((sum, { shape }) => sum + shape[0], 0);
  const rowsGiB = (rows * hidden * 2) / 2 ** 30;
  const sumGiB = rowsGiB + (back.x.length * tokens * hidden * 2) / 2 ** 30;
  const copyGiBs = 2 / (1 / copy + 1 / after);
  console.log(
    `oracle, ${numRanks} ranks x ${tokens} x ${hidden} bf16, top-${topk} of ${numExperts}: ${rows} rows, ${rowsGiB.toFixed(2)} GiB`,
  );
  console.log(`  memcpy            ${copy.toFixed(2)} GiB/s before, ${after.toFixed(2)} after (bytes copied / time)`);
  line("dispatch", dispatchMs, rowsGiB, copyGiBs, `of which layout ${layoutMs.toFixed(0)} ms`);
  line("combine", combineMs, sumGiB, copyGiBs, "bytes = rows read + tokens written");
  line("both", dispatchMs + combineMs, rowsGiB + sumGiB, copyGiBs, "");
  console.log(`  peak memory       ${peakGiB()} GiB (goal: within 12)`);
}

function line(name, ms, gib, copyGiBs, note) {
  const rate = gib / (ms / 1e3);
  const ratio = (copyGiBs / rate).toFixed(1);
  console.log(`  ${name.padEnd(17)} ${(ms / 1e3).toFixed(2)} s, ${rate.toFixed(2)} GiB/s = memcpy / ${ratio}  ${note}`);
}

async function layout() {
  const { fusedHandle, hybridEpHandle } = await load("layout/positions.js");
  const { rankLayout } = await load("layout/counts.js");
  const { checkShape, rankRouting } = await load("layout/routing.js");
  const { tensor } = await load("tensor.js");
  try {
    checkShape({ numRanks: 512, ranksPerNode: 8, numExperts: 256 });
  } catch (error) {
    console.log(`layout, 512 ranks of 256 experts: ${error.message}`);
  }
  for (const [numRanks, numExperts, repeats] of [
    [8, 256, 21],
    [128, 512, 3],
    [256, 512, 3],
    [512, 512, 3],
  ]) {
    const shape = { numRanks, ranksPerNode: 8, numExperts };
    const ids = routing(tensor, numRanks, 4096, 8, numExperts, random(2));
    const times = { check: [], counts: [], fused: [], "hybrid-ep": [] };
    const time = (name, work) => {
      const started = performance.now();
      const result = work();
      times[name].push(performance.now() - started);
      return result;
    };
    for (let i = 0; i < repeats; i++) {
      const checked = time("check", () => ids.map((value, rank) => rankRouting(rank, value, null, numExperts)));
      time("counts", () => checked.map((rank) => rankLayout(rank, shape)));
      time("fused", () => fusedHandle(checked, shape, { expertAlignment: 1, numWorstTokens: 0 }));
      time("hybrid-ep", () => hybridEpHandle(checked, shape, { padMultiple: 1, numPermutedTokens: null }));
    }
    const slots = numRanks * 4096 * 8;
    const columns = Object.entries(times).map(([name, values]) => {
      const sorted = values.slice().sort((a, b) => a - b);
      const median = sorted[sorted.length >> 1];
      return `${name} ${median.toFixed(1)} ms (first ${values[0].toFixed(1)}, ${((median * 1e6) / slots).toFixed(1)} ns/slot)`;
    });
    console.log(
      `layout, ${numRanks} ranks x 4096 x top-8 of ${numExperts}: ${columns.join(", ")}; peak ${peakGiB()} GiB`,
    );
  }
}

/** GiB/s of copying `bytes` from one array to another, best of 5. */
function memcpy(bytes) {
  const [from, to] = [new Uint8Array(bytes).fill(1), new Uint8Array(bytes).fill(2)];
  let best = 0;
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    to.set(from);
    best = Math.max(best, bytes / 2 ** 30 / ((performance.now() - started) / 1e3));
  }
  return best;
}

function routing(tensor, numRanks, tokens, topk, numExperts, next) {
  return Array.from({ length: numRanks }, () => {
    const ids = new BigInt64Array(tokens * topk);
    for (let token = 0; token < tokens; token++) {
      const chosen = new Set();
      while (chosen.size < topk) chosen.add(Math.floor(next() * numExperts));
      ids.set([...chosen].map(BigInt), token * topk);
    }
    return tensor("i64", [tokens, topk], ids);
  });
}

function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function peakGiB() {
  return (process.resourceUsage().maxRSS / 2 ** 20).toFixed(2);
}
