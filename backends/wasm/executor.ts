/**
 * What runs a part of an operation on one thread: on a worker (workers.ts sends this function as text) or on the calling
 * thread. It therefore refers to nothing outside itself but types.
 *
 * Rows live in slabs, WebAssembly memories that kernels address directly, or in plain buffers (calling thread only), which
 * pass through the lane's scratch. Work is taken in chunks from a shared counter; no two chunks write one row.
 */

/** A [rows, rowBytes] array: `slab` names a memory, or `bytes` holds it. Row `firstRow` lies at `offset`. */
export interface RowsRef {
  readonly slab: number;
  readonly bytes?: Uint8Array;
  readonly offset: number;
  readonly firstRow: number;
  readonly rowBytes: number;
}

export interface SlabInfo {
  readonly id: number;
  readonly memory: WebAssembly.Memory;
  /** Where the scratch areas of the lanes begin. */
  readonly scratchOffset: number;
}

interface TaskBase {
  /** Rows or tokens [first, last) in chunks of `chunk`. */
  readonly first: number;
  readonly last: number;
  readonly chunk: number;
  /** Index into the control array of the counter that hands out chunks. */
  readonly counter: number;
}

/** Control array positions of the send lists ([numTokens, width], -1 fills the end of a token's entries). */
interface SendLists {
  readonly sendRank: number;
  readonly sendRow: number;
  readonly width: number;
}

export type Task = TaskBase &
  (
    | ({ readonly op: "dispatch"; readonly x: RowsRef; readonly out: readonly RowsRef[] } & SendLists)
    | { readonly op: "zero"; readonly out: RowsRef; readonly rows: number }
    | ({
        readonly op: "combine";
        /** Per destination rank, or one staged array whose row is the index of the entry. */
        readonly x: readonly RowsRef[];
        readonly staged: boolean;
        readonly bias: readonly RowsRef[];
        readonly out: RowsRef;
        readonly dtype: string;
        readonly ranksPerNode: number;
        readonly oneNode: boolean;
      } & SendLists)
    | {
        readonly op: "scale" | "toFp8" | "fromFp8";
        readonly dtype: string;
        readonly x: RowsRef;
        /** scale: [rows] factors; fromFp8: [rows, blocks]; toFp8: written. */
        readonly scales: RowsRef;
        readonly out: RowsRef;
        readonly width: number;
      }
  );

export interface Executor {
  addSlab(slab: SlabInfo): void;
  dropSlab(id: number): void;
  setControl(control: Int32Array): void;
  run(task: Task): void;
}

/** Bytes of one lane's scratch: [tables of addresses | tails | staged rows]. */
export const LANE_BYTES = 1 << 20;

/** Entries of one token that a lane's scratch has room for, in the worst case of a row each from another memory. */
export const MAX_ENTRIES = 1024;

interface Kernels {
  [name: string]: (...args: number[]) => void;
}

/** `lane` numbers the thread; `slabs` beside the lane's own are shared with other threads. */
export function makeExecutor(module: WebAssembly.Module, lane: number): Executor {
  const laneBytes = 1 << 20;
  const tableBytes = 1 << 18;
  const tableWords = 1 << 14;
  const tailBytes = 1 << 16;
  const stageBytes = laneBytes - tableBytes - tailBytes;
  const slabs = new Map<number, Lane>();
  let control: Int32Array = new Int32Array(0);

  interface Lane {
    readonly id: number;
    readonly memory: WebAssembly.Memory;
    readonly kernels: Kernels;
    readonly table: number;
    readonly stage: number;
    bytes: Uint8Array;
    words: Uint32Array;
  }

  function laneOf(id: number): Lane {
    const slab = slabs.get(id) as Lane;
    if (slab.bytes.byteLength !== slab.memory.buffer.byteLength) refresh(slab);
    return slab;
  }

  function refresh(slab: Lane): void {
    slab.bytes = new Uint8Array(slab.memory.buffer);
    slab.words = new Uint32Array(slab.memory.buffer);
  }

  function bytesAt(ref: RowsRef): Uint8Array {
    return ref.slab < 0 ? (ref.bytes as Uint8Array) : laneOf(ref.slab).bytes;
  }

  function addressOf(ref: RowsRef, row: number): number {
    return ref.offset + (row - ref.firstRow) * ref.rowBytes;
  }

  /** Makes `count` bytes at `from` of `ref` readable in `slab`: their address there, or a copy at `scratch`. */
  function bring(slab: Lane, ref: RowsRef, from: number, count: number, scratch: number): number {
    if (ref.slab === slab.id) return from;
    slab.bytes.set(bytesAt(ref).subarray(from, from + count), scratch);
    return scratch;
  }

  /** The slab where the kernels of a task run: the first slab that one of its arrays lies in, or the lane's own. */
  function home(...refs: readonly RowsRef[]): Lane {
    for (const ref of refs) if (ref.slab >= 0) return laneOf(ref.slab);
    return laneOf(0);
  }

  function dispatch(task: Task & { op: "dispatch" }, first: number, last: number): void {
    const { x, out, width } = task;
    const { rowBytes } = x;
    for (let token = first; token < last; token++) {
      const end = (token + 1) * width;
      const from = addressOf(x, token);
      let entry = token * width;
      while (entry < end && control[task.sendRank + entry] >= 0) {
        const target = out[control[task.sendRank + entry]];
        if (target.slab < 0) {
          const at = addressOf(target, control[task.sendRow + entry++]);
          (target.bytes as Uint8Array).set(bytesAt(x).subarray(from, from + rowBytes), at);
          continue;
        }
        const slab = laneOf(target.slab);
        let count = 0;
        for (; entry < end && control[task.sendRank + entry] >= 0; entry++) {
          const ref = out[control[task.sendRank + entry]];
          if (ref.slab !== target.slab) break;
          slab.words[(slab.table >> 2) + count++] = addressOf(ref, control[task.sendRow + entry]);
        }
        for (let piece = 0; piece < rowBytes; piece += stageBytes) {
          const bytes = Math.min(stageBytes, rowBytes - piece);
          const source = bring(slab, x, from + piece, bytes, slab.stage);
          slab.kernels.scatter(source, slab.table, count, bytes);
          if (bytes < rowBytes) for (let i = 0; i < count; i++) slab.words[(slab.table >> 2) + i] += bytes;
        }
      }
    }
  }

  function zero(task: Task & { op: "zero" }, first: number, last: number): void {
    const bytes = bytesAt(task.out);
    for (let i = first; i < last; i++) {
      const at = addressOf(task.out, control[task.rows + i]);
      if (task.out.slab >= 0) laneOf(task.out.slab).kernels.zero(at, task.out.rowBytes);
      else bytes.fill(0, at, at + task.out.rowBytes);
    }
  }

  function combine(task: Task & { op: "combine" }, first: number, last: number): void {
    const { x, bias, out, width, staged } = task;
    const { rowBytes } = x[0];
    const kernel = `sum${task.dtype}`;
    const rankAt = (entry: number, end: number) => (entry < end ? control[task.sendRank + entry] : -1);
    const nodeOf = (rank: number) => (rank < 0 ? -1 : Math.floor(rank / task.ranksPerNode));
    for (let token = first; token < last; token++) {
      const begin = token * width;
      let end = begin;
      while (end < begin + width && control[task.sendRank + end] >= 0) end++;
      const refOf = (entry: number) => (staged ? x[0] : x[control[task.sendRank + entry]]);
      const slab = end > begin ? home(refOf(begin), out) : home(out);
      const { words, kernels } = slab;
      // Rows of other memories and partial sums take room; a token that needs more than there is goes by columns.
      let numStaged = 1 + bias.length;
      for (let entry = begin; entry < end; entry++) {
        const rank = rankAt(entry, end);
        if (refOf(entry).slab !== slab.id) numStaged++;
        if (rankAt(entry + 1, end) === rank) numStaged++;
        if (!task.oneNode) numStaged++;
      }
      const pieceBytes = Math.min(rowBytes, Math.floor(stageBytes / numStaged / 64 - 2) * 64);
      const stride = Math.ceil(pieceBytes / 64 + 1) * 64;
      for (let piece = 0; piece < rowBytes; piece += pieceBytes) {
        const bytes = Math.min(pieceBytes, rowBytes - piece);
        let free = slab.stage;
        const place = (ref: RowsRef, row: number) => {
          const from = addressOf(ref, row) + piece;
          if (ref.slab === slab.id) return from;
          free += stride;
          return bring(slab, ref, from, bytes, free - stride);
        };
        // Lists of addresses: what the total, the node and the ranks add; and the steps that sum them.
        const total = slab.table >> 2;
        const node = total + tableWords;
        const ranks = node + tableWords;
        const program = ranks + tableWords;
        let step = program;
        let freeNode = node;
        let freeRank = ranks;
        const sum = (firstRow: number, endRow: number, target: number) => {
          words[step++] = firstRow << 2;
          words[step++] = endRow << 2;
          words[step++] = target;
        };
        const partial = (firstRow: number, endRow: number) => {
          sum(firstRow, endRow, free);
          free += stride;
          return free - stride;
        };
        let endTotal = total;
        for (const ref of bias) words[endTotal++] = place(ref, token);
        let entry = begin;
        while (entry < end) {
          const thisNode = nodeOf(rankAt(entry, end));
          const firstOfNode = freeNode;
          while (entry < end && (task.oneNode || nodeOf(rankAt(entry, end)) === thisNode)) {
            const thisRank = rankAt(entry, end);
            const firstOfRank = freeRank;
            for (; rankAt(entry, end) === thisRank; entry++) {
              words[freeRank++] = place(refOf(entry), staged ? entry : control[task.sendRow + entry]);
            }
            // A single row is its own sum: rounding it again changes nothing that the next sum would see.
            const row = freeRank - firstOfRank > 1 ? partial(firstOfRank, freeRank) : words[firstOfRank];
            if (task.oneNode) words[endTotal++] = row;
            else words[freeNode++] = row;
          }
          if (task.oneNode) break;
          words[endTotal++] = freeNode - firstOfNode > 1 ? partial(firstOfNode, freeNode) : words[firstOfNode];
        }
        const to = addressOf(out, token) + piece;
        const target = out.slab === slab.id ? to : free;
        const last = step;
        sum(total, endTotal, target);
        kernels[kernel](program << 2, last << 2, bytes);
        if (out.slab !== slab.id) bytesAt(out).set(slab.bytes.subarray(target, target + bytes), to);
      }
    }
  }

  /** One kernel call per row; arrays of other memories go through the stage in pieces of whole 128-column blocks. */
  function rowwise(task: Task & { op: "scale" | "toFp8" | "fromFp8" }, first: number, last: number): void {
    const { op, x, scales, out, width, dtype } = task;
    const slab = home(x, out);
    const inBytes = x.rowBytes / width;
    const outItem = out.rowBytes / width;
    const whole = x.slab === slab.id && out.slab === slab.id;
    const step = whole ? Math.ceil(width / 128) * 128 : 1 << 15;
    const name = op === "fromFp8" ? op : op + dtype;
    const kernel = slab.kernels[name];
    const factors = new DataView(bytesAt(scales).buffer, bytesAt(scales).byteOffset);
    const scaleRow = slab.table;
    for (let row = first; row < last; row++) {
      for (let column = 0; column < width; column += step) {
        const columns = Math.min(step, width - column);
        const source = bring(slab, x, addressOf(x, row) + column * inBytes, columns * inBytes, slab.stage);
        const to = addressOf(out, row) + column * outItem;
        const inPlace = out.slab === slab.id;
        const target = inPlace ? to : slab.stage + (1 << 18);
        const blocks = Math.ceil(columns / 128) * 4;
        const scaleAt = addressOf(scales, row) + (column / 128) * 4;
        if (op === "scale") {
          kernel(source, target, columns * inBytes, factors.getFloat32(addressOf(scales, row), true));
        } else if (op === "toFp8") {
          kernel(source, target, scaleRow, columns);
          bytesAt(scales).set(slab.bytes.subarray(scaleRow, scaleRow + blocks), scaleAt);
        } else {
          kernel(source, bring(slab, scales, scaleAt, blocks, scaleRow), target, columns);
        }
        if (!inPlace) bytesAt(out).set(slab.bytes.subarray(target, target + columns * outItem), to);
      }
    }
  }

  return {
    addSlab(info) {
      const base = info.scratchOffset + lane * laneBytes;
      const kernels = new WebAssembly.Instance(module, {
        env: {
          memory: info.memory,
          abort() {
            throw new Error("kernel aborted");
          },
        },
      }).exports as unknown as Kernels;
      kernels.setTail(base + tableBytes);
      kernels.setScratch(base + tableBytes + 4096);
      const slab: Lane = {
        id: info.id,
        memory: info.memory,
        kernels,
        table: base,
        stage: base + tableBytes + tailBytes,
        bytes: new Uint8Array(0),
        words: new Uint32Array(0),
      };
      refresh(slab);
      slabs.set(info.id, slab);
    },
    dropSlab(id) {
      slabs.delete(id);
    },
    setControl(value) {
      control = value;
    },
    run(task) {
      const { first, last, chunk, counter } = task;
      for (;;) {
        const from = first + Atomics.add(control, counter, chunk);
        if (from >= last) return;
        const to = Math.min(last, from + chunk);
        if (task.op === "dispatch") dispatch(task, from, to);
        else if (task.op === "zero") zero(task, from, to);
        else if (task.op === "combine") combine(task, from, to);
        else rowwise(task, from, to);
      }
    },
  };
}
