/**
 * From a wait matrix to words. waitUs[r * R + s] = how long rank r waited for data of rank s, from r's own entry into the
 * operation (row waits for column). The shapes of faults (docs/cost-model.md, section 9):
 *   a column         everybody waits for s: s is late, or everything leaves s slowly. A late rank itself waits less
 *                    than the others (its row is low); a slow sender's row is as long as everybody's.
 *   a row            r waits for everybody: r's ingress is slow, or it receives more than the others
 *   parts of both    only across nodes: r's NIC; only within its node: r's NVLink
 *   a cell           one directed link
 */
export type RankFault = "late-rank" | "slow-sender" | "slow-nvlink" | "slow-nic" | "slow-receiver";

export type Finding =
  | {
      readonly kind: RankFault;
      readonly rank: number;
      readonly excessUs: number;
      /** A rank that the waits cannot tell apart from it: with two nodes, the other end of the rail. */
      readonly orRank?: number;
    }
  | { readonly kind: "slow-link"; readonly src: number; readonly dst: number; readonly excessUs: number }
  | SlowRank
  | SlowPath;

/** A rank that came late to the steps in the middle of an operation (stalls.ts); like SlowPath from measured messages. */
export interface SlowRank {
  readonly kind: "slow-rank";
  readonly rank: number;
  readonly excessUs: number;
}

/** The network from one node to another, all rails of it. Found in measured messages (paths.ts), not in a wait matrix. */
export interface SlowPath {
  readonly kind: "slow-path";
  readonly srcNode: number;
  readonly dstNode: number;
  /** How many times the usual: of two nodes the way back, else what is usual between the others. */
  readonly times: number;
  /** A message this way, and the usual one. */
  readonly messageUs: number;
  readonly usualUs: number;
  readonly excessUs: number;
  /** Or the way back, or both: nothing that was measured tells. */
  readonly orBack?: boolean;
}

/** What a wait matrix alone can show. */
export type WaitFinding = Exclude<Finding, SlowPath | SlowRank>;

export interface Diagnosis {
  readonly findings: readonly Finding[];
  /** One sentence per finding, or one that says that nothing stands out. */
  readonly words: readonly string[];
  /** Typical wait, and the excess from which on a wait counts as unusual. */
  readonly typicalUs: number;
  readonly thresholdUs: number;
}

export interface DiagnoseOptions {
  readonly numRanks: number;
  readonly ranksPerNode: number;
  /** What a healthy run would wait (simulated, or from bytes): subtracted first, so that uneven routing is no fault. */
  readonly expectedUs?: ArrayLike<number>;
  /** Everybody entered at the same time: nobody is late, whatever the waits look like. */
  readonly arrivedTogether?: boolean;
  /** Excess that counts, as a fraction of the typical wait; default 0.2. */
  readonly sensitivity?: number;
  /** Smaller excess never counts, and explains nothing; default 0. */
  readonly leastUs?: number;
}

const NOISE_SIGMAS = 6;

/** Explains one wait matrix ([R, R]; the diagonal is ignored). Deterministic; the strongest cause first. */
export function diagnose(waitUs: ArrayLike<number>, options: DiagnoseOptions): Diagnosis {
  const matrix = new Excess(waitUs, options);
  const findings: WaitFinding[] = [];
  const explained = new Set<number>();
  for (let round = 0; round < options.numRanks; round++) {
    const finding = strongest(matrix, explained);
    if (finding === null) break;
    findings.push(finding);
    if (finding.kind === "slow-link") matrix.forgetLink(finding.src, finding.dst);
    else {
      explained.add(finding.rank);
      matrix.forgetRank(finding.rank);
    }
  }
  const words = findings.map(inWords);
  if (words.length === 0) {
    words.push(
      `no rank or link stands out: no wait is more than ${matrix.thresholdUs.toFixed(1)} us above what is typical (${matrix.typicalUs.toFixed(1)} us)`,
    );
  }
  return { findings, words, typicalUs: matrix.typicalUs, thresholdUs: matrix.thresholdUs };
}

function inWords(finding: WaitFinding): string {
  const by = `${finding.excessUs.toFixed(1)} us`;
  switch (finding.kind) {
    case "late-rank":
      return `rank ${finding.rank} is late by about ${by}: everybody waits for it and it waits for nobody`;
    case "slow-sender":
      return `rank ${finding.rank} sends slowly: its data arrive ${by} later everywhere, and it was not late itself`;
    case "slow-receiver":
      return `rank ${finding.rank} receives slowly, or receives more than the others: it waits ${by} longer for everybody`;
    case "slow-nic": {
      const nic =
        finding.orRank === undefined
          ? `of rank ${finding.rank}`
          : `of rank ${finding.rank} or of its rail partner ${finding.orRank}`;
      return `the NIC ${nic} is slow: waits across nodes through it are ${by} longer, inside its node they are not`;
    }
    case "slow-nvlink":
      return `the NVLink of rank ${finding.rank} is slow: waits inside its node from and to it are ${by} longer`;
    case "slow-link":
      return `the link ${finding.src} -> ${finding.dst} is slow: rank ${finding.dst} waits ${by} longer for rank ${finding.src} than others do`;
  }
}

/** The waits less what is expected, and what of that is unusual. */
class Excess {
  readonly numRanks: number;
  readonly perNode: number;
  readonly arrivedTogether: boolean;
  readonly typicalUs: number;
  readonly thresholdUs: number;
  /** Typical waits inside a node and across nodes; NaN when there are none. */
  nearUs = Number.NaN;
  farUs = Number.NaN;
  readonly #values: Float64Array;
  readonly #waitUs: ArrayLike<number>;

  constructor(waitUs: ArrayLike<number>, options: DiagnoseOptions) {
    this.#waitUs = waitUs;
    this.numRanks = options.numRanks;
    this.perNode = options.ranksPerNode;
    this.arrivedTogether = options.arrivedTogether ?? false;
    const n = this.numRanks;
    this.#values = Float64Array.from({ length: n * n }, (_, i) => waitUs[i] - (options.expectedUs?.[i] ?? 0));
    for (let r = 0; r < n; r++) this.#values[r * n + r] = Number.NaN;
    const inside = (near: boolean) =>
      [...this.#values.keys()].filter((i) => {
        const [r, s] = [Math.floor(i / n), i % n];
        return r !== s && this.sameNode(r, s) === near;
      });
    // Waits inside a node and across nodes have their own typical value.
    for (const near of [true, false]) {
      const cells = inside(near);
      const middle = median(cells.map((i) => this.#values[i]));
      for (const i of cells) this.#values[i] -= middle;
      const typical = median(cells.map((i) => waitUs[i]));
      if (near) this.nearUs = typical;
      else this.farUs = typical;
    }
    const off = [...inside(true), ...inside(false)];
    const spread = 1.4826 * median(off.map((i) => Math.abs(this.#values[i])));
    this.typicalUs = n === 1 ? 0 : median(off.map((i) => waitUs[i]));
    const sensitivity = options.sensitivity ?? 0.2;
    const noiseUs = NOISE_SIGMAS * (n === 1 ? 0 : spread);
    this.thresholdUs = Math.max(noiseUs, sensitivity * this.typicalUs, options.leastUs ?? 0);
  }

  /** Median excess over the cells that `include` names; NaN when there are none. */
  over(include: (row: number, column: number) => boolean): number {
    const n = this.numRanks;
    const found: number[] = [];
    for (let r = 0; r < n; r++) {
      for (let s = 0; s < n; s++) {
        const value = this.#values[r * n + s];
        if (!Number.isNaN(value) && include(r, s)) found.push(value);
      }
    }
    return median(found);
  }

  /** A late rank waits less for the others by as much as it is late, wherever it still waits; null where it never does. */
  lateness(rank: number): number | null {
    const still = [...Array(this.numRanks).keys()].filter(
      (s) => s !== rank && this.#waitUs[rank * this.numRanks + s] > 0.25 * this.typicalUs && this.at(rank, s) < 0,
    );
    return still.length < 3 ? null : -median(still.map((s) => this.at(rank, s)));
  }

  at(row: number, column: number): number {
    return this.#values[row * this.numRanks + column];
  }

  forget(row: number, column: number): void {
    this.#values[row * this.numRanks + column] = Number.NaN;
  }

  /** The cell, and those whose rows pass the link on their way from other nodes. */
  forgetLink(src: number, dst: number): void {
    for (let other = 0; other < this.numRanks; other++) {
      if (other === src || (this.sameNode(src, dst) && this.sameRail(other, src))) this.forget(dst, other);
    }
  }

  /** Row, column, and the cells that the rank's NIC serves as a rail stop. */
  forgetRank(rank: number): void {
    for (let other = 0; other < this.numRanks; other++) {
      this.forget(rank, other);
      this.forget(other, rank);
      for (let row = 0; row < this.numRanks; row++) {
        if (this.sameNode(row, rank) && this.sameRail(other, rank)) this.forget(row, other);
      }
    }
  }

  sameNode(a: number, b: number): boolean {
    return Math.floor(a / this.perNode) === Math.floor(b / this.perNode);
  }

  sameRail(a: number, b: number): boolean {
    return a % this.perNode === b % this.perNode;
  }
}

/** Faults that explain more waits come first, whatever their size: they cause what the others would be blamed for. */
const PRIORITY: readonly RankFault[] = ["late-rank", "slow-sender", "slow-nvlink", "slow-nic", "slow-receiver"];

function strongest(matrix: Excess, explained: ReadonlySet<number>): WaitFinding | null {
  const found: (WaitFinding & { kind: RankFault })[] = [];
  for (let rank = 0; rank < matrix.numRanks; rank++) {
    const finding = explained.has(rank) ? null : explainRank(matrix, rank);
    if (finding) found.push(finding);
  }
  // The margin keeps equal evidence with the lower rank whatever the last bits say.
  found.sort((a, b) => {
    const byKind = PRIORITY.indexOf(a.kind) - PRIORITY.indexOf(b.kind);
    if (byKind !== 0) return byKind;
    const isEqual = Math.abs(a.excessUs - b.excessUs) < 0.02 * Math.max(a.excessUs, b.excessUs);
    return isEqual ? a.rank - b.rank : b.excessUs - a.excessUs;
  });
  return found[0] ?? strongestLink(matrix);
}

function strongestLink(matrix: Excess): WaitFinding | null {
  let best: WaitFinding | null = null;
  let most = matrix.thresholdUs;
  for (let dst = 0; dst < matrix.numRanks; dst++) {
    for (let column = 0; column < matrix.numRanks; column++) {
      const excessUs = matrix.at(dst, column);
      if (!(excessUs > most)) continue;
      most = excessUs;
      // Rows of other nodes come through the rail stop on this node: if its own rows are late too, the last hop is slow.
      const stop = dst - (dst % matrix.perNode) + (column % matrix.perNode);
      const src = stop !== dst && matrix.at(dst, stop) > matrix.thresholdUs ? stop : column;
      best = { kind: "slow-link", src, dst, excessUs };
    }
  }
  return best;
}

/** What a rank's column, row and rail say together. */
function explainRank(matrix: Excess, rank: number): (WaitFinding & { kind: RankFault }) | null {
  if (matrix.numRanks === 1) return null;
  const isMultiNode = matrix.numRanks > matrix.perNode;
  const near = (other: number) => matrix.sameNode(other, rank);
  const sendNear = matrix.over((row, column) => column === rank && near(row));
  const sendFar = matrix.over((row, column) => column === rank && !near(row));
  const recvNear = matrix.over((row, column) => row === rank && near(column));
  const recvFar = matrix.over((row, column) => row === rank && !near(column));
  // As the rail stop of its node: the node's ranks wait for sources of the same rail on other nodes.
  const railIn = matrix.over((row, column) => near(row) && !near(column) && matrix.sameRail(column, rank));
  const high = (value: number) => value > matrix.thresholdUs;
  const highOrNone = (value: number) => high(value) || Number.isNaN(value);
  const excess = (...values: number[]) => Math.max(...values.filter((value) => !Number.isNaN(value)));
  if (highOrNone(sendNear) && highOrNone(sendFar) && (high(sendNear) || high(sendFar))) {
    const excessUs = excess(sendNear, sendFar);
    const low = (value: number, typical: number) => Number.isNaN(value) || value <= -0.5 * Math.min(excessUs, typical);
    if (!matrix.arrivedTogether && low(recvNear, matrix.nearUs) && low(recvFar, matrix.farUs)) {
      return { kind: "late-rank", rank, excessUs: matrix.lateness(rank) ?? excessUs };
    }
    return { kind: !isMultiNode && high(recvNear) ? "slow-nvlink" : "slow-sender", rank, excessUs };
  }
  if (high(sendNear)) return { kind: "slow-nvlink", rank, excessUs: excess(sendNear, recvNear) };
  if (high(sendFar) || (high(railIn) && !high(recvNear))) {
    const partner = matrix.numRanks === 2 * matrix.perNode ? (rank + matrix.perNode) % matrix.numRanks : undefined;
    return { kind: "slow-nic", rank, excessUs: excess(sendFar, railIn), orRank: partner };
  }
  if (highOrNone(recvNear) && highOrNone(recvFar) && (high(recvNear) || high(recvFar))) {
    return { kind: "slow-receiver", rank, excessUs: excess(recvNear, recvFar) };
  }
  return null;
}

function median(values: number[]): number {
  if (values.length === 0) return Number.NaN;
  const sorted = values.sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
