#!/usr/bin/env node
/**
 * The oracle and the layout at full size, after `npm run build`. Each part runs in a process of its own, so that its
 * peak memory is its own:
 *
 *   node scripts/oracle-full.mjs [full | layout] [--build FOLDER]
 *
 * Times are wall-clock and, in brackets, CPU: on a busy machine only the latter, and ratios within one run, mean much.
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
  let clock = start();
  const out = await group.dispatch({ kind: "fused", x, scales: null, routing: { topkIdx, topkWeights }, settings });
  const dispatch = clock();
  const layoutMs = out.phases.find(({ name }) => name === "layout").durationUs / 1e3;
  clock = start();
  const back = await group.combine({
    handle: out.handle,
    x: out.x,
    topkWeights: out.topkWeights,
    probs: null,
    bias: [],
  });
  const combine = clock();
  const after = memcpy(2 ** 28);
  const rows = out.x.reduce((sum, { shape }) => sum + shape[0], 0);
  const rowsGiB = (rows * hidden * 2) / 2 ** 30;
  const sumGiB = rowsGiB + (back.x.length * tokens * hidden * 2) / 2 ** 30;
  const both = { wallMs: dispatch.wallMs + combine.wallMs, cpuMs: dispatch.cpuMs + combine.cpuMs };
  const copyGiBs = Math.max(copy, after);
  console.log(
    `oracle, ${numRanks} ranks x ${tokens} x ${hidden} bf16, top-${topk} of ${numExperts}: ${rows} rows, ${rowsGiB.toFixed(2)} GiB`,
  );
  console.log(`  memcpy     ${copy.toFixed(2)} GiB per CPU second before, ${after.toFixed(2)} after (bytes copied)`);
  line("dispatch", dispatch, rowsGiB, copyGiBs, `of which layout ${layoutMs.toFixed(0)} ms`);
  line("combine", combine, sumGiB, copyGiBs, "bytes = rows read + tokens written");
  line("both", both, rowsGiB + sumGiB, copyGiBs, "");
  console.log(`  peak memory ${peakGiB()} GiB (goal: within 12)`);
}

function line(name, { wallMs, cpuMs }, gib, copyGiBs, note) {
  const seconds = `${(wallMs / 1e3).toFixed(2)} s (${(cpuMs / 1e3).toFixed(2)} s CPU)`;
  const rate = gib / (cpuMs / 1e3);
  console.log(
    `  ${name.padEnd(10)} ${seconds}, ${rate.toFixed(2)} GiB per CPU second = memcpy / ${(copyGiBs / rate).toFixed(1)}  ${note}`,
  );
}

/** A running clock: wall-clock and CPU milliseconds of this process since now. */
function start() {
  const [wall, cpu] = [performance.now(), process.cpuUsage()];
  return () => {
    const { user, system } = process.cpuUsage(cpu);
    return { wallMs: performance.now() - wall, cpuMs: (user + system) / 1e3 };
  };
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
      const clock = start();
      const result = work();
      times[name].push(clock());
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
      const median = (key) => values.map((one) => one[key]).sort((a, b) => a - b)[values.length >> 1];
      const perSlot = ((median("cpuMs") * 1e6) / slots).toFixed(0);
      return `${name} ${median("wallMs").toFixed(1)} ms (${median("cpuMs").toFixed(1)} CPU, ${perSlot} ns/slot; first ${values[0].wallMs.toFixed(1)})`;
    });
    console.log(
      `layout, ${numRanks} ranks x 4096 x top-8 of ${numExperts}: ${columns.join(", ")}; peak ${peakGiB()} GiB`,
    );
  }
}

/** GiB per CPU second of copying `bytes` from one array to another, best of 5. */
function memcpy(bytes) {
  const [from, to] = [new Uint8Array(bytes).fill(1), new Uint8Array(bytes).fill(2)];
  let best = 0;
  for (let i = 0; i < 5; i++) {
    const clock = start();
    to.set(from);
    best = Math.max(best, bytes / 2 ** 30 / (clock().cpuMs / 1e3));
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
