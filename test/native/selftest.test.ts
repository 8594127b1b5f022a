/** The C++ library against its C++ reference on emulated devices, without Node in between (docs/cuda.md). */
import { beforeAll, describe, expect, it } from "vitest";
import { buildSelftest, hasCompiler, selftest } from "./program.ts";

describe.skipIf(!hasCompiler)(`native self-test${hasCompiler ? "" : " (skipped: no g++)"}`, () => {
  beforeAll(() => buildSelftest("emulated"), 300_000);

  it("every operation equals the reference, in order", () => {
    expect(selftest("emulated", ["check", "--groups", "5"])).toMatch(/all equal/);
  }, 120_000);

  it("and under shuffled schedules with weak stores and a slow device", () => {
    expect(selftest("emulated", ["stress", "--seeds", "3", "--operations", "40"])).toMatch(/0 of 3 seeds failed/);
  }, 120_000);

  it("a captured graph replays other routing", () => {
    expect(selftest("emulated", ["graph"])).toMatch(/all equal/);
  });

  it("groups over several processes (threads here) equal the reference, count their bytes, and fail by name", () => {
    expect(selftest("emulated", ["nodes", "--cases", "3"])).toMatch(/all as expected/);
  }, 60_000);

  it("a device that stops is a timeout that names phase and rank, and the process goes on", () => {
    expect(selftest("emulated", ["deadline"])).toMatch(/is named, the process goes on/);
  });
});
