import { InvalidArgument } from "../errors.ts";
import { type LinkHealth, type RowKind, rowBytes, smRowUs } from "./cost.ts";
import type { TrafficCounter } from "./count.ts";
import type { DataPath, Operation } from "./dataPath.ts";
import { ServerNetwork, type Visit } from "./events.ts";
import type { Machine } from "./machine.ts";
import { achieved, type Parameters } from "./parameters.ts";

/** Above this many chunk jobs the closed form is the answer. */
export const MAX_JOBS = 3_000_000;

export interface PipelineInput {
  readonly machine: Machine;
  readonly path: DataPath;
  readonly parameters: Parameters;
  /** Counted with keepPairs. */
  readonly counter: TrafficCounter;
  readonly operation: Operation;
  readonly hidden: number;
  readonly rowKind: RowKind;
  readonly numSms: number;
  /** Pieces that each (source, node) stream is cut into. */
  readonly numChunks: number;
  /** [R] when each rank enters the operation; absent = 0. */
  readonly readyUs?: Float64Array;
  readonly health?: LinkHealth;
  /** One directed pair at a fraction of its speed. */
  readonly slowPair?: { readonly src: number; readonly dst: number; readonly speed: number };
}

export interface PipelineResult {
  readonly operation: Operation;
  /** From the first rank's entry to the last rank's end, without start-up. */
  readonly timeUs: number;
  /** [R] when each rank has everything it waits for. */
  readonly endUs: Float64Array;
  readonly readyUs: Float64Array;
  /** [R, R] how long row waited for column: from its own entry to the arrival of the column's last row; 0 = nothing due. */
  readonly waitUs: Float32Array;
  /** [R] busiest server of each rank. */
  readonly busyUs: Float64Array;
  readonly numJobs: number;
}

const SERVERS = ["nvlinkOut", "nvlinkIn", "nicOut", "nicIn", "sm"] as const;

/**
 * One operation, or several at once that share the links (dispatch of one batch beside combine of another), chunk by
 * chunk through the servers of every rank: SM, NVLink and NIC, each direction apart. Store and forward: a chunk enters a
 * stage when it has left the one before, so one chunk is the serial sum of the stages and many chunks tend to the
 * slowest stage plus the fill (docs/cost-model.md, section 9). Throws InvalidArgument above MAX_JOBS chunks.
 */
export function simulatePipeline(inputs: readonly PipelineInput[]): PipelineResult[] {
  const numRanks = inputs[0].counter.traffic.numRanks;
  const network = new ServerNetwork(numRanks * SERVERS.length + inputs.length);
  const runs = inputs.map((input, i) => new OperationRun(input, network, numRanks * SERVERS.length + i));
  const jobs = runs.reduce((sum, run) => sum + run.countJobs(), 0);
  if (jobs > MAX_JOBS) {
    throw new InvalidArgument({
      name: "events",
      expected: `at most ${MAX_JOBS} chunk transfers`,
      received: `${jobs}`,
      remedy: "lower --chunks or the number of ranks, or leave --events out: the closed form has no such limit",
    });
  }
  for (const run of runs) run.submit();
  network.run();
  return runs.map((run) => run.result(network, jobs));
}

class OperationRun {
  readonly #input: PipelineInput;
  readonly #network: ServerNetwork;
  readonly #pairServer: number;
  readonly #numRanks: number;
  readonly #perNode: number;
  readonly #ready: Float64Array;
  readonly #end: Float64Array;
  readonly #wait: Float32Array;
  readonly #nvlinkUs: Float64Array;
  readonly #nicUs: Float64Array;
  readonly #smUs: number;

  constructor(input: PipelineInput, network: ServerNetwork, pairServer: number) {
    const { traffic } = input.counter;
    this.#input = input;
    this.#network = network;
    this.#pairServer = pairServer;
    this.#numRanks = traffic.numRanks;
    this.#perNode = traffic.ranksPerNode;
    this.#ready = input.readyUs ?? new Float64Array(this.#numRanks);
    this.#end = this.#ready.slice();
    this.#wait = new Float32Array(this.#numRanks ** 2);
    const bytes = rowBytes(input.operation, input.hidden, input.rowKind, input.path);
    const speed = achieved(input.machine, input.parameters, this.#perNode);
    const perRow = (bytesPerUs: number, health: Float64Array | undefined) =>
      Float64Array.from({ length: this.#numRanks }, (_, r) => bytes / (bytesPerUs * (health?.[r] ?? 1)));
    this.#nvlinkUs = perRow(speed.nvlinkBytesPerUs, input.health?.nvlink);
    this.#nicUs = perRow(speed.nicBytesPerUs, input.health?.nic);
    const usesSms = input.path.mode === "throughput" && input.numSms > 0;
    this.#smUs = usesSms ? smRowUs(input, bytes, speed) / input.numSms : 0;
  }

  countJobs(): number {
    return this.#numRanks * this.#numRanks * this.#input.numChunks * 2;
  }

  submit(): void {
    const { path, operation } = this.#input;
    const isRail = path.dedup === "rank" && path.crossNode === "rail";
    if (!isRail) this.#submitDirect();
    else if (operation === "dispatch") this.#submitRailDispatch();
    else this.#submitRailCombine();
  }

  result(network: ServerNetwork, numJobs: number): PipelineResult {
    const busyUs = Float64Array.from({ length: this.#numRanks }, (_, r) =>
      Math.max(...SERVERS.map((_name, i) => network.busyUs[r * SERVERS.length + i])),
    );
    const first = this.#ready.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
    return {
      operation: this.#input.operation,
      timeUs: this.#end.reduce((a, b) => Math.max(a, b), 0) - first,
      endUs: this.#end,
      readyUs: this.#ready,
      waitUs: this.#wait,
      busyUs,
      numJobs,
    };
  }

  #server(rank: number, name: (typeof SERVERS)[number]): number {
    return rank * SERVERS.length + SERVERS.indexOf(name);
  }

  /** Out of one rank, into another, over NVLink or NIC; a slow pair takes longer without holding up its neighbours. */
  #hop(from: number, to: number, rows: number): Visit[] {
    if (from === to || rows === 0) return [];
    const sameNode = Math.floor(from / this.#perNode) === Math.floor(to / this.#perNode);
    const us = sameNode ? this.#nvlinkUs : this.#nicUs;
    const visits = [
      { server: this.#server(from, sameNode ? "nvlinkOut" : "nicOut"), serviceUs: rows * us[from] },
      { server: this.#server(to, sameNode ? "nvlinkIn" : "nicIn"), serviceUs: rows * us[to] },
    ];
    const slow = this.#input.slowPair;
    if (slow && slow.src === from && slow.dst === to) {
      visits.splice(1, 0, { server: this.#pairServer, serviceUs: (rows * us[from]) / slow.speed });
    }
    return visits;
  }

  #sm(rank: number, rows: number): Visit[] {
    return this.#smUs === 0 || rows === 0 ? [] : [{ server: this.#server(rank, "sm"), serviceUs: rows * this.#smUs }];
  }

  /** `waiter` has received all that `source` sends up to `timeUs`. */
  #arrived(waiter: number, source: number, timeUs: number): void {
    const cell = waiter * this.#numRanks + source;
    const waited = Math.max(0, timeUs - this.#ready[waiter]);
    if (waited > this.#wait[cell]) this.#wait[cell] = waited;
    if (timeUs > this.#end[waiter]) this.#end[waiter] = timeUs;
  }

  /** Every message straight to its rank: low latency (slots), or plain all-to-all (rows). */
  #submitDirect(): void {
    const { counter, path, operation, numChunks } = this.#input;
    const pairs = (path.dedup === "none" ? counter.pairSlots : counter.pairRows) as Int32Array;
    for (let chunk = 0; chunk < numChunks; chunk++) {
      for (let offset = 0; offset < this.#numRanks; offset++) {
        for (let from = 0; from < this.#numRanks; from++) {
          const to = (from + offset) % this.#numRanks;
          const [src, dst] = operation === "dispatch" ? [from, to] : [to, from];
          const rows = pairs[src * this.#numRanks + dst] / numChunks;
          if (rows === 0) continue;
          const visits = [...this.#sm(from, rows), ...this.#hop(from, to, rows)];
          this.#network.submit(this.#ready[from], visits, (timeUs) => this.#arrived(to, from, timeUs));
        }
      }
    }
  }

  /** Source -> rail stop on each node (NIC) -> ranks of that node (NVLink). */
  #submitRailDispatch(): void {
    const { numChunks, path } = this.#input;
    const serial = path.overlap === "serial";
    for (let chunk = 0; chunk < numChunks; chunk++) {
      this.#eachStream((src, stop, node, nodeRows) => {
        const visits = this.#hop(src, stop, nodeRows / numChunks);
        const forward = (timeUs: number) => this.#forward(src, stop, node, nodeRows, timeUs);
        if (!serial) this.#network.submit(this.#ready[src], visits, forward);
        else this.#serially(src, stop, visits, forward);
      });
    }
  }

  readonly #pending = new Map<number, { waiting: number; lastUs: number; forwards: ((timeUs: number) => void)[] }>();

  /** Serial paths: a rail stop forwards nothing before everything has reached it. */
  #serially(src: number, stop: number, visits: readonly Visit[], forward: (timeUs: number) => void): void {
    const state = this.#pending.get(stop) ?? { waiting: 0, lastUs: 0, forwards: [] };
    this.#pending.set(stop, state);
    state.waiting++;
    state.forwards.push(forward);
    this.#network.submit(this.#ready[src], visits, (timeUs) => {
      state.lastUs = Math.max(state.lastUs, timeUs);
      if (--state.waiting === 0) for (const start of state.forwards) start(state.lastUs);
    });
  }

  #forward(src: number, stop: number, node: number, nodeRows: number, timeUs: number): void {
    const { numChunks, counter } = this.#input;
    const pairRows = counter.pairRows as Int32Array;
    const first = node * this.#perNode;
    for (let offset = 0; offset < this.#perNode; offset++) {
      const dst = first + ((stop - first + offset) % this.#perNode);
      const rows = pairRows[src * this.#numRanks + dst] / numChunks;
      if (rows === 0) continue;
      // The stop reads the node's row once and writes one row per rank: each write carries its share of the reads.
      const reads = (nodeRows / numChunks) * (rows / this.#rowsToNode(src, node)) * numChunks;
      const visits = [...this.#sm(stop, rows + reads), ...this.#hop(stop, dst, rows)];
      // A rail stop that has not entered the operation yet forwards nothing.
      const startUs = Math.max(timeUs, this.#ready[stop]);
      this.#network.submit(startUs, visits, (arrivedUs) => this.#arrived(dst, src, arrivedUs));
    }
  }

  /** Expert ranks -> rail stop of their node (NVLink, summed there) -> source (NIC). */
  #submitRailCombine(): void {
    const { numChunks, counter } = this.#input;
    const pairRows = counter.pairRows as Int32Array;
    for (let chunk = 0; chunk < numChunks; chunk++) {
      this.#eachStream((src, stop, node, nodeRows) => {
        const first = node * this.#perNode;
        let missing = 0;
        let lastUs = 0;
        const parts: (() => void)[] = [];
        for (let offset = 0; offset < this.#perNode; offset++) {
          const dst = first + ((stop - first + this.#perNode - offset) % this.#perNode);
          const rows = pairRows[src * this.#numRanks + dst] / numChunks;
          if (rows === 0) continue;
          missing++;
          const visits = [...this.#hop(dst, stop, rows), ...this.#sm(stop, rows)];
          parts.push(() =>
            this.#network.submit(this.#ready[dst], visits, (timeUs) => {
              lastUs = Math.max(lastUs, timeUs);
              this.#arrived(src, dst, timeUs);
              if (--missing > 0) return;
              const rest = [...this.#sm(stop, nodeRows / numChunks), ...this.#hop(stop, src, nodeRows / numChunks)];
              this.#network.submit(Math.max(lastUs, this.#ready[stop]), rest, (endUs) => {
                // The summed row names no single rank: it counts as the wait for the rail stop.
                this.#arrived(src, stop, endUs);
              });
            }),
          );
        }
        for (const start of parts) start();
      });
    }
  }

  #rowsToNode(src: number, node: number): number {
    const pairRows = this.#input.counter.pairRows as Int32Array;
    let rows = 0;
    for (let i = 0; i < this.#perNode; i++) rows += pairRows[src * this.#numRanks + node * this.#perNode + i];
    return rows;
  }

  /** Each (source, node) with rows, rotated so that not all sources start with the same node. */
  #eachStream(visit: (src: number, stop: number, node: number, nodeRows: number) => void): void {
    const nodes = this.#numRanks / this.#perNode;
    const nodeRows = this.#input.counter.pairNodeRows as Int32Array;
    for (let offset = 0; offset < nodes; offset++) {
      for (let src = 0; src < this.#numRanks; src++) {
        const node = (Math.floor(src / this.#perNode) + offset) % nodes;
        const rows = nodeRows[src * nodes + node];
        if (rows > 0) visit(src, node * this.#perNode + (src % this.#perNode), node, rows);
      }
    }
  }
}
