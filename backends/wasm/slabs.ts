/**
 * Memory that all threads address: slabs, each one WebAssembly memory of at most 4 GiB. What does not fit into one slab goes
 * on in the next, so that the data of an operation may exceed 4 GiB. A slab belongs to the arrays of one request at a time.
 *
 * Slabs are recycled, because fresh pages cost several times the work on them. The arrays handed out are views of a clone
 * of the memory's buffer; when the garbage collector has taken that clone no view is left, and the slab is free again.
 */
import { OutOfMemory } from "../../core/errors.ts";
import { LANE_BYTES, type RowsRef, type SlabInfo } from "./executor.ts";

const PAGE = 65536;
const MAX_PAGES = 65536;
/** Kernels read up to one block past the end of a row. */
const END_PADDING = 256;
const ALIGNMENT = 64;
/** Two halves for rows that the calling thread stages right where they are needed. */
export const STAGING_BYTES = 8 << 20;

export interface Slab extends SlabInfo {
  readonly stagingOffset: number;
  readonly dataOffset: number;
  pages: number;
  user: WeakRef<SharedArrayBuffer> | null;
}

/** Where one array was placed. `buffer` is the clone that keeps the slab taken. */
export interface Placement {
  readonly slab: Slab;
  readonly buffer: SharedArrayBuffer;
  readonly offset: number;
}

export interface SlabOptions {
  /** Threads that need scratch in every slab, the calling one included. */
  readonly numLanes: number;
  readonly maxBytes: number;
  readonly onAdd: (slab: SlabInfo) => void;
  readonly onDrop: (id: number) => void;
}

export function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

export class SlabPool {
  readonly #options: SlabOptions;
  readonly #slabs = new Map<number, Slab>();
  readonly #owners = new WeakMap<ArrayBufferLike, Slab>();
  /** Shared memory does not weigh on the collector: an untouched buffer of the same size does it in its stead. */
  readonly #weights = new WeakMap<SharedArrayBuffer, ArrayBuffer>();
  #nextId = 1;

  constructor(options: SlabOptions) {
    this.#options = options;
  }

  get slabs(): Iterable<SlabInfo> {
    return this.#slabs.values();
  }

  /** Largest array that fits into a slab. */
  get maxArrayBytes(): number {
    return MAX_PAGES * PAGE - this.#dataOffset() - END_PADDING;
  }

  /** Places arrays of the given sizes, in order, into as few slabs as possible. Contents are undefined. */
  place(sizes: readonly number[]): Placement[] {
    const groups: number[][] = [[]];
    let used = 0;
    for (const size of sizes) {
      if (used + align(size) > this.maxArrayBytes && used > 0) {
        groups.push([]);
        used = 0;
      }
      used += align(size);
      groups[groups.length - 1].push(size);
    }
    return groups.flatMap((group) => this.#placeTogether(group));
  }

  /** The slab behind a buffer that `place` handed out. */
  ownerOf(buffer: ArrayBufferLike): Slab | undefined {
    return this.#owners.get(buffer);
  }

  memoryOf(id: number): WebAssembly.Memory | undefined {
    return this.#slabs.get(id)?.memory;
  }

  /** The arrays of a placement are no longer used: no need to wait for the collector. */
  release(placement: Placement): void {
    placement.slab.user = null;
  }

  close(): void {
    for (const id of this.#slabs.keys()) this.#options.onDrop(id);
    this.#slabs.clear();
  }

  #placeTogether(sizes: readonly number[]): Placement[] {
    const bytes = sizes.reduce((sum, size) => sum + align(size), 0);
    const slab = this.#take(bytes);
    const buffer = structuredClone<ArrayBufferLike>(slab.memory.buffer) as SharedArrayBuffer;
    slab.user = new WeakRef(buffer);
    this.#owners.set(buffer, slab);
    this.#weigh(buffer, bytes);
    let offset = slab.dataOffset;
    return sizes.map((size) => {
      const placement = { slab, buffer, offset };
      offset += align(size);
      return placement;
    });
  }

  #weigh(buffer: SharedArrayBuffer, bytes: number): void {
    try {
      this.#weights.set(buffer, new ArrayBuffer(bytes));
    } catch {
      // Too large for one buffer: the collector then runs later than it could.
    }
  }

  #dataOffset(): number {
    return PAGE + this.#options.numLanes * LANE_BYTES + STAGING_BYTES;
  }

  /** A free slab of at least `bytes`: the smallest that is large enough, the largest grown, or a new one. */
  #take(bytes: number): Slab {
    const pages = Math.ceil((this.#dataOffset() + bytes + END_PADDING) / PAGE);
    const free = [...this.#slabs.values()].filter((slab) => slab.user === null || slab.user.deref() === undefined);
    free.sort((a, b) => a.pages - b.pages);
    const fits = free.find((slab) => slab.pages >= pages);
    if (fits) return fits;
    const largest = free.at(-1);
    this.#reserve((pages - (largest?.pages ?? 0)) * PAGE, free.slice(0, -1));
    return largest ? this.#grow(largest, pages) : this.#create(pages);
  }

  #grow(slab: Slab, pages: number): Slab {
    try {
      slab.memory.grow(pages - slab.pages);
    } catch (cause) {
      throw this.#outOfMemory(pages * PAGE, cause);
    }
    slab.pages = pages;
    return slab;
  }

  #create(pages: number): Slab {
    let memory: WebAssembly.Memory;
    try {
      memory = new WebAssembly.Memory({ initial: pages, maximum: MAX_PAGES, shared: true });
    } catch (cause) {
      throw this.#outOfMemory(pages * PAGE, cause);
    }
    const stagingOffset = PAGE + this.#options.numLanes * LANE_BYTES;
    const slab: Slab = {
      id: this.#nextId++,
      memory,
      scratchOffset: PAGE,
      stagingOffset,
      dataOffset: stagingOffset + STAGING_BYTES,
      pages,
      user: null,
    };
    this.#slabs.set(slab.id, slab);
    this.#options.onAdd(slab);
    return slab;
  }

  /** Keeps all slabs within maxBytes, dropping free ones first. */
  #reserve(bytes: number, droppable: readonly Slab[]): void {
    let total = bytes;
    for (const slab of this.#slabs.values()) total += slab.pages * PAGE;
    for (const slab of droppable) {
      if (total <= this.#options.maxBytes) return;
      total -= slab.pages * PAGE;
      this.#slabs.delete(slab.id);
      this.#options.onDrop(slab.id);
    }
    if (total > this.#options.maxBytes) throw this.#outOfMemory(bytes, undefined);
  }

  #outOfMemory(bytes: number, cause: unknown): OutOfMemory {
    const mib = (value: number) => `${Math.ceil(value / 2 ** 20)} MiB`;
    let total = 0;
    for (const slab of this.#slabs.values()) total += slab.pages * PAGE;
    return new OutOfMemory(
      {
        name: "memory",
        expected: `${mib(bytes)} more (maxMemoryBytes ${mib(this.#options.maxBytes)})`,
        received: `${mib(total)} in use`,
        remedy: "drop or reuse earlier results (out), raise maxMemoryBytes, or take fewer tokens",
      },
      { cause },
    );
  }
}

/** A placed [rows, rowBytes] array as kernels see it. */
export function slabRef(placement: Pick<Placement, "slab" | "offset">, rowBytes: number): RowsRef {
  return { slab: placement.slab.id, offset: placement.offset, firstRow: 0, rowBytes };
}
