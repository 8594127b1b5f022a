import { InvalidFile } from "../errors.ts";

/** Comma-separated values with a header line (RFC 4180: quotes, doubled quotes, line breaks inside quotes). */
export function parseCsv(text: string, file: string): Record<string, string>[] {
  const records = splitRecords(text, file);
  const [header, ...rows] = records;
  if (header === undefined) throw tableError(file, 1, "a header line", "an empty file");
  return rows
    .filter((cells) => cells.length > 1 || cells[0] !== "")
    .map((cells, i) => {
      if (cells.length !== header.length) {
        throw tableError(file, i + 2, `${header.length} columns`, `${cells.length}`);
      }
      return Object.fromEntries(header.map((name, column) => [name.trim(), cells[column].trim()]));
    });
}

export function tableError(file: string, row: number, expected: string, received: string): InvalidFile {
  return new InvalidFile({
    name: "table",
    expected,
    received,
    where: { file, row },
    remedy: "see docs/cost-model.md, section 10, for the columns",
  });
}

function splitRecords(text: string, file: string): string[][] {
  const records: string[][] = [];
  let cells: string[] = [];
  let cell = "";
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[i + 1] === '"') cell += text[++i];
      else quoted = false;
    } else if (c === '"' && cell === "") quoted = true;
    else if (c === ",") {
      cells.push(cell);
      cell = "";
    } else if (c === "\n") {
      records.push([...cells, cell.replace(/\r$/, "")]);
      cells = [];
      cell = "";
    } else cell += c;
  }
  if (quoted) throw tableError(file, records.length + 1, "a closing quote", "the end of the file");
  if (cell !== "" || cells.length > 0) records.push([...cells, cell.replace(/\r$/, "")]);
  return records;
}
