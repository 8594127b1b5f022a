import { describe, expect, it } from "vitest";
import {
  dataPath,
  diagnose,
  FITTED,
  type Finding,
  machinePreset,
  type PipelineInput,
  simulatePipeline,
} from "../../../core/topology/index.ts";
import { counted, type Shape } from "./helpers.ts";

const { parameters } = FITTED;
const at = (length: number, rank: number, value: number, rest: number) =>
  Float64Array.from({ length }, (_, r) => (r === rank ? value : rest));

function setUp(shape: Shape, workload: string, machine: string) {
  const input: PipelineInput = {
    machine: machinePreset(machine),
    path: dataPath("fused-a2a"),
    parameters,
    counter: counted(workload, shape),
    operation: "dispatch",
    hidden: 7168,
    rowKind: "bf16",
    numSms: 24,
    numChunks: 8,
  };
  const [healthy] = simulatePipeline([input]);
  const explain = (change: Partial<PipelineInput>, expected = true) => {
    const [{ waitUs }] = simulatePipeline([{ ...input, ...change }]);
    return diagnose(waitUs, { ...shape, expectedUs: expected ? healthy.waitUs : undefined });
  };
  return { healthy, explain };
}

const one = { numRanks: 8, ranksPerNode: 8, numTokens: 512, topk: 8, numExperts: 256 };
const two = { ...one, numRanks: 16 };
const four = { ...one, numRanks: 32 };
const kinds = (findings: readonly Finding[]) => findings.map((finding) => finding.kind);

describe("diagnosis of labelled faults", () => {
  for (const [name, shape, machine] of [
    ["one node", one, "h200"],
    ["two nodes", two, "h800"],
    ["four nodes", four, "h200"],
  ] as const) {
    for (const workload of ["uniform", "realistic"]) {
      for (const rank of [0, 3, shape.numRanks - 1]) {
        const { healthy, explain } = setUp(shape, workload, machine);
        const n = shape.numRanks;
        it(`finds rank ${rank} late by 1x and 0.5x: ${name}, ${workload}`, () => {
          for (const share of [0.5, 1]) {
            const late = share * healthy.timeUs;
            const { findings, words } = explain({ readyUs: at(n, rank, late, 0) });
            expect(findings[0], words[0]).toMatchObject({ kind: "late-rank", rank });
            expect(findings[0].excessUs / late).toBeGreaterThan(0.5);
            expect(findings[0].excessUs / late).toBeLessThan(2);
            expect(kinds(findings)).toEqual(["late-rank"]);
          }
        });
        it(`finds the NIC of rank ${rank} at half speed: ${name}, ${workload}`, () => {
          const { findings } = explain({ health: { nic: at(n, rank, 0.5, 1) } });
          if (shape === one) expect(findings).toEqual([]);
          // On the H800 at two nodes NVLink hides what a NIC at half speed costs; a quarter shows.
          else if (shape === two) {
            const quarter = explain({ health: { nic: at(n, rank, 0.25, 1) } }).findings[0];
            expect(quarter.kind).toBe("slow-nic");
            expect(quarter.kind === "slow-nic" && [quarter.rank, quarter.orRank]).toContain(rank);
          } else expect(findings[0]).toMatchObject({ kind: "slow-nic", rank });
        });
        it(`finds the NVLink of rank ${rank} at a quarter of its speed: ${name}, ${workload}`, () => {
          const { findings, words } = explain({ health: { nvlink: at(n, rank, shape === four ? 0.1 : 0.25, 1) } });
          expect(findings[0], words[0]).toMatchObject({ kind: "slow-nvlink", rank });
        });
        it(`finds a slow link from rank ${rank}: ${name}, ${workload}`, () => {
          const dst = rank - (rank % 8) + ((rank + 4) % 8);
          const { findings, words } = explain({ slowPair: { src: rank, dst, speed: 0.02 } });
          expect(findings[0], words[0]).toMatchObject({ kind: "slow-link", src: rank, dst });
        });
      }
      it(`finds nothing where nothing is wrong: ${name}, ${workload}`, () => {
        const { explain } = setUp(shape, workload, machine);
        const { findings, words } = explain({});
        expect(findings).toEqual([]);
        expect(words[0]).toMatch(/no rank or link stands out/);
      });
    }
  }

  it("finds a late rank without knowing what a healthy run waits", () => {
    const { healthy, explain } = setUp(one, "uniform", "h200");
    expect(explain({ readyUs: at(8, 5, healthy.timeUs, 0) }, false).findings).toMatchObject([
      { kind: "late-rank", rank: 5 },
    ]);
    expect(explain({}, false).findings).toEqual([]);
  });
});

describe("diagnosis of measured matrices", () => {
  const matrix = (rank: (row: number, column: number) => number) =>
    Float64Array.from({ length: 64 }, (_, i) => rank(Math.floor(i / 8), i % 8));
  const group = { numRanks: 8, ranksPerNode: 8 };
  const noise = (row: number, column: number) => 100 + ((row * 7 + column * 13) % 5);

  it("says in words who is late and which link is slow", () => {
    const late = matrix(
      (row, column) => (row === 3 ? 2 : column === 3 ? 900 : 0) + noise(row, column) * (row === 3 ? 0.05 : 1),
    );
    expect(diagnose(late, group).words[0]).toMatch(/^rank 3 is late by about 9\d\d\.\d us/);
    const link = matrix((row, column) => noise(row, column) + (row === 7 && column === 3 ? 400 : 0));
    expect(diagnose(link, group).words).toEqual([
      expect.stringMatching(/^the link 3 -> 7 is slow: rank 7 waits 39\d|40\d/),
    ]);
  });

  it("tells a slow sender from a late rank, and a slow receiver from both", () => {
    const sender = matrix((row, column) => noise(row, column) + (column === 2 ? 300 : 0));
    expect(diagnose(sender, group).findings[0]).toMatchObject({ kind: "slow-sender", rank: 2 });
    const receiver = matrix((row, column) => noise(row, column) + (row === 6 ? 300 : 0));
    expect(diagnose(receiver, group).findings[0]).toMatchObject({ kind: "slow-receiver", rank: 6 });
  });

  it("reports two faults, each once", () => {
    const both = matrix(
      (row, column) => noise(row, column) + (column === 1 ? 500 : 0) + (row === 4 && column === 5 ? 300 : 0),
    );
    expect(kinds(diagnose(both, group).findings)).toEqual(["slow-sender", "slow-link"]);
  });

  it("lets what is too small to count explain nothing", () => {
    const four = { numRanks: 4, ranksPerNode: 4, arrivedTogether: true };
    const waitUs = Float64Array.from({ length: 16 }, (_, i) => (i === 1 * 4 ? 450 : Math.floor(i / 4) === 2 ? 100 : 0));
    // 100 us of rank 2 for everybody hide that only rank 1 waits long for rank 0.
    expect(diagnose(waitUs, four).findings[0]).toMatchObject({ kind: "slow-sender" });
    expect(diagnose(waitUs, { ...four, leastUs: 200 }).findings).toEqual([
      { kind: "slow-link", src: 0, dst: 1, excessUs: 450 },
    ]);
  });

  it("has nothing to say about a single rank", () => {
    const { findings, words } = diagnose([0], { numRanks: 1, ranksPerNode: 1 });
    expect(findings).toEqual([]);
    expect(words[0]).not.toContain("NaN");
  });
});
