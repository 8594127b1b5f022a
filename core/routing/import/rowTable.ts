import { invalidFile } from "./options.ts";
import type { LayerData, LayerSource } from "./routingFile.ts";

/** Numbers appended one by one, in a typed array that doubles. */
class Growing<A extends Int32Array | Float32Array> {
  #data: A;
  length = 0;
  readonly #make: (length: number) => A;

  constructor(make: (length: number) => A) {
    this.#make = make;
    this.#data = make(1024);
  }

  push(value: number): void {
    if (this.length === this.#data.length) {
      const larger = this.#make(2 * this.length);
      larger.set(this.#data);
      this.#data = larger;
    }
    this.#data[this.length++] = value;
  }

  values(): A {
    return this.#data.subarray(0, this.length) as A;
  }
}

const ints = () => new Growing((length) => new Int32Array(length));

interface LayerRows {
  readonly ids: Growing<Int32Array>;
  readonly weights: Growing<Float32Array>;
  /** End of each row in ids. */
  readonly ends: Growing<Int32Array>;
  readonly lines: Growing<Int32Array>;
  readonly keys: SeenKeys;
  weighted: boolean;
}

/**
 * Rows of text formats, collected per layer in the order of the file. Rows shorter than the longest are filled with -1
 * (weight 0): not every router chooses the same number of experts for every token.
 */
export class RowTable {
  readonly #file: string;
  readonly #layers = new Map<number, LayerRows>();
  #topk = 0;

  constructor(file: string) {
    this.#file = file;
  }

  /** `key` identifies the token within the layer, where the format has such a thing. */
  add(
    layer: number,
    ids: readonly unknown[],
    weights: readonly unknown[] | null,
    line: number,
    key?: { group: string; index: number },
  ): void {
    const rows = this.#rowsOf(layer);
    for (const id of ids) {
      if (!Number.isInteger(id) || (id as number) < -(2 ** 31) || (id as number) >= 2 ** 31) {
        throw invalidFile(this.#file, `line ${line}`, "expert ids that are whole numbers", `${JSON.stringify(id)}`);
      }
      rows.ids.push(id as number);
    }
    if (weights === null) rows.weighted = false;
    else if (weights.length !== ids.length) {
      throw invalidFile(this.#file, `line ${line}`, `${ids.length} weights, one per expert`, `${weights.length}`);
    }
    for (let i = 0; i < ids.length; i++) {
      const weight = weights?.[i];
      rows.weights.push(typeof weight === "number" ? weight : Number.NaN);
    }
    rows.ends.push(rows.ids.length);
    rows.lines.push(line);
    if (key !== undefined) rows.keys.add(key.group, key.index);
    this.#topk = Math.max(this.#topk, ids.length);
  }

  get numRows(): number {
    return [...this.#layers.values()].reduce((sum, rows) => sum + rows.ends.length, 0);
  }

  /** The layers' numbers, ascending. */
  get layerNames(): string[] {
    return this.#sorted().map(([layer]) => `${layer}`);
  }

  source(topk = Math.max(1, this.#topk)): LayerSource {
    const layers = this.#sorted().map(([, rows]) => rows);
    return {
      numLayers: layers.length,
      numTokens: layers.reduce((most, rows) => Math.max(most, rows.ends.length), 0),
      topk,
      layer: async (index) => padRows(layers[index], topk),
    };
  }

  #sorted(): [number, LayerRows][] {
    return [...this.#layers].sort(([a], [b]) => a - b);
  }

  #rowsOf(layer: number): LayerRows {
    let rows = this.#layers.get(layer);
    if (rows === undefined) {
      const weights = new Growing((length) => new Float32Array(length));
      rows = { ids: ints(), weights, ends: ints(), lines: ints(), keys: new SeenKeys(), weighted: true };
      this.#layers.set(layer, rows);
    }
    return rows;
  }
}

function padRows(rows: LayerRows, topk: number): LayerData {
  const ends = rows.ends.values();
  const ids = new Int32Array(ends.length * topk).fill(-1);
  const weights = rows.weighted ? new Float32Array(ends.length * topk) : null;
  const [allIds, allWeights] = [rows.ids.values(), rows.weights.values()];
  for (let row = 0, begin = 0; row < ends.length; begin = ends[row++]) {
    ids.set(allIds.subarray(begin, ends[row]), row * topk);
    weights?.set(allWeights.subarray(begin, ends[row]), row * topk);
  }
  return { ids, weights, lines: rows.lines.values(), numRepeatedKeys: rows.keys.numRepeated };
}

/** Counts keys (group, index) that come again: a bit per index, because indices are dense. */
class SeenKeys {
  readonly #groups = new Map<string, Uint8Array>();
  numRepeated = 0;

  add(group: string, index: number): void {
    // Indices past 2^26 would cost more memory than the question is worth.
    if (!(index >= 0 && index < 2 ** 26)) return;
    let bits = this.#groups.get(group);
    if (bits === undefined || bits.length <= index >> 3) {
      const larger = new Uint8Array(Math.max(64, 2 * (index >> 3)));
      if (bits) larger.set(bits);
      bits = larger;
      this.#groups.set(group, bits);
    }
    const bit = 1 << (index & 7);
    if (bits[index >> 3] & bit) this.numRepeated++;
    else bits[index >> 3] |= bit;
  }
}
