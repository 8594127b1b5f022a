import { describe, expect, it } from "vitest";
import { type Call, findDeadlock, SCENARIOS } from "../../../core/topology/index.ts";

const call = (op: string, communicator = "ep", rest: Partial<Call> = {}): Call => ({ op, communicator, ...rest });
const group = (...streams: readonly (readonly Call[])[][]) => ({
  programs: streams.map((own, rank) => ({ rank, numSms: 132, streams: own })),
});

describe("deadlock scenarios", () => {
  it.each(SCENARIOS.map((scenario) => [scenario.name, scenario] as const))(
    "%s has its diagnosis",
    (_name, scenario) => {
      for (const [numRanks, odd] of [
        [2, 1],
        [8, 3],
        [16, 0],
      ]) {
        const report = findDeadlock(scenario.make(numRanks, odd));
        expect(report.kind).toBe(scenario.expected);
        expect(report.completes).toBe(["none", "late-rank"].includes(scenario.expected));
        if (numRanks > 2 && scenario.expected !== "none") expect(report.words.join(" ")).toContain(`rank ${odd}`);
      }
    },
  );

  it("prints one line per blocked call with the ranks it waits for", () => {
    const swapped = SCENARIOS.find(({ name }) => name === "swapped");
    const report = findDeadlock((swapped ?? SCENARIOS[0]).make(4, 2));
    expect(report.blocked).toHaveLength(4);
    expect(report.blocked[2]).toMatchObject({ rank: 2, op: "combine", waitsFor: [0, 1, 3] });
    expect(report.blocked[0]).toMatchObject({ rank: 0, op: "dispatch", waitsFor: [2] });
  });
});

describe("findDeadlock", () => {
  it("lets different communicators pass each other on different streams", () => {
    const streams = [[call("dispatch")], [call("all-reduce", "dp")]];
    expect(findDeadlock(group(streams, [...streams].reverse())).completes).toBe(true);
  });

  it("names a rank that never calls", () => {
    const report = findDeadlock(group([[call("dispatch")]], [[]], [[call("dispatch")]]));
    expect(report.kind).toBe("missing-call");
    expect(report.words[0]).toContain("rank 1 never calls dispatch");
  });

  it("lets members of a smaller communicator go ahead alone", () => {
    const programs = group([[call("dispatch", "node")]], [[call("dispatch", "node")]], [[]]);
    expect(findDeadlock({ ...programs, communicators: { node: [0, 1] } }).completes).toBe(true);
  });

  it("says when a kernel needs more SMs than there are", () => {
    const large = [call("dispatch", "ep", { numSms: 200 })];
    const report = findDeadlock(group([large], [large]));
    expect(report.kind).toBe("sm-starvation");
    expect(report.words[0]).toMatch(/200 SMs and a rank has 132/);
  });

  it("calls a rank beyond the timeout late, not stuck", () => {
    const programs = group([[call("dispatch")]], [[call("dispatch")]]).programs;
    const late = [programs[0], { ...programs[1], readyUs: 200e6 }];
    const report = findDeadlock({ programs: late, timeoutUs: 100e6 });
    expect(report).toMatchObject({ kind: "late-rank", completes: false });
    expect(report.words[0]).toContain("nothing is stuck");
  });

  it("refuses a communicator of ranks that do not exist", () => {
    expect(() => findDeadlock({ ...group([[call("dispatch")]]), communicators: { ep: [0, 5] } })).toThrow(/received 5/);
  });
});
