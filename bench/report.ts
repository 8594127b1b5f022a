/** Results as data, as text, and compared. The definition of every byte count is printed beside the numbers. */
import { InvalidFile } from "../core/errors.ts";

export interface OperationResult {
  readonly case: string;
  readonly backend: string;
  readonly workers: number | null;
  readonly operation: string;
  readonly medianMs: number;
  readonly minMs: number;
  readonly maxMs: number;
  readonly repeats: number;
  readonly movedBytes: number;
  readonly logicalBytes: number | null;
  readonly wireBytes: number | null;
  readonly movedGBps: number;
  readonly logicalGBps: number | null;
  readonly wireGBps: number | null;
  /** Of the same run. */
  readonly memcpyGBps: number;
  /** movedGBps / memcpyGBps. */
  readonly timesMemcpy: number;
  /** movedBytes / memcpyGBps. */
  readonly floorMs: number;
  /** Median processor time of all threads. */
  readonly cpuMs: number;
  /** timesMemcpy by processor time: with one worker, what an idle machine would show. */
  readonly timesMemcpyCpu: number;
}

export interface BenchReport {
  readonly format: "fused-a2a-bench";
  readonly version: 1;
  readonly machine: Machine;
  readonly results: readonly OperationResult[];
  /** Cases that could not run, and why. */
  readonly skipped: readonly { readonly case: string; readonly why: string }[];
}

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly platform: string;
  readonly node: string;
  readonly version: string;
  readonly commit: string;
  readonly date: string;
  /** Load average when the run began: other processes make numbers smaller. */
  readonly load: number;
}

export const DEFINITIONS = {
  moved:
    "dispatch: rows written x row bytes; combine: rows read x row bytes; layout: bytes of ids read (fp8 rows: with scales)",
  logical: "one row per (token, destination rank), own rank included, x row bytes",
  wire: "the same without rows that stay on their rank",
  memcpy: "Buffer.copy of 256 MiB on one thread, bytes copied, between the operations of the same run",
  cpu: "processor time of all threads and the same ratio by it: other processes do not stretch it; several workers add up",
  floor: "moved bytes at memcpy's speed; layout, routing checks and slots are in dispatch, not in dispatch-cached",
} as const;

export function reportTable(report: BenchReport): (string | number)[][] {
  const short = (value: number | null) => (value === null ? "-" : Number(value.toPrecision(4)));
  return [
    [
      "case",
      "backend",
      "workers",
      "operation",
      "ms",
      "min",
      "max",
      "moved GB/s",
      "logical",
      "wire",
      "x memcpy",
      "floor ms",
      "cpu ms",
      "x memcpy (cpu)",
    ],
    ...report.results.map((one) => [
      one.case,
      one.backend,
      one.workers === null ? "-" : `${one.workers}`,
      one.operation,
      ...[one.medianMs, one.minMs, one.maxMs, one.movedGBps, one.logicalGBps, one.wireGBps].map((v) => `${short(v)}`),
      one.timesMemcpy.toFixed(2),
      `${short(one.floorMs)}`,
      `${short(one.cpuMs)}`,
      one.timesMemcpyCpu.toFixed(2),
    ]),
  ];
}

const keyOf = (one: OperationResult) => [one.case, one.backend, one.workers ?? "-", one.operation].join(" | ");

/** Ratios B / A of speed, raw and relative to each run's memcpy; only what both measured. */
export function compareTable(a: BenchReport, b: BenchReport): (string | number)[][] {
  const before = new Map(a.results.map((one) => [keyOf(one), one]));
  const rows = b.results.flatMap((after) => {
    const one = before.get(keyOf(after));
    if (one === undefined) return [];
    return [
      [
        ...keyOf(after).split(" | "),
        `${Number(one.medianMs.toPrecision(4))}`,
        `${Number(after.medianMs.toPrecision(4))}`,
        (one.medianMs / after.medianMs).toFixed(2),
        (after.timesMemcpy / one.timesMemcpy).toFixed(2),
      ],
    ];
  });
  return [["case", "backend", "workers", "operation", "A ms", "B ms", "speed B/A", "B/A in memcpys"], ...rows];
}

/** Throws InvalidFile for what is no bench report of this version. */
export function parseReport(text: string, file: string): BenchReport {
  let value: Partial<BenchReport>;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new InvalidFile(
      {
        name: "report",
        expected: "JSON of bench --json",
        received: String(cause),
        where: { file },
        remedy: "run bench again",
      },
      { cause },
    );
  }
  if (value?.format === "fused-a2a-bench" && value.version === 1 && Array.isArray(value.results))
    return value as BenchReport;
  throw new InvalidFile({
    name: "report",
    expected: "format fused-a2a-bench, version 1",
    received: `format ${value?.format}, version ${value?.version}`,
    where: { file },
    remedy: "make both files with this version",
  });
}
