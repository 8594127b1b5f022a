import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { besideRepository } from "../unit/topology/helpers.ts";
import { fusedA2A, scratch } from "./run.ts";

const json = (...args: string[]) => {
  const { status, stdout, stderr } = fusedA2A("simulate", ...args, "--json");
  expect(stderr).toBe("");
  expect(status).toBe(0);
  return JSON.parse(stdout);
};

describe("fused-a2a simulate", () => {
  it("predicts bytes per link, time and the bottleneck of a generated routing", () => {
    const result = json(
      "--machine",
      "h800",
      "--ranks",
      "16",
      "--path",
      "deepep-v1",
      "--dtype",
      "fp8",
      "--tokens",
      "512",
    );
    const [dispatch, combine] = result.layers[0].phases;
    expect(dispatch.phase).toBe("dispatch");
    expect(dispatch.rowBytes).toBe(7392);
    expect(combine.rowBytes).toBe(14336);
    expect(dispatch.bottleneck.name).toBe("nvlink");
    expect(dispatch.nvlinkOutBytes).toHaveLength(16);
    const sent = dispatch.nicOutBytes.reduce((a: number, b: number) => a + b, 0);
    expect(dispatch.nicInBytes.reduce((a: number, b: number) => a + b, 0)).toBe(sent);
    expect(sent % 7392).toBe(0);
  });

  it("prints the formulas and the sources of what it used", () => {
    const text = fusedA2A("simulate", "--machine", "h100", "--ranks", "8", "--tokens", "64", "--backward").stdout;
    for (const part of [
      "dispatch-backward",
      "combine-backward",
      "NVLink",
      "max over ranks",
      "wire GB/s",
      "logical GB/s",
    ]) {
      expect(text).toContain(part);
    }
    expect(fusedA2A("simulate", "--machines").stdout).toContain("data sheet");
    expect(fusedA2A("simulate", "--parameters-table").stdout).toContain("all-to-all payload / nominal NVLink");
    expect(json("--machine-schema").required).toContain("nvlinkGBps");
    expect(json("--paths").map((path: { name: string }) => path.name)).toContain("hybrid-ep");
  });

  it("takes a machine of its own and names what is wrong in one", () => {
    const folder = scratch();
    const file = join(folder, "machine.json");
    const machine = {
      name: "box",
      family: "other",
      ranksPerDomain: 4,
      nvlinkGBps: 100,
      nicGBps: 25,
      hbmGBps: 1000,
      numSms: 64,
    };
    writeFileSync(file, JSON.stringify(machine));
    const result = json("--machine", file, "--ranks", "8", "--tokens", "64");
    expect(result).toMatchObject({ ranksPerNode: 4, numRanks: 8, machine: { name: "box" } });
    writeFileSync(file, JSON.stringify({ ...machine, nvlinkGBps: "fast" }));
    const { status, stderr } = fusedA2A("simulate", "--machine", file);
    expect(status).toBe(2);
    expect(stderr).toMatch(/^fused-a2a: machine\.nvlinkGBps: expected a number above 0, received "fast"/);
    expect(stderr.trim().split("\n")).toHaveLength(1);
  });

  it("writes a trace of a late rank, reads it back, and says who was late", () => {
    const file = join(scratch(), "late.safetensors");
    json("--ranks", "8", "--tokens", "128", "--layers", "2", "--events", "--late", "5=900", "--trace", file);
    const { status, stdout } = fusedA2A("simulate", "--diagnose", file);
    expect(status).toBe(1);
    expect(stdout).toMatch(/step 0, layer 0: rank 5 is late by about (89|90)\d\.\d us/);
    expect(stdout).toMatch(/step 0, layer 1: rank 5 is late/);
    const again = json(file);
    expect(again.layers).toHaveLength(2);
    expect(again.layers[0].numTokens).toBe(8 * 128);
  });

  it("balances, before and after on the same routing", () => {
    const { before, after, physicalToLogical } = json(
      ...[
        "--workload",
        "zipf",
        "--ranks",
        "8",
        "--tokens",
        "512",
        "--experts",
        "64",
        "--balance",
        "global",
        "--physical-experts",
        "72",
      ],
    );
    expect(after.layers[0].timeUs).toBeLessThan(before.layers[0].timeUs);
    expect(after.layers[0].numTokens).toBe(before.layers[0].numTokens);
    expect(new Set(physicalToLogical[0]).size).toBe(64);
  });

  it("places from the first steps and predicts the others", () => {
    const { before, after } = json(
      ...[
        "--workload",
        "zipf",
        "--ranks",
        "8",
        "--tokens",
        "512",
        "--steps",
        "3",
        "--train-steps",
        "2",
        "--balance",
        "hierarchical",
      ],
    );
    expect(before.layers.map((layer: { step: number }) => layer.step)).toEqual([2]);
    expect(after.layers).toHaveLength(1);
  });

  it("answers what if, scaling and deadlock", () => {
    const { cases } = json("--machine", "h100", "--ranks", "16", "--tokens", "256", "--what-if", "2");
    expect(cases.map((c: { diagnosis: { findings: { kind: string }[] } }) => c.diagnosis.findings[0].kind)).toEqual([
      "late-rank",
      "slow-nvlink",
      "slow-nic",
      "slow-link",
    ]);
    const { points } = json("--machine", "h100", "--scaling", "8..32", "--tokens", "128");
    expect(points.map((point: { numRanks: number }) => point.numRanks)).toEqual([8, 16, 32]);
    const hang = fusedA2A("simulate", "--deadlock", "sm-starvation");
    expect(hang.status).toBe(1);
    expect(hang.stdout).toMatch(/hangs: .*needs 120 SMs/);
    expect(fusedA2A("simulate", "--deadlock", "healthy").status).toBe(0);
  });

  it("says what dead ranks cost the others", () => {
    const { layers, memory } = json("--ranks", "8", "--tokens", "64", "--experts", "64", "--dead", "2,5");
    expect(layers[0].degraded.deadRanks).toEqual([2, 5]);
    expect(layers[0].degraded.lostExperts).toHaveLength(16);
    expect(layers[0].degraded.numTokensGone).toBe(128);
    expect(layers[0].numTokens).toBe(6 * 64);
    expect(memory.fusedBuffer.numNvlBytes).toBeGreaterThan(0);
    expect(fusedA2A("simulate", "--ranks", "8", "--tokens", "64", "--dead", "2").stdout).toContain("degraded: ranks 2");
  });

  it("fits a table and predicts with what it found", () => {
    const folder = scratch();
    const table = join(folder, "rows.csv");
    const rows = [118, 155, 173, 192].map(
      (us, i) => `DeepEP low-latency,H800,CX7 400Gb/s,${16 << i},${2 << i},128,7168,8,256,fp8,${us}`,
    );
    writeFileSync(
      table,
      `system,gpu,nic,ranks,nodes,tokens,hidden,topk,experts,dtype_dispatch,dispatch_us\n${rows.join("\n")}\n`,
    );
    const output = join(folder, "parameters.json");
    const report = json("--fit", table, "--rows", "1-2", "--output", output);
    expect(report.fitted.count).toBe(2);
    expect(report.held.count).toBe(2);
    expect(report.held.worst).toBeLessThan(0.2);
    const evaluated = json("--evaluate", table, "--parameters", output);
    expect(evaluated.lines).toHaveLength(4);
    expect(readdirSync(folder).sort()).toEqual(["parameters.json", "rows.csv"]);
    expect(Object.keys(JSON.parse(readFileSync(output, "utf8")).units)).toContain("nicEfficiency");
  });

  it.each([
    [["--machine", "h900"], /^fused-a2a: machine: expected h800, .*received h900/],
    [["--ranks", "12", "--machine", "h100"], /--ranks: expected a multiple of 8/],
    [["--ranks-per-node", "16", "--machine", "h100", "--ranks", "16"], /--ranks-per-node: expected at most 8/],
    [["--experts", "100"], /add redundant experts: 4/],
    [["--late", "1=5"], /--late: expected --events/],
    [["--slow-nic", "9=0.5"], /--slow-nic: expected rank=value with rank 0\.\.7/],
    [["--nic", "-1"], /--nic/],
    [["missing.safetensors"], /readable file/],
    [["--fit", "missing.csv"], /readable file/],
    [["--num-sms", "500"], /at most 132/],
    [["--tokens", "many"], /--tokens: expected a whole number/],
  ])("refuses %j in one line", (args, message) => {
    const { status, stdout, stderr } = fusedA2A("simulate", ...args);
    expect(status).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toMatch(message);
    expect(stderr.trim().split("\n")).toHaveLength(1);
  });

  const gptOss = besideRepository("routing/gpt-oss-20b.decode.small.safetensors");
  it.skipIf(gptOss === null)("predicts a real routing layer by layer", () => {
    const { layers } = json(gptOss ?? "", "--ranks", "8", "--hidden", "2880", "--layers", "0,2-3");
    expect(layers.map((layer: { layer: string }) => layer.layer)).toHaveLength(3);
    for (const layer of layers) expect(layer.numTokens).toBe(512);
  });
});
