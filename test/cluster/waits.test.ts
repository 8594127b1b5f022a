/** What reports and traces of several processes say of who waited for whom. */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { openFile } from "../../cli/files.ts";
import { openTrace } from "../../core/trace/read.ts";
import { freePort } from "../conformance/split/port.ts";
import { built, startCommand, whyNotBuilt } from "./start.ts";

const LIMIT = 60_000;
const SLOW = fileURLToPath(new URL("slow.cjs", import.meta.url));
const STOPPED = fileURLToPath(new URL("stopped.cjs", import.meta.url));
const RANKS = 4;
const NONE: Record<string, string> = {};

/** `run --trace` over as many processes; what process 0 writes, and what each prints. */
async function traced(
  processes: number,
  more: (process: number) => readonly string[],
  env: (process: number) => Record<string, string>,
) {
  const trace = join(mkdtempSync(join(tmpdir(), "fused-a2a-waits-")), "group.trace.safetensors");
  const args = [
    "run",
    "--backend",
    "cuda-emulated",
    "--ranks",
    `${RANKS}`,
    // Rows cross in parts of 256 tokens: two.
    "--tokens",
    "400",
    "--hidden",
    "64",
    "--json",
  ];
  const meet = ["--rendezvous", `127.0.0.1:${await freePort()}`, "--trace", trace];
  const runs = Array.from({ length: processes }, (_, i) =>
    startCommand([...args, ...meet, ...more(i)], { env: env(i) }),
  );
  const ended = await Promise.all(runs.map((one) => one.ended));
  for (const { stderr } of ended) expect(stderr).toBe("");
  const file = await openTrace(await openFile(trace));
  const chunk = await file.chunk(0, 0);
  await file.close();
  const reports = ended.map(({ stdout }) => JSON.parse(stdout));
  const waitMs = (rank: number, srcRank: number) => (chunk.waitUs?.[rank * RANKS + srcRank] ?? Number.NaN) / 1e3;
  return { trace, file, chunk, reports, waitMs };
}

describe.skipIf(!built)(`waits of several processes${whyNotBuilt}`, () => {
  test(
    "a slow process is its ranks' column in wait_us, and every report names it; one trace has all ranks",
    async () => {
      const { trace, file, chunk, reports, waitMs } = await traced(
        2,
        (process) => ["--nodes", "2", "--node-rank", `${process}`],
        (process) => (process === 1 ? { NODE_OPTIONS: `--require ${SLOW}`, SLOW_MS: "900" } : NONE),
      );
      for (const rank of [0, 1]) for (const srcRank of [2, 3]) expect(waitMs(rank, srcRank)).toBeGreaterThan(600);
      for (const rank of [2, 3]) for (const srcRank of [0, 1]) expect(waitMs(rank, srcRank)).toBeLessThan(500);
      expect(waitMs(0, 1)).toBe(0);
      for (const { layers } of reports) {
        expect(layers[0].waits.findings.map(({ kind, rank }: { kind: string; rank: number }) => [kind, rank])).toEqual(
          expect.arrayContaining([
            ["late-rank", 2],
            ["late-rank", 3],
          ]),
        );
        expect(layers[0].waits.words[0]).toMatch(/^ranks 2\.\.3 came [\d.]+ ms late/);
      }
      expect(reports.map((report) => report.trace)).toEqual([trace, `${trace} of process 0`]);
      expect(file.header).toMatchObject({ numRanks: 4, ranksPerNode: 2, clock: "measured" });
      expect(new Set(chunk.phases.map(({ rank }) => rank))).toEqual(new Set([0, 1, 2, 3]));
      // All leave the agreement together: the early ranks' wait ends where the late ranks' ends.
      const agree = chunk.phases.filter(({ name }) => name === "agree");
      const firstEnd = (rank: number) => {
        const [first] = agree.filter((phase) => phase.rank === rank).sort((a, b) => a.startUs - b.startUs);
        return first.startUs + first.durationUs;
      };
      expect(Math.abs(firstEnd(0) - firstEnd(3))).toBeLessThan(1);
    },
    LIMIT,
  );

  const byNode = (process: number) => ["--nodes", "2", "--node-rank", `${process}`];
  /** Every message from node 0 to node 1 waits 30 ms. */
  const SLOW_PATH = { FUSED_A2A_EMULATED_LINK: "0-1:30000" };
  interface Found {
    readonly kind: string;
    readonly excessUs: number;
  }
  /** Less than that is what else this machine does meanwhile. */
  const strong = <T extends Found>(findings: readonly T[]) => findings.filter(({ excessUs }) => excessUs > 100_000);

  test(
    "a slow network from node 0 to node 1 is named with its direction",
    async () => {
      const { reports, waitMs } = await traced(2, byNode, () => SLOW_PATH);
      // Routes, two parts of rows and two of sums.
      for (const [rank, srcRank] of [
        [2, 0],
        [3, 1],
      ]) {
        expect(waitMs(rank, srcRank)).toBeGreaterThan(120);
      }
      for (const { layers } of reports) {
        const [path, ...more] = layers[0].waits.findings.filter(({ kind }: { kind: string }) => kind !== "late-rank");
        expect(path).toMatchObject({ kind: "slow-path", srcNode: 0, dstNode: 1 });
        expect(more).toEqual([]);
        expect(path.times).toBeGreaterThan(3);
        expect(path.messageUs).toBeGreaterThan(20_000);
        // What a rank came late for itself on a busy machine is far less than the 150 ms of the path.
        const late = layers[0].waits.findings.filter(({ kind }: { kind: string }) => kind === "late-rank");
        for (const { excessUs } of late) expect(excessUs).toBeLessThan(path.excessUs);
        expect(layers[0].waits.words.join()).toMatch(
          /rows from node 0 to node 1 take \d[\d.]* times as long as the other way .*look at that network path/,
        );
      }
      expect(reports[1].layers[0].waits).toEqual(reports[0].layers[0].waits);
    },
    LIMIT,
  );

  test(
    "a process that comes late and a slow network are both named",
    async () => {
      const { reports } = await traced(2, byNode, (process) =>
        process === 1 ? { NODE_OPTIONS: `--require ${SLOW}`, SLOW_MS: "900" } : SLOW_PATH,
      );
      for (const { layers } of reports) {
        const { findings, words } = layers[0].waits;
        expect(strong(findings)).toMatchObject([
          { kind: "late-rank", rank: 2 },
          { kind: "late-rank", rank: 3 },
          { kind: "slow-path", srcNode: 0, dstNode: 1 },
        ]);
        expect(findings[0].excessUs).toBeGreaterThan(600_000);
        expect(words[0]).toMatch(/^ranks 2\.\.3 came [\d.]+ ms late/);
        expect(words.join("\n")).toMatch(/^rows from node 0 to node 1 take/m);
      }
    },
    LIMIT,
  );

  test(
    "a process that is stopped while rows travel is a slow rank, on a slow network too",
    async () => {
      // Counts, routes and two parts of rows take 100 ms each: 320 ms after the beginning rows are on their way.
      const link = { FUSED_A2A_EMULATED_LINK: "0-1:100000" };
      const stop = { NODE_OPTIONS: `--require ${STOPPED}`, STOP_AFTER_MS: "320", STOP_MS: "900" };
      const { reports } = await traced(2, byNode, (process) => (process === 1 ? stop : link));
      for (const { layers } of reports) {
        const { findings, words } = layers[0].waits;
        // Stopped in the last message, it keeps nobody waiting there, and comes late to the combine.
        const kind = expect.stringMatching(/^(slow|late)-rank$/);
        expect(strong(findings)).toMatchObject([
          { kind, rank: 2 },
          { kind, rank: 3 },
          { kind: "slow-path", srcNode: 0, dstNode: 1 },
        ]);
        for (const { excessUs } of findings.slice(0, 2)) expect(excessUs).toBeGreaterThan(600_000);
        expect(words[0]).toMatch(/^ranks 2\.\.3 (kept others waiting for|came) [\d.]+ ms/);
      }
    },
    LIMIT,
  );

  test(
    "two nodes that are equally slow both ways: nobody is named, the figures say it",
    async () => {
      const { reports } = await traced(
        2,
        (process) => [...byNode(process), "--repeats", "2", "--hidden", "1024"],
        () => ({ FUSED_A2A_EMULATED_LINK: "0-1:0:20,1-0:0:20" }),
      );
      for (const { layers } of reports) {
        const [{ traffic, network, waits, numRepeats }] = layers;
        expect(numRepeats).toBe(2);
        for (const one of [network.dispatch, network.combine]) {
          expect(one.bytes).toBe(traffic.networkBytes);
          expect(one.slowest.orBack).toBe(true);
          // 20 MB/s; the stand-in lets what waited for 2 ms catch up, and this machine may be busy.
          for (const { GBps } of [...one.nics, one.slowest]) expect(GBps).toBeLessThan(0.04);
          expect(one.slowest.GBps).toBeGreaterThan(0.002);
          expect(one.nics.map(({ rank }: { rank: number }) => rank)).toEqual([0, 1, 2, 3]);
        }
        expect(waits.findings.filter(({ kind }: { kind: string }) => kind === "slow-path")).toEqual([]);
      }
    },
    LIMIT,
  );

  test(
    "a slow link is named before all others",
    async () => {
      const { reports, waitMs } = await traced(
        4,
        (process) => [
          ...["--nodes", "1", "--node-rank", "0", "--processes-per-node", "4"],
          ...["--local-process", `${process}`],
        ],
        (process) => (process === 0 ? { FUSED_A2A_EMULATED_LINK: "0-1:150000" } : NONE),
      );
      expect(waitMs(1, 0)).toBeGreaterThan(250);
      for (const { layers } of reports) {
        const links = layers[0].waits.findings.filter(({ kind }: { kind: string }) => kind !== "late-rank");
        expect(links[0]).toMatchObject({ kind: "slow-link", src: 0, dst: 1 });
        expect(layers[0].waits.words.join()).toContain("the link 0 -> 1 is slow");
      }
    },
    LIMIT,
  );
});
