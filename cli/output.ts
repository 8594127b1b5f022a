/** What commands print: text for people, or one JSON object for machines. */
import { writeSync } from "node:fs";

/** Prints `value` as JSON, or `text()`. BigInts become numbers, typed arrays become lists. */
export function printResult(value: unknown, text: () => string, json: boolean | undefined): void {
  write(json ? JSON.stringify(value, jsonValue, 2) : text());
}

function jsonValue(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (ArrayBuffer.isView(value) && !(value instanceof DataView))
    return Array.from(value as unknown as Iterable<unknown>);
  return value;
}

/** Writes all of it before returning: process.exit after an asynchronous write would cut a long JSON on a pipe. */
function write(text: string): void {
  const bytes = Buffer.from(text.endsWith("\n") ? text : `${text}\n`);
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(1, bytes, done);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === "EPIPE") return;
      if (code !== "EAGAIN") throw error;
    }
  }
}

/** Rows of cells as aligned columns; numbers to the right. The first row is the header. */
export function table(rows: readonly (readonly (string | number)[])[]): string {
  const cells = rows.map((row) => row.map((cell) => (typeof cell === "number" ? formatNumber(cell) : cell)));
  const widths = cells[0].map((_, column) => Math.max(...cells.map((row) => (row[column] ?? "").length)));
  const right = (rows[1] ?? []).map((cell) => typeof cell === "number");
  return cells
    .map((row) =>
      row
        .map((cell, column) => (right[column] ? cell.padStart(widths[column]) : cell.padEnd(widths[column])))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** 12,345 or 1.234: whole numbers in full, others with four significant digits. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return `${value}`;
  return Number.isInteger(value)
    ? value.toLocaleString("en-US")
    : value.toLocaleString("en-US", { maximumSignificantDigits: 4 });
}

/** 1,234,567 -> "1.235 MB" (decimal units, as link speeds are). */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let value = bytes;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${formatNumber(unit === 0 ? value : Number(value.toPrecision(4)))} ${units[unit]}`;
}
