/** What processes tell each other beyond "the same?": values, refusals, and what they must have the same before a byte moves. */
import { describe, expect, test } from "vitest";
import { type Line, runRanks } from "./run.ts";
import { built, whyNotBuilt } from "./start.ts";

const LIMIT = 40_000;

function expectGoesOn(lines: readonly Line[]): void {
  expect(lines.at(-2)?.differing).toEqual([]);
  expect(lines.at(-1)).toEqual({ alive: true });
}

describe.skipIf(!built)(`agreement between processes${whyNotBuilt}`, () => {
  test.each(["host", "device"])(
    "multihot routing on the %s: processes whose fullest tokens differ take the larger number",
    async (multihot) => {
      const steps = [
        { multihot, topk: 5 },
        { multihot, topk: 5, style: "hybrid-ep" },
      ];
      for (const lines of await runRanks(4, [steps, steps])) {
        expect(lines.filter((line) => line.done !== undefined).map((line) => line.differing)).toEqual([[], []]);
        expect(lines[1].topk).toBe(5);
      }
    },
    LIMIT,
  );

  test(
    "routing on the host here and on the device there is the same; another topk there is named",
    async () => {
      const both = await runRanks(4, [
        [{}, { topk: 6 }, {}],
        [{ resident: true }, { resident: true, topk: 5 }, {}],
      ]);
      for (const lines of both) {
        expect(lines[1].differing).toEqual([]);
        expect(lines[2].message).toContain("topk: 6 on process 0, 5 on process 1");
        expectGoesOn(lines);
      }
    },
    LIMIT,
  );

  test(
    "exchange hands every process's value to all, in order with operations",
    async () => {
      const of = (process: number) => [
        { exchange: { process } },
        { numExperts: 12 },
        { exchange: process },
        { exchange: null },
      ];
      for (const lines of await runRanks(3, [of(0), of(1), of(2)])) {
        expect(lines[1].exchanged).toEqual([{ process: 0 }, { process: 1 }, { process: 2 }]);
        expect(lines[2].differing).toEqual([]);
        expect(lines[3].exchanged).toEqual([0, 1, 2]);
        expect(lines[4].exchanged).toEqual([null, null, null]);
      }
    },
    LIMIT,
  );

  test(
    "an exchange against a dispatch is named",
    async () => {
      for (const lines of await runRanks(4, [
        [{ exchange: 1 }, {}],
        [{}, {}],
      ])) {
        expect(lines[1].message).toContain("operation: exchange a value on process 0, dispatch on process 1");
        // An exchange has none of a dispatch's fields: that says nothing more.
        expect(lines[1].message).not.toContain("nothing on");
      }
    },
    LIMIT,
  );

  test.each([0, 1])(
    "an argument that only process %i refuses is told to the others at once, and the group goes on",
    async (wrong) => {
      const steps = [0, 1, 2].map((process) => [{ wrong: process === wrong, numExperts: 12 }, { numExperts: 12 }]);
      const all = await runRanks(6, steps, () => ({ deadlineMs: 15_000 }));
      all.forEach((lines, process) => {
        if (process === wrong) expect(lines[1]).toMatchObject({ code: "INVALID_ARGUMENT" });
        else {
          expect(lines[1].code).toBe("CONTRACT_MISMATCH");
          expect(lines[1].message).toMatch(
            new RegExp(`operation 0: process ${wrong} refused dispatch: topkIdx: expected .*, received 99 at rank`),
          );
        }
        expectGoesOn(lines);
      });
    },
    LIMIT,
  );

  test(
    "a refusal comes before the others do: they are told as they come",
    async () => {
      const [early, late] = await runRanks(4, [
        [{ wrong: true }, {}],
        [{ sleepMs: 700 }, {}, {}],
      ]);
      expect(late[1].message).toContain("process 0 refused dispatch");
      expectGoesOn(early);
      expectGoesOn(late);
    },
    LIMIT,
  );

  test.each([
    ["expertAlignment", "fused", { expertAlignment: 8 }, { expertAlignment: 4 }],
    ["numWorstTokens", "fused", { numWorstTokens: 100 }, { numWorstTokens: 200 }],
    ["padMultiple", "hybrid-ep", { padMultiple: 8 }, { padMultiple: 16 }],
    ["numPermutedTokens", "hybrid-ep", { numPermutedTokens: 512 }, { numPermutedTokens: 1024 }],
  ] as const)(
    "a different %s is named with both values",
    async (field, style, one, other) => {
      const both = await runRanks(4, [
        [{ style, settings: one }, {}],
        [{ style, settings: other }, {}],
      ]);
      const [[, a]] = Object.entries(one);
      const [[, b]] = Object.entries(other);
      for (const lines of both) {
        expect(lines[1]).toMatchObject({ code: "CONTRACT_MISMATCH" });
        expect(lines[1].message).toContain(`${field}: ${a} on process 0, ${b} on process 1`);
        expectGoesOn(lines);
      }
    },
    LIMIT,
  );

  test(
    "different buffers are named",
    async () => {
      const both = await runRanks(4, [
        [{ buffer: 4096 }, {}],
        [{ buffer: 8192 }, {}],
      ]);
      for (const lines of both) {
        expect(lines[1].message).toContain("bytes: 4096 on process 0, 8192 on process 1");
        expectGoesOn(lines);
      }
    },
    LIMIT,
  );

  test(
    "the handle of another dispatch is named",
    async () => {
      const both = await runRanks(4, [
        [{ twice: "earlier" }, {}],
        [{ twice: "later" }, {}],
      ]);
      for (const lines of both) {
        expect(lines[1].message).toContain("handle: of operation 0 on process 0, of operation 1 on process 1");
        expectGoesOn(lines);
      }
    },
    LIMIT,
  );

  test(
    "a process that cannot make its part is named to the others at once",
    async () => {
      const began = performance.now();
      const all = await runRanks(6, [[{}], [{}], [{}]], (process) => ({
        deadlineMs: 4000,
        ...(process === 1 ? { devices: [99, 99] } : {}),
      }));
      for (const process of [0, 2]) {
        expect(all[process][0]).toMatchObject({ code: "BACKEND_FAILURE" });
        expect(all[process][0].message).toMatch(/^process 1 gave up: .*devices?/);
        expect(all[process].at(-1)).toEqual({ alive: true });
      }
      expect(all[1][0].message).toMatch(/devices?/);
      expect(performance.now() - began).toBeLessThan(20_000);
    },
    LIMIT,
  );

  test(
    "a different node shape is refused at the meeting",
    async () => {
      const both = await runRanks(4, [[{}], [{}], [{}], [{}]], (process) => ({
        ranksPerNode: process === 3 ? 4 : 2,
        processesPerNode: 1,
      }));
      for (const lines of both) {
        expect(lines[0].message).toContain("ranksPerNode: 2 on processes 0, 1, 2, 4 on process 3");
      }
    },
    LIMIT,
  );

  test(
    "pulled combines are refused by name before anybody is met",
    async () => {
      const [lines] = await runRanks(4, [[{}]], () => ({ combinePath: "pull" }));
      expect(lines[0]).toMatchObject({ code: "INVALID_ARGUMENT" });
      expect(lines[0].message).toContain("combinePath: expected push over several processes, received pull");
    },
    LIMIT,
  );
});
