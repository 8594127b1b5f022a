#!/usr/bin/env node
/**
 * Plants bugs in copies of the native sources, builds the emulated self-test with each and counts in how many runs it is
 * found: in order, and with shuffled schedules (seeds, weak stores, one slow device). docs/cuda.md keeps the table.
 *
 *   node scripts/native-mutants.mjs [--seeds 10] [--first N] [--count N] [--work FOLDER]
 *
 * --work keeps the build of the unchanged sources there and takes it again, for runs that do a few mutants each.
 */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { numberOf, optionsOf } from "./options.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const given = optionsOf(
  "usage: node scripts/native-mutants.mjs [--seeds 10] [--first N] [--count N] [--work FOLDER]",
  Object.fromEntries(["seeds", "first", "count", "work"].map((name) => [name, { type: "string" }])),
);
const seeds = numberOf(given.seeds, 10);
const first = numberOf(given.first, 0);
const count = numberOf(given.count, Number.POSITIVE_INFINITY);

/** file, the text that is replaced (once) and what replaces it. */
const MUTANTS = [
  ["no barrier after the counts are exchanged", "native/layout.cu", '  operation.barrier("counts");', ""],
  ["no barrier before the fill", "native/dispatch.cu", '  operation.barrier("arrived");', ""],
  [
    "no barrier before the sums at the source",
    "native/combine.cu",
    '    operation.barrier("returned");\n  }\n',
    "  }\n",
  ],
  ["combine starts without waiting for earlier operations", "native/combine.cu", '  operation.barrier("entry");', ""],
  ["layout starts without waiting for earlier operations", "native/layout.cu", '  operation.barrier("entry");', ""],
  ["pull: nobody waits for the readers", "native/combine.cu", '  if (remoteReads) operation.barrier("read");', ""],
  [
    "cached dispatch: pushes before the addresses are there",
    "native/dispatch.cu",
    '    publish();\n    operation.barrier("addresses");\n    openHops();\n  }\n',
    "    publish();\n    openHops();\n  }\n",
  ],
  [
    "a barrier forgets the last rank",
    "native/operation.cc",
    "    check(cudaStreamWaitEvent(hub.comm, rank->arrived[index].get(), 0)",
    "    if (rank == ranks.back()) continue;\n    check(cudaStreamWaitEvent(hub.comm, rank->arrived[index].get(), 0)",
  ],
  [
    "a barrier releases the last rank at once",
    "native/operation.cc",
    "    check(cudaStreamWaitEvent(rank->comm, hub.released[index].get(), 0)",
    "    if (rank == ranks.back()) continue;\n    check(cudaStreamWaitEvent(rank->comm, hub.released[index].get(), 0)",
  ],
  [
    "placeSlots: tokens of a tile are not kept apart",
    "kernels/layout.cuh",
    "      bucket = ahead;\n      __syncwarp();",
    "      bucket = ahead;",
  ],
  [
    "findOffsets: no barrier between counts and prefixes",
    "kernels/layout.cuh",
    "    args.wanted[expert] = all;\n  }\n  __syncthreads();",
    "    args.wanted[expert] = all;\n  }",
  ],
  [
    "bulk copies: a stage is loaded before its stores have read it",
    "kernels/rows.cuh",
    "      dev::bulkWaitRead<1>();",
    "      dev::bulkWaitRead<3>();",
  ],
  [
    "bulk copies: stored before they are loaded",
    "kernels/rows.cuh",
    "      dev::barrierWait(barriers + stage, static_cast<uint32_t>(stored / STAGES) & 1);",
    "",
  ],
  ["bulk copies: the block ends before its stores", "kernels/rows.cuh", "  dev::bulkWaitAll();", ""],
  [
    "rows: the last accesses of a row are not copied",
    "kernels/rows.cuh",
    "  for (; i < count; i += 32) {",
    "  for (; i + 1 < count; i += 32) {",
  ],
  [
    "rows: one access too many",
    "kernels/rows.cuh",
    "  for (; i < count; i += 32) {",
    "  for (; i <= count; i += 32) {",
  ],
  [
    "fill: stops after the first copy",
    "kernels/dispatch.cuh",
    "        if (next >= 0) next = args.rows.next[next];\n      }\n      copyRow",
    "        next = -1;\n      }\n      copyRow",
  ],
  ["padding keeps what was there", "kernels/dispatch.cuh", "      clearRow(own, args.count, laneIndex());", ""],
  [
    "sums: ranks in another order",
    "kernels/reduce.cuh",
    "        if (from[i] != nullptr) sum.add(values[i], node[i]);",
    "        if (from[BATCH - 1 - i] != nullptr) sum.add(values[BATCH - 1 - i], node[BATCH - 1 - i]);",
  ],
  [
    "sums: the rows of one rank are not rounded first",
    "kernels/reduce.cuh",
    "      if (node >= 0) accumulateRounded<D, V>(all, part);",
    "      if (node >= 0) for (int k = 0; k < COUNT; k++) all[k] = dev::add(all[k], part[k]);",
  ],
  [
    "budget: one row too many",
    "kernels/layout.cuh",
    "    if (row < 0 || row >= args.budget) continue;",
    "    if (row < 0 || row > args.budget) continue;",
  ],
  [
    "offsets: sources after this one counted before it",
    "kernels/layout.cuh",
    "      if (src == shape.rank) before = all;\n      all += table[src * buckets + dst];",
    "      if (src == shape.rank + 1) before = all;\n      all += table[src * buckets + dst];",
  ],
  [
    "memory: a block is reused while the compute stream reads it",
    "native/memory.cc",
    "    if (used.get() != nullptr) check(",
    "    if (false) check(",
  ],
];

/** The same for groups over several processes, found by the self-test's `nodes`. */
const NETWORK_MUTANTS = [
  [
    "a relay copies on before the part has come",
    "native/relay.cu",
    "  operation.group().network->arrive(kind, local, part, plane);",
    "",
  ],
  [
    "a part leaves before it is packed",
    "native/network.cc",
    '  check(cudaStreamWaitEvent(rail.stream, rail.ready.get(), 0), "cudaStreamWaitEvent", rank.rank);',
    "",
  ],
  [
    "sums of other nodes are taken before they have come",
    "native/combine.cu",
    "      operation_.group().network->arrive(kind, local, part, plane_.which);",
    "",
  ],
  ["a relay sums before its node's rows are back", "native/combine.cu", '    operation.barrier("relayed");', ""],
  ["a source sums before its node's rows are back", "native/combine.cu", '  operation.barrier("returned");', ""],
  [
    "what a relay has for its node stays there",
    "native/relay.cu",
    "    if (node) sendPart(operation, handle, buffers, HopKind::Node, part + 1, plane, bytes);",
    "",
  ],
  [
    "probs of a relayed row: always the first entry's",
    "kernels/relay.cuh",
    "    number += rail ?",
    "    number += false ? 1 : rail && false ?",
  ],
  [
    "rows of a place: items that stay in the node too",
    "kernels/hops.cuh",
    "  return inNode && !isLocal(shape, hop.ranksPerProcess, dst) ? dst - hop.first : -1;",
    "  return inNode ? dst - hop.first : -1;",
  ],
  [
    "relayed rows return to the tokens' staging places",
    "native/layout.cu",
    "       net.srcRank, net.srcToken, own.numTokens);",
    "       net.srcRank, net.srcToken, 0);",
  ],
  ["a bad id is not told to the others", "native/layout.cu", "markBadSlots(operation, handle, layout);", "{}"],
  [
    "parts of a node end behind the rail's",
    "kernels/layout.cuh",
    "const int tile = firstTileOf(part, args.numTiles);",
    "const int tile = firstTileOf(part, args.numTiles) + (bucket < shape.numRanks);",
  ],
  ["a part of a hop begins one row late", "kernels/routes.cuh", "number >= part[1].number", "number > part[1].number"],
  [
    "a relay sums a part of its node's rows before it has come",
    "native/combine.cu",
    "        if (node) one.arrive(HopKind::Node, part + 1);",
    "",
  ],
  [
    "a handle's second use sends the first one's rows",
    "native/relay.cu",
    "    fillPart(operation, handle, buffers, kind, input, part, plane, bytes);",
    "    if (part > 0) fillPart(operation, handle, buffers, kind, input, part, plane, bytes);",
  ],
];

const kept = given.work ?? null;
const work = kept ?? join(tmpdir(), `fused-a2a-mutants-${process.pid}`);
mkdirSync(work, { recursive: true });
try {
  // The unchanged sources first: objects that a mutant does not touch are taken over.
  const base = join(work, "base");
  if (!existsSync(join(base, "selftest"))) {
    copySources(base);
    build(base);
  }
  if (first === 0) {
    console.log(`mutant | in order | shuffled (of ${seeds})\n--- | --- | ---`);
    console.log(`none | ${isFound(base, 0) ? "found" : "-"} | ${countFound(base)}`);
  }
  const all = [...MUTANTS.map((one) => [...one, false]), ...NETWORK_MUTANTS.map((one) => [...one, true])];
  for (const [name, file, from, to, network] of all.slice(first, first + count)) {
    const folder = join(work, "mutant");
    rmSync(folder, { recursive: true, force: true });
    cpSync(base, folder, { recursive: true, preserveTimestamps: true });
    const path = join(folder, "backends/cuda", file);
    const text = readFileSync(path, "utf8");
    if (!text.includes(from)) throw new Error(`mutant '${name}': ${file} no longer has its text`);
    writeFileSync(path, text.replace(from, to));
    build(folder);
    console.log(`${name} | ${isFound(folder, 0, network) ? "found" : "-"} | ${countFound(folder, network)}`);
  }
} finally {
  if (kept === null) rmSync(work, { recursive: true, force: true });
}

function copySources(folder) {
  cpSync(join(root, "backends/cuda"), join(folder, "backends/cuda"), { recursive: true, preserveTimestamps: true });
}

/** make-like: one object per source, rebuilt when anything it includes is newer. */
function build(folder) {
  const makefile = `
CUDA := backends/cuda
SOURCES := $(wildcard $(CUDA)/native/*.cc $(CUDA)/native/*.cu $(CUDA)/native/selftest/*.cc $(CUDA)/emulation/*.cc)
OBJECTS := $(addsuffix .o,$(basename $(SOURCES)))
FLAGS := -std=c++20 -O1 -w -DFA2A_EMULATED -ffp-contract=off -MMD -I$(CUDA)/emulation
all: selftest libfused_a2a_nccl_sockets.so
selftest: $(OBJECTS)
\tg++ -pthread -o $@ $^
libfused_a2a_nccl_sockets.so: $(CUDA)/emulation/nccl/sockets.cc
\tg++ $(FLAGS) -fPIC -shared -pthread -x c++ $< -o $@
%.o: %.cc
\tg++ $(FLAGS) -c $< -o $@
%.o: %.cu
\tg++ $(FLAGS) -x c++ -c $< -o $@
-include $(OBJECTS:.o=.d)
`;
  writeFileSync(join(folder, "Makefile"), makefile);
  const { status, stderr } = spawnSync("make", ["-s", "-j2"], { cwd: folder, encoding: "utf8" });
  if (status !== 0) throw new Error(`a mutant does not compile: ${stderr}`);
}

/** True when the self-test fails: a wrong result, a refusal, a crash or no end. */
function isFound(folder, seed, network = false) {
  const nodes = ["nodes", "--cases", "3", "--large", "1100", "--seed", `${seed + 1}`];
  const command = network
    ? [...nodes, "--shuffled", seed === 0 ? "0" : "1"]
    : seed === 0
      ? ["check", "--groups", "4", "--cases", "4"]
      : ["stress", "--seed", `${seed}`, "--seeds", "1", "--operations", "60"];
  // Processor time, not the clock: a busy machine must not look like a bug found.
  return spawnSync("sh", ["-c", 'ulimit -t 60; exec "$0" "$@"', join(folder, "selftest"), ...command]).status !== 0;
}

function countFound(folder, network) {
  let found = 0;
  for (let seed = 1; seed <= seeds; seed++) if (isFound(folder, seed, network)) found++;
  return found;
}
