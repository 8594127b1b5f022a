/** The long runs of the native self-test: 20 seeds and more, sanitizers, several nodes and devices (docs/cuda.md). */
import { beforeAll, describe, expect, it } from "vitest";
import { buildSelftest, hasCompiler, selftest } from "./program.ts";

describe.skipIf(!hasCompiler)(`native self-test, long${hasCompiler ? "" : " (skipped: no g++)"}`, () => {
  beforeAll(() => buildSelftest("emulated"), 300_000);

  it("48 groups in order", () => {
    expect(selftest("emulated", ["check", "--groups", "48", "--seed", "100"])).toMatch(/all equal/);
  });

  it("several processes, 8 seeds", () => {
    for (let seed = 20; seed < 28; seed++) {
      expect(selftest("emulated", ["nodes", "--cases", "10", "--seed", `${seed}`])).toMatch(
        /nodes: .* all as expected/,
      );
    }
  });

  it("several processes under shuffled schedules", () => {
    for (let seed = 1; seed <= 4; seed++) {
      const args = ["nodes", "--shuffled", "1", "--cases", "3", "--large", "1100", "--seed", `${seed}`];
      expect(selftest("emulated", args)).toMatch(/nodes: .* all as expected/);
    }
  });

  it("24 seeds of shuffled schedules, 100 operations in a row each", () => {
    expect(selftest("emulated", ["stress", "--seeds", "24", "--seed", "50"])).toMatch(/0 of 24 seeds failed/);
  });
});

describe.skipIf(!hasCompiler)(`native self-test with sanitizers${hasCompiler ? "" : " (skipped: no g++)"}`, () => {
  beforeAll(() => buildSelftest("sanitized"), 600_000);

  it("in order", () => {
    expect(selftest("sanitized", ["check", "--groups", "8"])).toMatch(/all equal/);
  });

  it("several processes", () => {
    expect(selftest("sanitized", ["nodes", "--cases", "3"])).toMatch(/nodes: .* all as expected/);
  });

  it("graphs", () => {
    expect(selftest("sanitized", ["graph"])).toMatch(/all equal/);
  });

  it("shuffled", () => {
    expect(selftest("sanitized", ["stress", "--seeds", "4", "--operations", "40"])).toMatch(/0 of 4 seeds failed/);
  });
});
