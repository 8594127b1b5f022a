/**
 * Runs passes over rows, on the workers or on the calling thread. A pass is cut into tiles. Arrays that the workers cannot
 * address (memory that is not ours) are staged tile by tile: while the workers are at one tile, the calling thread fills
 * the next and empties the one before. Two tiles are in flight, so that no thread waits for a message.
 */
import { InvalidArgument } from "../../core/errors.ts";
import {
  type Executor,
  LANE_BYTES,
  MAX_ENTRIES,
  makeExecutor,
  type RowsRef,
  type SlabInfo,
  type Task,
} from "./executor.ts";
import { align, type Placement, SlabPool, slabRef } from "./slabs.ts";
import { type SpawnWorker, Workers } from "./workers.ts";

/** Rows of a tile when nothing is staged: large against a message, small against an operation. */
const TILE_BYTES = 64 << 20;
/** What one thread takes at a time. */
const CHUNK_BYTES = 512 << 10;
/** Half of the staging memory of a pass whose slabs have none to spare. */
const STAGING_HALF = 16 << 20;
const NUM_COUNTERS = 2;

/** One array of a pass: addressed in place by `ref`, or staged (always, when there is no ref). */
export interface Operand {
  readonly ref: RowsRef | null;
  /** Bytes per row of the pass. */
  readonly rowBytes: number;
  /** Rows of the staged array per row of the pass (combine: the entries of a token). */
  readonly rowsPerRow?: number;
  /** Writes rows [first, last) before the tile runs. */
  readonly fill?: (first: number, last: number, target: Uint8Array) => void;
  /** Takes them afterwards. */
  readonly drain?: (first: number, last: number, source: Uint8Array) => void;
}

export interface Range {
  readonly first: number;
  readonly last: number;
  readonly chunk: number;
  readonly counter: number;
}

export interface Pass {
  readonly numRows: number;
  /** Bytes read and written per row: sets tiles and chunks. */
  readonly bytesPerRow: number;
  readonly operands: readonly Operand[];
  /** Must not run on workers (an output that only the calling thread can write row by row). */
  readonly here?: boolean;
  /** A slab whose own staging memory lies next to the outputs. */
  readonly stageIn?: { readonly id: number; readonly stagingOffset: number; readonly halfBytes: number };
  /** `refs` are the operands', in place or staged. */
  task(refs: readonly RowsRef[], range: Range): Task;
}

export interface RunOptions {
  readonly numThreads: number;
  readonly progress?: (fraction: number) => void;
}

export interface EngineOptions {
  readonly module: WebAssembly.Module;
  /** 0: everything runs on the calling thread, over ordinary memory. */
  readonly numWorkers: number;
  readonly spawn: SpawnWorker | null;
  readonly maxMemoryBytes: number;
  /** Operations and results of fewer bytes stay on the calling thread and in ordinary arrays. */
  readonly smallBytes: number;
}

export class Engine {
  readonly numWorkers: number;
  readonly smallBytes: number;
  /** Null without workers: then every array is an ordinary one. */
  readonly slabs: SlabPool | null;
  readonly #executor: Executor;
  readonly #workers: Workers | null;
  #control: Int32Array;

  constructor({ module, numWorkers, spawn, maxMemoryBytes, smallBytes }: EngineOptions) {
    this.smallBytes = smallBytes;
    const shared = numWorkers > 0 && spawn !== null;
    this.numWorkers = shared ? numWorkers : 0;
    this.#executor = makeExecutor(module, 0);
    this.#control = newControl(shared, 4096);
    this.#executor.setControl(this.#control);
    this.#executor.addSlab(ownScratch(shared));
    this.slabs = shared
      ? new SlabPool({
          numLanes: numWorkers + 1,
          maxBytes: maxMemoryBytes,
          onAdd: ({ id, memory, scratchOffset }) => {
            this.#executor.addSlab({ id, memory, scratchOffset });
            this.#workers?.tell({ kind: "slab", slab: { id, memory, scratchOffset } });
          },
          onDrop: (id) => {
            this.#executor.dropSlab(id);
            this.#workers?.tell({ kind: "drop", id });
          },
        })
      : null;
    this.#workers = shared
      ? new Workers(numWorkers, module, spawn, () => ({ slabs: this.slabs?.slabs ?? [], control: this.#control }))
      : null;
  }

  startWorkers(): Promise<void> {
    return this.#workers?.start() ?? Promise.resolve();
  }

  /** Writes int32 tables where all threads read them; returns the position of each. Holds until the next call. */
  setTables(tables: readonly Int32Array[]): number[] {
    const words = tables.reduce((sum, table) => sum + table.length, NUM_COUNTERS);
    if (words > this.#control.length) {
      this.#control = newControl(this.#workers !== null, 2 * words);
      this.#executor.setControl(this.#control);
      this.#workers?.tell({ kind: "control", control: this.#control });
    }
    let at = NUM_COUNTERS;
    return tables.map((table) => {
      this.#control.set(table, at);
      at += table.length;
      return at - table.length;
    });
  }

  /** Whether an operation on so many bytes of rows stays on the calling thread. */
  runsHere(bytes: number, { numThreads }: RunOptions): boolean {
    return Math.min(numThreads, this.numWorkers) < 1 || bytes < this.smallBytes;
  }

  async run(passes: readonly Pass[], options: RunOptions): Promise<void> {
    const bytes = passes.reduce((sum, pass) => sum + pass.numRows * pass.bytesPerRow, 0);
    const numThreads = Math.min(options.numThreads, this.numWorkers);
    const here = this.runsHere(bytes, options) || passes.some((pass) => pass.here === true);
    if (!here) await this.startWorkers();
    const staging = new Staging(passes, here, here ? null : this.slabs);
    options.progress?.(0);
    const tiles = [...cut(passes, staging, here ? 1 : numThreads)];
    const inFlight: Promise<void>[] = [];
    let lastYield = Date.now();
    const finish = (index: number) => {
      const { pass, range } = tiles[index];
      staging.drain(pass, range);
      options.progress?.((index + 1) / tiles.length);
    };
    try {
      for (let index = 0; index < tiles.length; index++) {
        const { pass, range } = tiles[index];
        if (index >= NUM_COUNTERS) {
          await inFlight[index - NUM_COUNTERS];
          finish(index - NUM_COUNTERS);
        }
        const task = pass.task(staging.fill(pass, range), range);
        Atomics.store(this.#control, range.counter, 0);
        if (here) {
          this.#executor.run(task);
          inFlight.push(Promise.resolve());
          if (Date.now() - lastYield > 16) {
            await new Promise((resolve) => setTimeout(resolve, 0));
            lastYield = Date.now();
          }
        } else {
          const done = (this.#workers as Workers).run(task, numThreads);
          done.catch(() => {});
          inFlight.push(done);
        }
      }
      for (let index = Math.max(0, tiles.length - NUM_COUNTERS); index < tiles.length; index++) {
        await inFlight[index];
        finish(index);
      }
    } finally {
      await Promise.allSettled(inFlight);
      staging.release();
    }
    if (tiles.length === 0) options.progress?.(1);
  }

  async close(): Promise<void> {
    await this.#workers?.close();
    this.slabs?.close();
  }
}

interface Tile {
  readonly pass: Pass;
  readonly range: Range;
}

function* cut(passes: readonly Pass[], staging: Staging, numThreads: number): Generator<Tile> {
  let index = 0;
  for (const pass of passes) {
    const rows = staging.rowsPerTile(pass);
    for (let first = 0; first < pass.numRows; first += rows) {
      const last = Math.min(pass.numRows, first + rows);
      const fair = Math.ceil((last - first) / (4 * numThreads));
      const chunk = Math.max(1, Math.min(fair, Math.ceil(CHUNK_BYTES / pass.bytesPerRow)));
      yield { pass, range: { first, last, chunk, counter: index++ % NUM_COUNTERS } };
    }
  }
}

/** The two halves of memory that staged arrays pass through. */
class Staging {
  readonly #here: boolean;
  readonly #slabs: SlabPool | null;
  readonly #halfBytes: number;
  readonly #placement: Placement | null;
  readonly #plain: Uint8Array | null;

  constructor(passes: readonly Pass[], here: boolean, slabs: SlabPool | null) {
    this.#here = here;
    this.#slabs = slabs;
    let halfBytes = 0;
    for (const pass of passes) {
      const perRow = this.#bytesPerRow(pass);
      if (perRow === 0 || pass.numRows === 0 || this.#fitsBeside(pass)) continue;
      const padding = pass.operands.length * 64;
      halfBytes = Math.max(halfBytes, Math.min(pass.numRows * perRow, STAGING_HALF) + padding, perRow + padding);
    }
    this.#halfBytes = align(halfBytes);
    this.#placement = halfBytes > 0 && slabs !== null ? slabs.place([2 * this.#halfBytes])[0] : null;
    this.#plain = halfBytes > 0 && slabs === null ? new Uint8Array(2 * this.#halfBytes) : null;
  }

  rowsPerTile(pass: Pass): number {
    const perRow = this.#bytesPerRow(pass);
    const half = this.#fitsBeside(pass) ? (pass.stageIn?.halfBytes ?? 0) : this.#halfBytes;
    const staged = perRow === 0 ? Number.POSITIVE_INFINITY : Math.floor((half - pass.operands.length * 64) / perRow);
    return Math.max(1, Math.min(staged, Math.ceil(TILE_BYTES / pass.bytesPerRow)));
  }

  fill(pass: Pass, range: Range): RowsRef[] {
    const refs = this.#refs(pass, range);
    pass.operands.forEach((operand, i) => {
      if (this.#isStaged(operand))
        operand.fill?.(range.first, range.last, this.#bytesOf(pass, refs[i], operand, range));
    });
    return refs;
  }

  drain(pass: Pass, range: Range): void {
    const refs = this.#refs(pass, range);
    pass.operands.forEach((operand, i) => {
      if (this.#isStaged(operand))
        operand.drain?.(range.first, range.last, this.#bytesOf(pass, refs[i], operand, range));
    });
  }

  release(): void {
    if (this.#placement !== null) this.#slabs?.release(this.#placement);
  }

  #isStaged({ ref }: Operand): boolean {
    return ref === null || (!this.#here && ref.slab < 0);
  }

  #bytesPerRow(pass: Pass): number {
    return pass.operands.reduce((sum, operand) => sum + (this.#isStaged(operand) ? operand.rowBytes : 0), 0);
  }

  #fitsBeside(pass: Pass): boolean {
    if (this.#here || pass.stageIn === undefined) return false;
    return this.#bytesPerRow(pass) + pass.operands.length * 64 <= pass.stageIn.halfBytes;
  }

  #refs(pass: Pass, { first, last, counter }: Range): RowsRef[] {
    const beside = this.#fitsBeside(pass) ? pass.stageIn : undefined;
    let offset = beside
      ? beside.stagingOffset + counter * beside.halfBytes
      : (this.#placement?.offset ?? 0) + counter * this.#halfBytes;
    return pass.operands.map((operand) => {
      if (!this.#isStaged(operand)) return operand.ref as RowsRef;
      const perRow = operand.rowsPerRow ?? 1;
      const place = { offset, firstRow: first * perRow, rowBytes: operand.rowBytes / perRow };
      offset += align((last - first) * operand.rowBytes);
      if (beside) return { slab: beside.id, ...place };
      if (this.#placement) return { ...place, slab: this.#placement.slab.id };
      return { slab: -1, bytes: this.#plain as Uint8Array, ...place };
    });
  }

  #bytesOf(pass: Pass, ref: RowsRef, operand: Operand, { first, last }: Range): Uint8Array {
    const length = (last - first) * operand.rowBytes;
    if (ref.bytes) return ref.bytes.subarray(ref.offset, ref.offset + length);
    const memory = this.#slabs?.memoryOf(ref.slab);
    if (memory === undefined) throw new TypeError(`no slab ${ref.slab} for a pass of ${pass.numRows} rows`);
    return new Uint8Array(memory.buffer, ref.offset, length);
  }
}

/** Throws InvalidArgument for tokens with more entries than a thread has room for. */
export function checkWidth(width: number): void {
  if (width < MAX_ENTRIES) return;
  throw new InvalidArgument({
    name: "topk",
    expected: `fewer than ${MAX_ENTRIES} slots per token on backend wasm`,
    received: `${width}`,
    remedy: "use backend oracle",
  });
}

/** A ref to a whole array: in its slab, or over its own bytes. */
export function rowsRef(slabs: SlabPool | null, bytes: Uint8Array, rowBytes: number): RowsRef {
  const slab = slabs?.ownerOf(bytes.buffer);
  if (slab !== undefined) return slabRef({ slab, offset: bytes.byteOffset }, rowBytes);
  return { slab: -1, bytes, offset: 0, firstRow: 0, rowBytes };
}

function newControl(shared: boolean, words: number): Int32Array {
  return new Int32Array(shared ? new SharedArrayBuffer(words * 4) : new ArrayBuffer(words * 4));
}

/** The memory where the calling thread runs kernels on arrays that lie in no slab. */
function ownScratch(shared: boolean): SlabInfo {
  const pages = 2 + LANE_BYTES / 65536;
  const memory = new WebAssembly.Memory(shared ? { initial: pages, maximum: pages, shared } : { initial: pages });
  return { id: 0, memory, scratchOffset: 65536 };
}
