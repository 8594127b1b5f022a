/**
 * The whole path over several processes on emulated devices: rendezvous, contract, the native data path over the stand-in
 * for NCCL. Every process compares its own ranks with the oracle, and the bytes it sent with the layout's arithmetic.
 */
import { existsSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type Line, runRanks } from "./run.ts";

const here = (path: string) => existsSync(new URL(`../../${path}`, import.meta.url));
const built =
  here("build/fused_a2a_emulated.node") && here("build/libfused_a2a_nccl_sockets.so") && here("dist/backends");
const why = built ? "" : " (skipped: npm run build and npm run build:native)";

const CASES = [
  { style: "fused" },
  { style: "hybrid-ep" },
  { style: "fused", dtype: "fp8e4m3", tokens: 150, hidden: 128 },
  { style: "hybrid-ep", dtype: "fp32", hidden: 7 },
  { style: "fused", dtype: "fp16", topk: 16, settings: { numWorstTokens: 40 } },
  { style: "hybrid-ep", settings: { numPermutedTokens: 64 } },
];

/** The line that tells how the process's second step went wrong, and that it gave its memory back and went on. */
function expectFailed(lines: Line[], code: string, message: RegExp): void {
  const failed = lines.filter((line) => line.code !== undefined);
  expect(failed.length, JSON.stringify(lines)).toBeGreaterThan(0);
  expect(failed[0].code).toBe(code);
  expect(failed[0].message).toMatch(message);
  expect(lines.filter((line) => line.reserved !== undefined).at(-1)?.reserved).toBe(0);
  expect(lines.at(-1)).toEqual({ alive: true });
}

/** The table of the first failure: what each rank waited for. */
function tableOf(lines: Line[]) {
  return lines.find((line) => line.code !== undefined)?.waits ?? [];
}

describe.skipIf(!built)(`groups over several processes${why}`, () => {
  test.each([
    [2, 4],
    [4, 2],
  ])(
    "%i processes of %i ranks equal the oracle, bytes equal the layout",
    async (processes, each) => {
      const all = await runRanks(processes * each, Array(processes).fill(CASES));
      all.forEach((lines, process) => {
        expect(lines[0].met).toEqual(Array.from({ length: each }, (_, i) => process * each + i));
        const done = lines.filter((line) => line.done !== undefined);
        expect(done.map((line) => line.differing)).toEqual(CASES.map(() => []));
        expect(done[0].phases).toEqual(expect.arrayContaining(["agree", "network counts", "network rows", "relay"]));
      });
    },
    60_000,
  );

  test("a wait for a late process is a phase, not a transfer", async () => {
    const [early] = await runRanks(2, [[{}], [{ sleepMs: 300 }, {}]]);
    expect(early[1].agreeUs).toBeGreaterThan(150_000);
  }, 30_000);

  test("a different hidden is named on both, and the group goes on", async () => {
    const both = await runRanks(4, [
      [{ hidden: 32 }, {}],
      [{ hidden: 24 }, {}],
    ]);
    for (const lines of both) {
      expect(lines[1]).toMatchObject({ code: "CONTRACT_MISMATCH" });
      expect(lines[1].message).toContain("(process 0 drives ranks 0..1, process 1 drives ranks 2..3)");
      expect(lines[1].message).toContain("hidden: 32 on process 0, 24 on process 1");
      expect(lines.at(-2)?.differing).toEqual([]);
    }
  }, 30_000);

  test("a different style is named", async () => {
    const [lines] = await runRanks(4, [[{ style: "fused" }], [{ style: "hybrid-ep" }]]);
    expect(lines[1].message).toContain("style: fused on process 0, hybrid-ep on process 1");
  }, 30_000);

  test("a killed process is named; memory goes back; the process lives", async () => {
    const [lines] = await runRanks(4, [
      [{}, {}, {}],
      [{}, "die"],
    ]);
    expectFailed(lines, "BACKEND_FAILURE", /process 1 is gone: it closed the connection/);
  }, 30_000);

  test("a call that no other process takes part in says who ended the group, too", async () => {
    const [lines] = await runRanks(4, [
      [{}, { scale: true }, { sleepMs: 800 }, { scale: true }],
      [{}, "die"],
    ]);
    expectFailed(lines, "BACKEND_FAILURE", /^scale rows: process 1 is gone: it closed the connection/);
  }, 30_000);

  test("a process killed in the middle of an operation is named too", async () => {
    const many = Array(40).fill({ tokens: 400, hidden: 512 });
    const [lines] = await runRanks(4, [many, [{ dieInMs: 400 }, ...many]]);
    expectFailed(lines, "BACKEND_FAILURE", /process 1 is gone/);
  }, 40_000);

  test("a stopped process (SIGSTOP) is a timeout that names it", async () => {
    const [lines] = await runRanks(
      4,
      [
        [{}, {}],
        [{}, "stop"],
      ],
      () => ({ deadlineMs: 600 }),
    );
    expectFailed(lines, "TIMEOUT", /after 600 ms process 1 did not come; process 0 waits in dispatch/);
    const row = { phase: "agree", expected: "its call of dispatch (operation 3)", received: "nothing within 600 ms" };
    const pairs = [0, 1].flatMap((rank) => [2, 3].map((srcRank) => ({ rank, srcRank })));
    expect(tableOf(lines)).toEqual(pairs.map((pair) => ({ ...pair, ...row })));
  }, 30_000);

  test("a process stopped while rows travel: which ranks expected how many bytes of whom, in which phase", async () => {
    // What process 2 sends is slow, so that it surely stops in the middle of the operation.
    const step = { numExperts: 12 };
    const all = await runRanks(6, [[step], [step], [{ stopInMs: 1500 }, step]], (process) => ({
      deadlineMs: 2500,
      ...(process === 2 ? { env: { FUSED_A2A_EMULATED_LINK: "2-0:700000,2-1:700000" } } : {}),
    }));
    for (const process of [0, 1]) {
      expectFailed(all[process], "TIMEOUT", /network/);
      const table = tableOf(all[process]);
      // Process 0 has the rows of every process that lives.
      const ranks = new Set(table.map(({ rank }) => rank));
      expect([...ranks]).toEqual(process === 0 ? [0, 1, 2, 3] : expect.arrayContaining([2, 3]));
      for (const wait of table.filter(({ srcRank }) => srcRank >= 4)) {
        expect(wait.srcRank % 2).toBe(wait.rank % 2);
        expect(wait.phase).toMatch(/^(network (rows|routes)|counts)/);
        expect(wait.expected).toMatch(/^[\d,]+ bytes$/);
        expect(wait.received).toBe("nothing");
      }
      expect(table.some(({ srcRank }) => srcRank >= 4)).toBe(true);
    }
  }, 40_000);

  test("a process that dies while another waits for it: the table names both", async () => {
    const [lines] = await runRanks(4, [[{}], [{ sleepMs: 600 }, "die"]]);
    expectFailed(lines, "BACKEND_FAILURE", /process 1 is gone/);
    expect(tableOf(lines)[0]).toEqual({
      rank: 0,
      srcRank: 2,
      phase: "agree",
      expected: "its call of dispatch (operation 0)",
      received: "it closed the connection",
    });
  }, 30_000);

  test("a process that is slower than the deadline is a timeout on both", async () => {
    const both = await runRanks(4, [[{}], [{ sleepMs: 1500 }, {}]], () => ({ deadlineMs: 600 }));
    for (const lines of both) expectFailed(lines, "TIMEOUT", /after 600 ms process 1 did not come/);
  }, 30_000);

  test("a process that ends its group while another calls on is named", async () => {
    const [lines] = await runRanks(4, [[{}, {}], [{}]], () => ({ deadlineMs: 600 }));
    const failed = lines.find((line) => line.code !== undefined);
    expect(failed?.code).toBe("BACKEND_FAILURE");
    expect(failed?.message).toMatch(/process 1 (closed its group|is gone: it closed its group)/);
    expect(lines.at(-1)).toEqual({ alive: true });
  }, 30_000);

  test("a process that skips a call while it works on: who waits in what is named", async () => {
    const [lines] = await runRanks(
      4,
      [
        [{}, {}],
        [{}, { sleepMs: 1500 }],
      ],
      () => ({ deadlineMs: 600 }),
    );
    expectFailed(lines, "TIMEOUT", /after 600 ms process 1 did not come; process 0 waits in dispatch/);
  }, 30_000);

  test("different sizes of the group are refused at the meeting, by name and with both values", async () => {
    const both = await runRanks(4, [[{}], [{}]], (process) => (process === 1 ? { numRanks: 8 } : {}));
    for (const lines of both) {
      expect(lines[0]).toMatchObject({ code: "CONTRACT_MISMATCH" });
      expect(lines[0].message).toContain("numRanks: 4 on process 0, 8 on process 1");
      expect(lines.at(-1)).toEqual({ alive: true });
    }
  }, 30_000);

  test("a secret that differs is refused", async () => {
    const both = await runRanks(4, [[{}], [{}]], (process) => ({ secret: `secret ${process}`, timeoutMs: 1500 }));
    expect(both[1][0].message).toContain("does not know the shared secret");
    expect(both.map((lines) => lines.at(-1))).toEqual([{ alive: true }, { alive: true }]);
  }, 30_000);
});
