/** The long runs of the native self-test: 20 seeds and more, sanitizers, several nodes and devices (docs/cuda.md). */
import { beforeAll, describe, expect, it } from "vitest";
import { buildSelftest, hasCompiler, selftest } from "./program.ts";

describe.skipIf(!hasCompiler)(`native self-test, long${hasCompiler ? "" : " (skipped: no g++)"}`, () => {
  beforeAll(() => buildSelftest("emulated"), 300_000);

  it("48 groups in order", () => {
    expect(selftest("emulated", ["check", "--groups", "48", "--seed", "100"])).toMatch(/all equal/);
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

  it("graphs", () => {
    expect(selftest("sanitized", ["graph"])).toMatch(/all equal/);
  });

  it("shuffled", () => {
    expect(selftest("sanitized", ["stress", "--seeds", "4", "--operations", "40"])).toMatch(/0 of 4 seeds failed/);
  });
});
