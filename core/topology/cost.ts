import type { DataPath, ExposedPass, Operation } from "./dataPath.ts";
import type { Machine } from "./machine.ts";
import { type Achieved, achieved, type Parameters } from "./parameters.ts";
import { reversed, type Traffic } from "./traffic.ts";

/**
 * What a time contains. "main": the kernel that crosses the links, without copy or reduce passes around it. "kernels":
 * with them. "call": the whole API call, with launches, counts, host synchronisation and metadata exchange.
 */
export type Scope = "main" | "kernels" | "call";
export const SCOPES: readonly Scope[] = ["main", "kernels", "call"];

export type RowKind = "bf16" | "fp16" | "fp32" | "fp8";
export const ROW_KINDS: readonly RowKind[] = ["bf16", "fp16", "fp32", "fp8"];

/** Speed of each rank's links relative to a healthy one; absent = 1. */
export interface LinkHealth {
  readonly nvlink?: Float64Array;
  readonly nic?: Float64Array;
}

export interface CostInput {
  readonly machine: Machine;
  readonly path: DataPath;
  readonly parameters: Parameters;
  /** Dispatch's counts, for both operations. */
  readonly traffic: Traffic;
  readonly operation: Operation;
  readonly hidden: number;
  /** Of dispatch; combine's rows are never fp8. */
  readonly rowKind: RowKind;
  readonly topk: number;
  readonly numExperts: number;
  readonly numSms: number;
  readonly scope: Scope;
  readonly health?: LinkHealth;
  /** Replays a handle: nothing about the routing is exchanged. */
  readonly isCached?: boolean;
  /** False leaves the formulas out: a fit asks a hundred thousand times. */
  readonly explains?: boolean;
}

export type TermName = "network" | "nvlink" | "sm" | "epilogue" | "metadata" | "start" | "call";

export interface Term {
  readonly name: TermName;
  readonly timeUs: number;
  /** Bytes (or rows, for "sm") behind the time, of the rank that takes longest. */
  readonly amount: number;
  /** The rank that takes longest; -1 when all are alike. */
  readonly rank: number;
  readonly direction: "out" | "in" | "both" | "";
  readonly formula: string;
}

export interface OperationCost {
  readonly operation: Operation;
  readonly timeUs: number;
  readonly terms: readonly Term[];
  /** The term that sets the time of the main kernel. */
  readonly bottleneck: Term;
  readonly rowBytes: number;
  /** Time of the main kernel on each rank's own links and SMs: what it moves itself, without waiting for others. */
  readonly rankUs: Float64Array;
  /** Wire bytes per rank: only what crosses the link in question. */
  readonly nvlinkOutBytes: Float64Array;
  readonly nvlinkInBytes: Float64Array;
  readonly nicOutBytes: Float64Array;
  readonly nicInBytes: Float64Array;
  /** Logical bytes, mean over ranks: rows per (token, rank), per (token, node), and slots, own ones included. */
  readonly logical: { readonly nvlink: number; readonly rdma: number; readonly messages: number };
}

/** Bytes of one row on a link: fp8 carries one float32 scale per 128 columns; a low-latency fp8 message a 16 B header. */
export function rowBytes(operation: Operation, hidden: number, rowKind: RowKind, path: DataPath): number {
  if (rowKind === "fp32") return 4 * hidden;
  if (rowKind !== "fp8" || operation === "combine") return 2 * hidden;
  return hidden + 4 * Math.ceil(hidden / 128) + (path.mode === "low-latency" ? 16 : 0);
}

/** The model of docs/cost-model.md for one operation: every term, the time, and what binds. */
export function operationCost(input: CostInput): OperationCost {
  const { path, parameters, operation, scope } = input;
  const traffic = operation === "combine" ? reversed(input.traffic) : input.traffic;
  const speed = achieved(input.machine, parameters, traffic.ranksPerNode);
  const bytes = rowBytes(operation, input.hidden, input.rowKind, path);
  const rows = linkRows(path, traffic);
  const explains = input.explains ?? true;
  const nvlink = linkTerm("nvlink", rows, bytes, speed.nvlinkBytesPerUs, input.health?.nvlink, explains);
  const network = linkTerm("network", rows, bytes, speed.nicBytesPerUs, input.health?.nic, explains);
  const sm = smTerm(input, traffic, bytes, speed);
  const terms: Term[] = [nvlink, network, sm].filter((term) => term !== null && term.timeUs > 0).map(asTerm);
  const main = mainTime(path, parameters, nvlink.timeUs, network.timeUs, sm?.timeUs ?? 0);
  const bottleneck = terms.reduce((a, b) => (b.timeUs > a.timeUs ? b : a), asTerm(nvlink));
  const added = [startTerm(path, parameters)];
  if (scope !== "main") added.push(epilogueTerm(input, bytes, speed));
  if (scope === "call" && path.mode === "throughput") added.push(...callTerms(input, speed));
  const ofRank = (term: RankedTerm | null, r: number) => term?.ranksUs[r] ?? 0;
  const rankUs = nvlink.ranksUs.map((us, r) => mainTime(path, parameters, us, ofRank(network, r), ofRank(sm, r)));
  const scale = (values: Float64Array) => values.map((value) => value * bytes);
  const mean = (values: Float64Array) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return {
    operation,
    timeUs: main + added.reduce((sum, term) => sum + term.timeUs, 0),
    terms: [...terms, ...added.filter((term) => term.timeUs > 0)],
    bottleneck,
    rowBytes: bytes,
    rankUs,
    nvlinkOutBytes: scale(rows.nvlinkOut),
    nvlinkInBytes: scale(rows.nvlinkIn),
    nicOutBytes: scale(rows.nicOut),
    nicInBytes: scale(rows.nicIn),
    logical: {
      nvlink: mean(input.traffic.recvRows) * bytes,
      rdma: mean(input.traffic.nodeRows) * bytes,
      messages: mean(input.traffic.sendSlots) * bytes,
    },
  };
}

/**
 * Section 5: what of the shorter stages shows. Between nodes a chunked pipeline shows chunkedHopLoss of the second longest
 * of its three stages, a serial one adds its hops up, a queued one hides the shorter hop. Elsewhere smOverlapLoss of the
 * shorter of links and SMs shows. Low-latency kernels use every SM, and both links at once.
 */
export function mainTime(
  path: DataPath,
  parameters: Parameters,
  nvlinkUs: number,
  networkUs: number,
  smUs: number,
): number {
  const twoHops = networkUs > 0 && nvlinkUs > 0;
  if (twoHops && path.overlap === "chunked") {
    const [first, second] = [nvlinkUs, networkUs, smUs].sort((a, b) => b - a);
    return first + parameters.chunkedHopLoss * second;
  }
  const links = path.overlap === "serial" ? nvlinkUs + networkUs : Math.max(nvlinkUs, networkUs);
  return Math.max(links, smUs) + parameters.smOverlapLoss * Math.min(links, smUs);
}

interface LinkRows {
  readonly nvlinkOut: Float64Array;
  readonly nvlinkIn: Float64Array;
  readonly nicOut: Float64Array;
  readonly nicIn: Float64Array;
}

/** Which counts cross which link on this path. */
export function linkRows(path: DataPath, t: Traffic): LinkRows {
  if (path.dedup === "none") {
    return { nvlinkOut: t.slotNvlinkOut, nvlinkIn: t.slotNvlinkIn, nicOut: t.slotNicOut, nicIn: t.slotNicIn };
  }
  if (path.crossNode === "direct") {
    return { nvlinkOut: t.directNvlinkOut, nvlinkIn: t.directNvlinkIn, nicOut: t.directNicOut, nicIn: t.directNicIn };
  }
  return { nvlinkOut: t.railNvlinkOut, nvlinkIn: t.railNvlinkIn, nicOut: t.railNicOut, nicIn: t.railNicIn };
}

/** A term with its time on every rank. */
interface RankedTerm extends Term {
  readonly ranksUs: Float64Array;
}

function asTerm(term: RankedTerm | null): Term {
  const { ranksUs: _, ...rest } = term as RankedTerm;
  return rest;
}

function linkTerm(
  name: "nvlink" | "network",
  rows: LinkRows,
  bytes: number,
  bytesPerUs: number,
  health: Float64Array | undefined,
  explains: boolean,
): RankedTerm {
  const [out, into] = name === "nvlink" ? [rows.nvlinkOut, rows.nvlinkIn] : [rows.nicOut, rows.nicIn];
  const ranksUs = out.map((sent, r) => {
    const most = Math.max(sent, into[r]) * bytes;
    return most === 0 ? 0 : most / (bytesPerUs * (health?.[r] ?? 1));
  });
  const rank = indexOfLargest(ranksUs);
  const amount = Math.max(out[rank], into[rank]) * bytes;
  const isUniform = out.length === 1;
  const direction = out[rank] === into[rank] ? "both" : out[rank] > into[rank] ? "out" : "in";
  const link = name === "nvlink" ? "NVLink" : "NIC";
  const slowed = health && health[rank] !== 1 ? ` x ${health[rank]}` : "";
  return {
    name,
    timeUs: ranksUs[rank],
    amount,
    rank: isUniform ? -1 : rank,
    direction,
    formula: explains
      ? `max over ranks of max(${link} out, in) = ${mb(amount)} MB / ${(bytesPerUs / 1e3).toFixed(1)} GB/s${slowed}`
      : "",
    ranksUs,
  };
}

/** Section 4: SM time of the rank with the most rows to read and to write. Null where every SM takes part. */
function smTerm(input: CostInput, traffic: Traffic, bytes: number, speed: Achieved): RankedTerm | null {
  const { path, numSms } = input;
  if (path.mode === "low-latency" || numSms === 0) return null;
  const perRowUs = smRowUs(input, bytes, speed);
  const isRail = path.crossNode === "rail";
  const oneNode = traffic.numRanks === traffic.ranksPerNode;
  const work = traffic.numTokens.map((tokens, r) => {
    const reads = isRail && !oneNode ? traffic.railReads[r] : tokens;
    return reads + Math.max(isRail ? traffic.railWrites[r] : traffic.sendRows[r], traffic.recvRows[r]);
  });
  // Rows with scales make the senders of a wide domain look at every rank's bit of the routing map.
  const scans = path.gathersRoutingMap && oneNode && input.rowKind === "fp8" && input.operation === "dispatch";
  const scanUs = scans ? traffic.numRanks * input.parameters.scanNs * 1e-3 : 0;
  const ranksUs = work.map((rows, r) => Math.max(rows * perRowUs, traffic.numTokens[r] * scanUs) / numSms);
  const rank = indexOfLargest(ranksUs);
  const scanned = traffic.numTokens[rank] * scanUs > work[rank] * perRowUs;
  return {
    name: "sm",
    timeUs: ranksUs[rank],
    amount: work[rank],
    rank: work.length === 1 ? -1 : rank,
    direction: "",
    formula:
      input.explains === false
        ? ""
        : scanned
          ? `tokens x ranks x scanNs / SMs = ${traffic.numTokens[rank]} x ${traffic.numRanks} x ${input.parameters.scanNs.toFixed(0)} ns / ${numSms}`
          : `(rows read + written) x time per row / SMs = ${Math.round(work[rank])} x ${(perRowUs * 1e3).toFixed(0)} ns / ${numSms}`,
    ranksUs,
  };
}

/** Time of one SM for one row read or written, in microseconds. */
export function smRowUs(
  input: Pick<CostInput, "path" | "parameters" | "operation">,
  bytes: number,
  speed: Pick<Achieved, "smSpeed">,
): number {
  const { path, parameters: p, operation } = input;
  const [rowNs, bytePs] = path.engine === "bulk" ? [p.bulkRowNs, p.bulkBytePs] : [p.loadStoreRowNs, p.loadStoreBytePs];
  const reduces = path.engine === "load-store" && operation === "combine" ? p.ringReduceFactor : 1;
  return ((rowNs + bytePs * 1e-3 * bytes) * 1e-3 * reduces) / speed.smSpeed;
}

function indexOfLargest(values: Float64Array): number {
  let at = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[at]) at = i;
  return at;
}

function startTerm(path: DataPath, parameters: Parameters): Term {
  const low = path.mode === "low-latency";
  return {
    name: "start",
    timeUs: low ? parameters.lowLatencyStartUs : parameters.kernelStartUs,
    amount: 0,
    rank: -1,
    direction: "",
    formula: low ? "lowLatencyStartUs" : "kernelStartUs",
  };
}

/** Section 7: HBM bytes outside the overlapped kernel, on the rank with the most of them. */
function epilogueTerm(input: CostInput, bytes: number, speed: Achieved): Term {
  const pass = input.path.epilogue[input.operation];
  const t = input.traffic;
  let most = 0;
  let rank = -1;
  for (let r = 0; r < t.recvRows.length; r++) {
    const rows = exposedRows(pass, input.operation, t, r);
    if (rows > most) [most, rank] = [rows, r];
  }
  return {
    name: "epilogue",
    timeUs: (most * bytes) / speed.hbmBytesPerUs,
    amount: most * bytes,
    rank: t.recvRows.length === 1 ? -1 : rank,
    direction: "",
    formula:
      input.explains === false
        ? ""
        : `${pass}: ${mb(most * bytes)} MB / ${(speed.hbmBytesPerUs / 1e3).toFixed(0)} GB/s of HBM`,
  };
}

/** Row passes of one rank, in dispatch's counts: recvRows arrive at it, its own tokens' rows come back in combine. */
function exposedRows(pass: ExposedPass, operation: Operation, t: Traffic, r: number): number {
  const atExperts = t.recvRows[r];
  const atSource = t.sendRows[r];
  switch (pass) {
    case "none":
      return 0;
    case "fill":
      return t.multiRows[r] + (t.recvSlots[r] - atExperts);
    case "copy":
      return 2 * (operation === "dispatch" ? atExperts : atSource);
    case "expand":
      return atExperts + t.recvSlots[r];
    case "final-reduce":
      return atSource + t.numTokens[r];
    case "pre-reduce":
      return t.recvSlots[r] + atExperts;
  }
}

/** Section 8: what a throughput call adds; a low-latency call is its kernel. The routing map crosses the NICs of a node once, then its NVLink. */
function callTerms(input: CostInput, speed: Achieved): Term[] {
  const { path, parameters, traffic, operation, numExperts } = input;
  const { numRanks, ranksPerNode } = traffic;
  const nodes = numRanks / ranksPerNode;
  const call = parameters.callUs + (nodes > 1 ? parameters.networkCallUs : 0);
  const terms: Term[] = [
    {
      name: "call",
      timeUs: call,
      amount: 0,
      rank: -1,
      direction: "",
      formula: nodes > 1 ? "callUs + networkCallUs" : "callUs",
    },
  ];
  if (path.gathersRoutingMap && operation === "dispatch" && !input.isCached) {
    const tokens = traffic.numTokens.reduce((a, b) => Math.max(a, b), 0);
    const bytes = numRanks * tokens * numExperts;
    const network = nodes > 1 ? (bytes * (nodes - 1)) / nodes / (ranksPerNode * speed.nicBytesPerUs) : 0;
    terms.push({
      name: "metadata",
      timeUs: network + bytes / speed.nvlinkBytesPerUs,
      amount: bytes,
      rank: -1,
      direction: "",
      formula: `all-gather of R T E = ${mb(bytes)} MB over the node's NICs, then NVLink`,
    });
  }
  return terms;
}

function mb(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}
