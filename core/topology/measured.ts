/**
 * Who waited for whom, from the phases of a run over several processes. Arrival (who came late to an operation) and
 * transfer (whose rows came late once everybody was there) are measured apart, so that a slow rank and a slow link are not
 * mistaken for each other; who came late because rows came slowly before is not late.
 */
import type { Phase } from "../backend.ts";
import { type Diagnosis, diagnose, type Finding, type SlowPath } from "./diagnose.ts";
import { latenessUs } from "./lateness.ts";
import { ARRIVAL_PHASE, type Message, messagesOf } from "./messages.ts";
import { asksForOneWay, type PathOptions, slowPaths } from "./paths.ts";
import { stalls, withoutAlone } from "./stalls.ts";

interface Shape {
  readonly numRanks: number;
  readonly ranksPerNode: number;
}

/** [R, R] microseconds, row waits for column, as one array each. */
export interface MeasuredWaits {
  readonly arrivalUs: Float32Array;
  readonly transferUs: Float32Array;
  /** The sum of both: a trace's `wait_us`. */
  readonly waitUs: Float32Array;
  /** Of the arrival, what the column's rank answers for. */
  readonly latenessUs: Float32Array;
  /** [R]: how long each rank kept others waiting in the middle of an operation. */
  readonly keptUs: Float64Array;
  readonly messages: readonly Message[];
  /** Time of the busiest rank, without the waits for others to come: what is small beside it is no fault. */
  readonly busyUs: number;
}

/** Share of the busiest rank's time that a fault costs at least. */
const SENSITIVITY = 0.2;

/** Adds up the phases that name the rank they wait for. `phases`: of all ranks. */
export function measureWaits(phases: readonly Phase[], { numRanks, ranksPerNode }: Shape): MeasuredWaits {
  const arrivalUs = new Float32Array(numRanks * numRanks);
  for (const { rank, name, srcRank, durationUs } of phases) {
    if (name === ARRIVAL_PHASE && srcRank !== undefined) arrivalUs[rank * numRanks + srcRank] += durationUs;
  }
  const direct = new Float32Array(numRanks * numRanks);
  const messages = messagesOf(phases);
  for (const { srcRank, rank, us } of messages) direct[rank * numRanks + srcRank] += us;
  const transferUs = Float32Array.from(direct, (us, i) => {
    const [rank, srcRank] = [Math.floor(i / numRanks), i % numRanks];
    const stop = rank - (rank % ranksPerNode) + (srcRank % ranksPerNode);
    if (rank === srcRank || Math.floor(rank / ranksPerNode) === Math.floor(srcRank / ranksPerNode)) return us;
    // Rows of other nodes come over the rail to the rank of the source's index here, then over NVLink.
    return direct[stop * numRanks + srcRank] + (stop === rank ? 0 : direct[rank * numRanks + stop]);
  });
  const busy = new Float64Array(numRanks);
  const stalled = stalls(phases, numRanks);
  for (const phase of phases) {
    if (phase.rank >= 0 && !phase.waiting && phase.name !== ARRIVAL_PHASE)
      busy[phase.rank] += withoutAlone(phase, stalled);
  }
  const waitUs = transferUs.map((us, i) => us + arrivalUs[i]);
  const late = latenessUs(phases, numRanks);
  return {
    arrivalUs,
    transferUs,
    waitUs,
    latenessUs: late,
    keptUs: stalled.keptUs,
    messages,
    busyUs: Math.max(...busy),
  };
}

/** Whether dispatches that send one way would tell more: the layer alone does not show which direction was slow. */
export function needsOneWay(waits: MeasuredWaits, shape: Shape): boolean {
  return asksForOneWay(waits.messages, shape, SENSITIVITY * waits.busyUs);
}

/** Which rank was late, and which rank, link or path between nodes slow. */
export function explainWaits(
  waits: MeasuredWaits,
  shape: Shape,
  { oneWay, numRowsTo }: Omit<PathOptions, "leastUs"> = {},
): Diagnosis {
  const leastUs = SENSITIVITY * waits.busyUs;
  const paths = slowPaths(waits.messages, shape, { oneWay, numRowsTo, leastUs });
  const transfers = diagnose(withoutPaths(waits.transferUs, paths, shape), {
    ...shape,
    arrivedTogether: true,
    leastUs,
  });
  const excesses = [...paths, ...transfers.findings].map(({ excessUs }) => SENSITIVITY * excessUs);
  const strongestUs = Math.max(leastUs, ...excesses);
  const isSlow = ({ excessUs }: { readonly excessUs: number }) => excessUs > strongestUs;
  const slow = transfers.findings.map(isSlow);
  const slowest = paths.filter(isSlow);
  const late = lateRanks(waits, shape.numRanks, leastUs);
  const stopped = [...waits.keptUs]
    .map((latenessUs, rank) => ({ rank, latenessUs }))
    .filter(({ latenessUs }) => latenessUs > strongestUs);
  const findings: Finding[] = [
    ...late.map(({ rank, latenessUs }) => ({ kind: "late-rank" as const, rank, excessUs: latenessUs })),
    ...stopped.map(({ rank, latenessUs }) => ({ kind: "slow-rank" as const, rank, excessUs: latenessUs })),
    ...slowest,
    ...transfers.findings.filter((_, i) => slow[i]),
  ];
  const words = [
    ...blocks(late).map(inWords),
    ...blocks(stopped).map(keptInWords),
    ...slowest.map((path) => pathInWords(path, shape)),
    ...transfers.words.filter((_, i) => slow[i]),
  ];
  if (words.length === 0) {
    words.push(`no rank was late and no link slow by more than ${(strongestUs / 1e3).toFixed(2)} ms`);
  }
  return { ...transfers, findings, words };
}

/** What is left for ranks, NICs and links to explain. Both directions of a pair that shares its steps took as long. */
function withoutPaths(transferUs: Float32Array, paths: readonly SlowPath[], { numRanks, ranksPerNode }: Shape) {
  const rest = Float32Array.from(transferUs);
  const nodeOf = (rank: number) => Math.floor(rank / ranksPerNode);
  const isBoth = (path: SlowPath) => 2 * Math.abs(path.srcNode - path.dstNode) * ranksPerNode === numRanks;
  for (let i = 0; i < rest.length; i++) {
    const [dstNode, srcNode] = [nodeOf(Math.floor(i / numRanks)), nodeOf(i % numRanks)];
    const path = paths.find(
      (one) =>
        (one.srcNode === srcNode && one.dstNode === dstNode) ||
        (isBoth(one) && one.srcNode === dstNode && one.dstNode === srcNode),
    );
    rest[i] = Math.max(0, rest[i] - (path?.excessUs ?? 0));
  }
  return rest;
}

function pathInWords(path: SlowPath, { numRanks, ranksPerNode }: Shape): string {
  const { srcNode, dstNode, times, messageUs, usualUs, excessUs } = path;
  const ms = (us: number) => (us / 1e3).toFixed(us < 1e4 ? 2 : 1);
  const beside = numRanks === 2 * ranksPerNode ? "the other way" : "between other nodes";
  const who = path.orBack
    ? `between node ${srcNode} and node ${dstNode}, one way or both,`
    : `from node ${srcNode} to node ${dstNode}`;
  const figures = `${ms(messageUs)} ms a message, ${ms(usualUs)} ms ${beside}; ${ms(excessUs)} ms of this layer`;
  return `rows ${who} take ${times.toFixed(times < 10 ? 1 : 0)} times as long as ${beside} (${figures}): look at that network path`;
}

function inWords({ ranks, latenessUs }: Block): string {
  return `${who(ranks)} came ${(latenessUs / 1e3).toFixed(1)} ms late: the others waited for that before any row moved`;
}

function keptInWords({ ranks, latenessUs }: Block): string {
  return `${who(ranks)} kept others waiting for ${(latenessUs / 1e3).toFixed(1)} ms in the middle of an operation: look at what that process did`;
}

function who(ranks: readonly number[]): string {
  return ranks.length === 1 ? `rank ${ranks[0]}` : `ranks ${ranks[0]}..${ranks.at(-1)}`;
}

interface Late {
  readonly rank: number;
  readonly latenessUs: number;
}

/** Ranks later than half of the group by more than `leastUs`, and than what is usual here. */
function lateRanks({ latenessUs: afterUs }: MeasuredWaits, numRanks: number, leastUs: number): Late[] {
  const afterFirstUs = Array.from({ length: numRanks }, (_, srcRank) =>
    Math.max(...Array.from({ length: numRanks }, (_, rank) => afterUs[rank * numRanks + srcRank])),
  );
  const middle = (values: readonly number[]) => [...values].sort((a, b) => a - b)[(values.length - 1) >> 1];
  const usual = middle(afterFirstUs);
  const spread = middle(afterFirstUs.map((us) => Math.abs(us - usual)));
  const least = Math.max(leastUs, 6 * 1.4826 * spread);
  return afterFirstUs
    .map((us, rank) => ({ rank, latenessUs: us - usual }))
    .filter(({ latenessUs }) => latenessUs > least);
}

interface Block {
  readonly ranks: number[];
  readonly latenessUs: number;
}

/** Ranks of one process are late together, and stand still together but for a little. */
const ALIKE = 0.05;

function blocks(late: readonly Late[]): Block[] {
  const found: Block[] = [];
  for (const { rank, latenessUs } of late) {
    const last = found.at(-1);
    const isAlike = last !== undefined && Math.abs(last.latenessUs - latenessUs) <= ALIKE * last.latenessUs;
    if (isAlike && last.ranks.at(-1) === rank - 1) last.ranks.push(rank);
    else found.push({ ranks: [rank], latenessUs });
  }
  return found;
}
