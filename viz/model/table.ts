/** The numbers of a view as rows: what the page lists, CSV exports, and tests compare. */
export interface Table {
  readonly title: string;
  /** Column names with their unit. */
  readonly columns: readonly string[];
  readonly rows: readonly (readonly Cell[])[];
  /** How many leading columns name the row (keys when two files are compared); the rest are values. */
  readonly numKeys: number;
}
export type Cell = string | number | null;

/** RFC 4180 CSV, full precision, "\r\n" line ends. */
export function toCsv(table: Table): string {
  const lines = [table.columns, ...table.rows].map((row) => row.map(quote).join(","));
  return `${lines.join("\r\n")}\r\n`;
}

function quote(cell: Cell): string {
  const text = cell === null ? "" : String(cell);
  // A leading = + - @ in text would run as a formula in a spreadsheet.
  const safe = typeof cell === "string" && /^[=+\-@\t]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Two tables side by side by their keys: columns A, B, B - A and log2(B/A) of value column `column`. */
export function compareTables(a: Table, b: Table, column: number, scaleB = 1): Table {
  const key = (row: readonly Cell[]) => JSON.stringify(row.slice(0, a.numKeys));
  const rowsB = new Map(b.rows.map((row) => [key(row), row]));
  const rows: Cell[][] = [];
  const value = (row: readonly Cell[] | undefined, scale: number) => {
    const cell = row?.[column];
    return typeof cell === "number" ? cell * scale : null;
  };
  const add = (keys: readonly Cell[], va: number | null, vb: number | null) => {
    const ratio = va !== null && vb !== null && va > 0 && vb > 0 ? Math.log2(vb / va) : null;
    rows.push([...keys, va, vb, va !== null && vb !== null ? vb - va : null, ratio]);
  };
  for (const row of a.rows) {
    const other = rowsB.get(key(row));
    rowsB.delete(key(row));
    add(row.slice(0, a.numKeys), value(row, 1), value(other, scaleB));
  }
  for (const row of rowsB.values()) add(row.slice(0, a.numKeys), null, value(row, scaleB));
  const name = a.columns[column];
  return {
    title: `${a.title}: ${name}, A and B`,
    columns: [...a.columns.slice(0, a.numKeys), `A ${name}`, `B ${name}`, "B - A", "log2(B/A)"],
    rows,
    numKeys: a.numKeys,
  };
}
