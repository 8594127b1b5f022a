import { expect, test } from "vitest";
import { CASES } from "../../../bench/cases.ts";
import { measure, median, summarize } from "../../../bench/measure.ts";
import { type BenchReport, compareTable, type OperationResult, parseReport } from "../../../bench/report.ts";
import { InvalidFile } from "../../../core/errors.ts";

test("the median of an even number of samples is between the middle two", () => {
  expect(median([4, 1, 3])).toBe(3);
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(summarize([3, 1, 2], [5, 5, 9])).toEqual({ medianMs: 2, minMs: 1, maxMs: 3, repeats: 3, cpuMs: 5 });
});

test("operations take turns, warm-ups do not count, data is refreshed before every round", async () => {
  const log: string[] = [];
  const operations = ["a", "b"].map((name) => ({ name, run: () => log.push(name) }));
  const samples = await measure(operations, { warmUps: 1, repeats: 2, refresh: (round) => log.push(`r${round}`) });
  expect(log).toEqual(["r0", "a", "b", "r1", "a", "b", "r2", "a", "b"]);
  expect(samples.get("a")?.repeats).toBe(2);
});

const result = (medianMs: number, timesMemcpy: number, operation = "combine") =>
  ({ case: "decode", backend: "wasm", workers: 2, operation, medianMs, timesMemcpy }) as OperationResult;
const report = (...results: OperationResult[]) =>
  ({ format: "fused-a2a-bench", version: 1, results, skipped: [] }) as unknown as BenchReport;

test("compare shows speed B over A and the same in memcpys, for what both measured", () => {
  const rows = compareTable(report(result(10, 0.5)), report(result(4, 0.75), result(1, 1, "dispatch")));
  expect(rows.slice(1)).toEqual([["decode", "wasm", "2", "combine", "10", "4", "2.50", "1.50"]]);
});

test("what is no report is refused by name", () => {
  expect(() => parseReport("{", "x.json")).toThrow(InvalidFile);
  expect(() => parseReport('{"format":"other"}', "x.json")).toThrow(
    /report: expected format fused-a2a-bench, version 1/,
  );
  expect(parseReport(JSON.stringify(report()), "x.json").results).toEqual([]);
});

test("cases have distinct names and come in both styles", () => {
  expect(new Set(CASES.map((one) => one.name)).size).toBe(CASES.length);
  expect(CASES.filter((one) => one.style === "fused").length).toBe(CASES.length / 2);
});
