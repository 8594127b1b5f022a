import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  achieved,
  dataPath,
  FITTED,
  machinePreset,
  operationCost,
  type PipelineInput,
  ServerNetwork,
  simulatePipeline,
  usualFaults,
  whatIf,
} from "../../../core/topology/index.ts";
import { counted } from "./helpers.ts";

const parameters = { ...FITTED.parameters, smOverlapLoss: 0, chunkedHopLoss: 0, kernelStartUs: 0 };
const shape = { numRanks: 16, ranksPerNode: 8, numTokens: 512, topk: 8, numExperts: 256 };
const input = (changes: Partial<PipelineInput> = {}): PipelineInput => ({
  machine: machinePreset("h200"),
  path: dataPath("fused-a2a"),
  parameters,
  counter: counted("uniform", shape),
  operation: "dispatch",
  hidden: 7168,
  rowKind: "bf16",
  numSms: 24,
  numChunks: 64,
  ...changes,
});
const closed = (given: PipelineInput) =>
  operationCost({ ...given, traffic: given.counter.traffic, topk: 8, numExperts: 256, scope: "main" });

describe("servers", () => {
  it("serve first come, first served, ties in the order of submission", () => {
    const network = new ServerNetwork(2);
    const ends: Record<string, number> = {};
    const submit = (name: string, ready: number, server: number, us: number) =>
      network.submit(ready, [{ server, serviceUs: us }], (time) => {
        ends[name] = time;
      });
    submit("a", 5, 0, 10);
    submit("b", 0, 0, 3);
    submit("c", 5, 0, 1);
    submit("d", 0, 1, 2);
    expect(network.run()).toBe(16);
    expect(ends).toEqual({ a: 15, b: 3, c: 16, d: 2 });
    expect([...network.busyUs]).toEqual([14, 2]);
  });

  it("never end before the busiest server's work, nor after the sum of all", () => {
    const job = fc.record({
      ready: fc.nat(20),
      visits: fc.array(fc.record({ server: fc.nat(3), serviceUs: fc.nat(9) }), { maxLength: 4 }),
    });
    fc.assert(
      fc.property(fc.array(job, { minLength: 1, maxLength: 30 }), (jobs) => {
        const network = new ServerNetwork(4);
        let finished = 0;
        for (const { ready, visits } of jobs) network.submit(ready, visits, () => finished++);
        const end = network.run();
        const sum = jobs.flatMap(({ visits }) => visits).reduce((total, visit) => total + visit.serviceUs, 0);
        expect(finished).toBe(jobs.length);
        expect(end).toBeGreaterThanOrEqual(Math.max(...network.busyUs));
        expect(end).toBeLessThanOrEqual(sum + Math.max(...jobs.map(({ ready }) => ready)));
      }),
    );
  });
});

describe("the pipeline", () => {
  it.each([
    ["fused-a2a", "uniform", 8],
    ["fused-a2a", "uniform", 16],
    ["fused-a2a", "zipf", 16],
    ["fused-a2a", "uniform", 32],
    ["rail-serial", "uniform", 16],
    ["deepep-ll", "uniform", 16],
    ["alltoallv", "uniform", 16],
    ["deepep-v1", "realistic", 8],
  ])("tends to the closed form in many chunks: %s, %s, %i ranks", (path, workload, numRanks) => {
    const given = input({ path: dataPath(path), counter: counted(workload, { ...shape, numRanks }) });
    const low = path === "deepep-ll" ? parameters.lowLatencyStartUs : 0;
    const [{ timeUs }] = simulatePipeline([given]);
    expect(timeUs / (closed(given).timeUs - low)).toBeGreaterThan(0.999);
    expect(timeUs / (closed(given).timeUs - low)).toBeLessThan(1.05);
  });

  it.each([8, 16, 32])("tends to the closed form in combine too: %i ranks", (numRanks) => {
    const given = input({ operation: "combine", counter: counted("uniform", { ...shape, numRanks }) });
    const [{ timeUs }] = simulatePipeline([given]);
    expect(timeUs / closed(given).timeUs).toBeGreaterThan(0.999);
    expect(timeUs / closed(given).timeUs).toBeLessThan(1.06);
  });

  it("is the serial sum of its stages for one row in one chunk", () => {
    // Rank 0's only token goes to rank 3 on the other node: NIC to rail stop 2, SM there, NVLink to 3.
    const counter = counted("uniform", { numRanks: 4, ranksPerNode: 2, numTokens: 0, numExperts: 4, topk: 1 });
    counter.add(0, Int32Array.of(3), 1);
    const given = input({ counter, numChunks: 1 });
    const speed = achieved(given.machine, parameters, 2);
    const bytes = 14336;
    const hops = (2 * bytes) / speed.nicBytesPerUs + (2 * bytes) / speed.nvlinkBytesPerUs;
    const sm = (2 * (parameters.bulkRowNs + parameters.bulkBytePs * 1e-3 * bytes) * 1e-3) / 24;
    expect(simulatePipeline([given])[0].timeUs).toBeCloseTo(hops + sm, 9);
  });

  it("takes less time the finer the chunks", () => {
    const times = [1, 4, 16, 64].map((numChunks) => simulatePipeline([input({ numChunks })])[0].timeUs);
    for (let i = 1; i < times.length; i++) expect(times[i]).toBeLessThan(times[i - 1]);
  });

  it("gives the same bits twice", () => {
    const [first] = simulatePipeline([input()]);
    const [second] = simulatePipeline([input()]);
    expect(second).toEqual(first);
  });

  it("makes everybody wait for a late rank, and the late rank for nobody", () => {
    const counter = counted("uniform", { ...shape, numRanks: 8 });
    const readyUs = Float64Array.from({ length: 8 }, (_, r) => (r === 2 ? 5000 : 0));
    const [{ waitUs, timeUs }] = simulatePipeline([input({ counter, readyUs })]);
    expect(timeUs).toBeGreaterThan(5000);
    for (let other = 0; other < 8; other++) {
      if (other === 2) continue;
      expect(waitUs[other * 8 + 2]).toBeGreaterThan(5000);
      expect(waitUs[2 * 8 + other]).toBe(0);
    }
  });

  it("shares the links between operations that run at once", () => {
    const counter = counted("uniform", { ...shape, numRanks: 8 });
    const dispatch = input({ counter });
    const combine = input({ counter, operation: "combine" });
    const alone = simulatePipeline([dispatch])[0].timeUs;
    const both = simulatePipeline([dispatch, combine]);
    expect(Math.max(...both.map(({ timeUs }) => timeUs)) / alone).toBeGreaterThan(1.9);
  });

  it("refuses more chunks than it can hold", () => {
    expect(() => simulatePipeline([input({ numChunks: 100_000 })])).toThrow(/--chunks/);
  });

  it("answers what if: the culprit's fault makes it longer, and its waits say which", () => {
    const given = input({ numChunks: 8 });
    const { healthy, cases } = whatIf(given, (healthyUs) => usualFaults(given.counter, healthyUs, 3));
    expect(cases.map(({ ratio }) => ratio > 1.2)).toEqual([true, true, true, true]);
    expect(cases[0].ratio).toBeCloseTo(2, 1);
    expect(cases.map(({ diagnosis }) => diagnosis.findings[0].kind)).toEqual([
      "late-rank",
      "slow-nvlink",
      "slow-nic",
      "slow-link",
    ]);
    expect(healthy.timeUs).toBeGreaterThan(0);
  });
});
