import { describe, expect, it } from "vitest";
import {
  type CostInput,
  dataPath,
  describeBottleneck,
  FITTED,
  machineFromJson,
  machinePreset,
  mainTime,
  operationCost,
  rowBytes,
  uniformTraffic,
} from "../../../core/topology/index.ts";
import { counted } from "./helpers.ts";

const parameters = FITTED.parameters;
const reference = { numRanks: 8, ranksPerNode: 8, numTokens: 4096, topk: 8, numExperts: 256 };
const input = (changes: Partial<CostInput> = {}): CostInput => ({
  machine: machinePreset("h200"),
  path: dataPath("fused-a2a"),
  parameters,
  traffic: uniformTraffic(reference),
  operation: "dispatch",
  hidden: 7168,
  rowKind: "bf16",
  topk: 8,
  numExperts: 256,
  numSms: 24,
  scope: "main",
  ...changes,
});

describe("row bytes", () => {
  it("counts scales and the low-latency header, and never fp8 in combine", () => {
    const high = dataPath("fused-a2a");
    const low = dataPath("deepep-ll");
    expect(rowBytes("dispatch", 7168, "bf16", high)).toBe(14336);
    expect(rowBytes("dispatch", 7168, "fp8", high)).toBe(7392);
    expect(rowBytes("dispatch", 7168, "fp8", low)).toBe(7408);
    expect(rowBytes("dispatch", 7168, "bf16", low)).toBe(14336);
    expect(rowBytes("combine", 7168, "fp8", high)).toBe(14336);
    expect(rowBytes("dispatch", 130, "fp8", high)).toBe(130 + 8);
  });
});

describe("operation cost", () => {
  it("divides the wire bytes of one host by the achieved speed", () => {
    // 272.0 MB at 450 GB/s: the floor of 605 us.
    const ideal = { ...parameters, nvlinkEfficiencyHopper: 1, smOverlapLoss: 0, kernelStartUs: 0 };
    const cost = operationCost(input({ parameters: ideal, numSms: 132 }));
    expect(cost.timeUs).toBeCloseTo(605, -0.5);
    expect(cost.bottleneck.name).toBe("nvlink");
    expect(cost.nvlinkInBytes[0] / 1e6).toBeCloseTo(272, 0);
    expect(cost.logical.nvlink / 1e6).toBeCloseTo(310.9, 0);
  });

  it.each([
    ["fused-a2a", "dispatch", 158.9 + 123.5],
    ["deepep-v2", "dispatch", 2 * 310.9],
    ["alltoallv", "dispatch", 310.9 + 469.8],
    ["deepep-v2", "combine", 310.9 + 58.7],
    ["alltoallv", "combine", 469.8 + 310.9],
    ["deepep-v1", "combine", 0],
  ] as const)("exposes the HBM bytes of %s %s", (path, operation, megabytes) => {
    const cost = operationCost(input({ path: dataPath(path), operation, scope: "kernels" }));
    const epilogue = cost.terms.find((term) => term.name === "epilogue");
    expect((epilogue?.amount ?? 0) / 1e6).toBeCloseTo(megabytes, -0.5);
  });

  it("adds a low-latency start-up to the slower of two links", () => {
    // 16 ranks of two nodes, 128 tokens x 8 messages of 7,408 B: half cross the NIC, 7/16 NVLink.
    const traffic = uniformTraffic({ ...reference, numRanks: 16, numTokens: 128 });
    const machine = machinePreset("h800");
    const cost = operationCost(input({ machine, traffic, path: dataPath("deepep-ll"), rowKind: "fp8" }));
    const network = (1024 * 7408 * (8 / 16)) / (parameters.nicEfficiency * 50e3);
    expect(cost.timeUs).toBeCloseTo(parameters.lowLatencyStartUs + network, 6);
    expect(cost.nvlinkOutBytes[0]).toBeCloseTo(1024 * 7408 * (7 / 16), 3);
  });

  it("takes a low-latency call for its kernel, and a throughput call for more", () => {
    const low = dataPath("fused-a2a-ll");
    const us = (path: typeof low, scope: "main" | "call") =>
      operationCost(input({ path, scope, operation: "combine" })).timeUs;
    expect(us(low, "call")).toBe(us(low, "main"));
    const high = dataPath("deepep-v1");
    expect(us(high, "call") - us(high, "main")).toBeCloseTo(parameters.callUs, 9);
  });

  it("is set by the SMs when there are few", () => {
    const few = operationCost(input({ numSms: 2 }));
    const many = operationCost(input({ numSms: 4 }));
    expect(few.bottleneck.name).toBe("sm");
    expect(few.timeUs / many.timeUs).toBeGreaterThan(1.8);
  });

  it("sends the routing map over the NICs of a node once, then over its NVLink", () => {
    const traffic = uniformTraffic({ ...reference, numRanks: 64, numExperts: 512 });
    const cost = operationCost(
      input({ machine: machinePreset("h100"), traffic, path: dataPath("hybrid-ep"), scope: "call", numExperts: 512 }),
    );
    const bytes = 64 * 4096 * 512;
    const nic = (bytes * 7) / 8 / (8 * parameters.nicEfficiency * 50e3);
    const nvlink = bytes / (parameters.nvlinkEfficiencyHopper * 450e3);
    expect(cost.terms.find((term) => term.name === "metadata")?.timeUs).toBeCloseTo(nic + nvlink, 6);
  });

  it("shows all, some or nothing of the shorter hop", () => {
    const p = { ...parameters, chunkedHopLoss: 0.25, smOverlapLoss: 0.125 };
    expect(mainTime(dataPath("rail-serial"), p, 100, 40, 0)).toBe(140);
    expect(mainTime(dataPath("fused-a2a"), p, 100, 40, 0)).toBe(110);
    expect(mainTime(dataPath("fused-a2a"), p, 100, 40, 80)).toBe(120);
    expect(mainTime(dataPath("deepep-v2"), p, 100, 40, 0)).toBe(100);
    expect(mainTime(dataPath("deepep-v2"), p, 100, 40, 80)).toBe(110);
    expect(mainTime(dataPath("fused-a2a"), p, 100, 0, 80)).toBe(110);
  });

  it("names the rank and the direction that bind", () => {
    const counter = counted("hot-rank", { ...reference, numTokens: 512 });
    const dispatch = operationCost(input({ traffic: counter.traffic }));
    const combine = operationCost(input({ traffic: counter.traffic, operation: "combine" }));
    const hottest = counter.traffic.railNvlinkIn.indexOf(Math.max(...counter.traffic.railNvlinkIn));
    expect(describeBottleneck(dispatch)).toBe(`NVLink in of rank ${hottest}`);
    expect(describeBottleneck(combine)).toBe(`NVLink out of rank ${hottest}`);
  });

  it("halves a link where its health says so", () => {
    const counter = counted("uniform", { ...reference, numRanks: 16, numTokens: 512 });
    const nic = new Float64Array(16).fill(1);
    nic[5] = 0.5;
    const slow = operationCost(input({ traffic: counter.traffic, health: { nic } }));
    expect(slow.bottleneck).toMatchObject({ name: "network", rank: 5 });
  });

  it("has no traffic and no time for links when no token goes anywhere", () => {
    const counter = counted("uniform", { ...reference, numTokens: 0 });
    const cost = operationCost(input({ traffic: counter.traffic }));
    expect(cost.timeUs).toBe(parameters.kernelStartUs);
  });
});

describe("the halved NVLink of the H800", () => {
  it.each([
    [16, "nvlink"],
    [32, "network"],
    [64, "network"],
  ] as const)("binds EP%i at %s", (numRanks, bound) => {
    for (const rowKind of ["fp8", "bf16"] as const) {
      const shape = { ...reference, numRanks };
      const limited = uniformTraffic({ ...shape, nodeLimit: 4 });
      for (const traffic of [limited, counted("uniform", { ...shape, numTokens: 1024 }).traffic]) {
        const machine = machinePreset("h800");
        const cost = operationCost(input({ machine, traffic, rowKind, path: dataPath("deepep-v1") }));
        expect(cost.bottleneck.name).toBe(bound);
      }
    }
  });

  it("does not bind the H200 with its full NVLink at 16 ranks", () => {
    const traffic = uniformTraffic({ ...reference, numRanks: 16 });
    expect(operationCost(input({ traffic, path: dataPath("deepep-v1") })).bottleneck.name).toBe("network");
  });
});

describe("machine files", () => {
  const good = {
    name: "mine",
    family: "other",
    ranksPerDomain: 4,
    nvlinkGBps: { value: 100, source: "measured" },
    nicGBps: 0,
    hbmGBps: 1000,
    numSms: 64,
  };

  it("reads numbers with and without a source", () => {
    const machine = machineFromJson({ ...good, nvlinkEfficiency: 0.5 }, "mine.json");
    expect(machine.nvlinkGBps).toEqual({ value: 100, source: "measured" });
    expect(machine.hbmGBps.source).toBe("mine.json");
    const traffic = uniformTraffic({ ...reference, numRanks: 4, ranksPerNode: 4 });
    const nvlink = operationCost(input({ machine, traffic })).terms[0];
    expect(nvlink.timeUs).toBeCloseTo(nvlink.amount / 50e3, 9);
  });

  it.each([
    [{ ...good, nvlinkGBps: -1 }, /machine\.nvlinkGBps: expected a number above 0, received -1/],
    [{ ...good, nvlinkGBps: undefined }, /machine\.nvlinkGBps.*received nothing/],
    [{ ...good, ranksPerDomain: 2.5 }, /whole number/],
    [{ ...good, nicEfficiency: 1.5 }, /fraction/],
    [{ ...good, family: "ampere" }, /hopper, blackwell, other/],
    [{ ...good, speed: 1 }, /machine\.speed: expected one of/],
    [[], /an object/],
    [null, /an object/],
  ])("refuses %j", (json, message) => {
    expect(() => machineFromJson(json, "mine.json")).toThrow(message);
  });
});
