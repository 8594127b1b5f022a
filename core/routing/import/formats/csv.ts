import type { ByteSource } from "../../../io/bytes.ts";
import { readLines } from "../lines.ts";
import { invalidFile, type OpenRoutingOptions } from "../options.ts";

/** Calls `row` with the whole numbers of each line of a CSV file whose header was recognised. */
export async function readNumbers(
  source: ByteSource,
  options: OpenRoutingOptions,
  numColumns: number,
  row: (values: readonly number[], line: number) => void,
): Promise<void> {
  let isHeader = true;
  for await (const { line, number } of readLines(source, options.progress)) {
    if (isHeader) {
      isHeader = false;
      continue;
    }
    const values = line.split(",").map((cell) => (cell.trim() === "" ? Number.NaN : Number(cell)));
    if (values.length !== numColumns || !values.every((value) => Number.isSafeInteger(value) && value >= 0)) {
      throw invalidFile(source.name, `line ${number}`, `${numColumns} whole numbers of at least 0`, line.slice(0, 60));
    }
    row(values, number);
  }
}

/** The header's columns, without spaces and quotes. */
export function columns(line: string): string {
  return line.replace(/[\s"]/g, "").toLowerCase();
}

/** Loads of layers and experts that come in any order; both must stay below 2^20, or the file is not what it seems. */
export class LoadTable {
  readonly #file: string;
  readonly #layers = new Map<number, Float64Array>();

  constructor(file: string) {
    this.#file = file;
  }

  add(layer: number, expert: number, count: number, line: number): void {
    if (layer >= 2 ** 20 || expert >= 2 ** 20) {
      throw invalidFile(this.#file, `line ${line}`, "layer and expert below 1048576", `${layer}, ${expert}`);
    }
    let loads = this.#layers.get(layer);
    if (loads === undefined || loads.length <= expert) {
      const larger = new Float64Array(Math.max(expert + 1, 2 * (loads?.length ?? 0)));
      if (loads) larger.set(loads);
      loads = larger;
      this.#layers.set(layer, loads);
    }
    loads[expert] += count;
  }

  /** Layers ascending, each as long as the largest expert of all needs (at least `numExperts`). */
  finish(numExperts = 1): { layerNames: string[]; loads: Float64Array[] } {
    const sorted = [...this.#layers].sort(([a], [b]) => a - b);
    let width = numExperts;
    for (const [, loads] of sorted) width = Math.max(width, loads.findLastIndex((load) => load > 0) + 1);
    const loads = sorted.map(([, values]) => {
      const layer = new Float64Array(width);
      layer.set(values.subarray(0, Math.min(width, values.length)));
      return layer;
    });
    return { layerNames: sorted.map(([layer]) => `${layer}`), loads };
  }
}
