/**
 * Who waited for whom, from the phases of a run over several processes. Arrival (who came late to an operation) and
 * transfer (whose rows came late once everybody was there) are measured apart, so that a slow rank and a slow link are not
 * mistaken for each other.
 */
import type { Phase } from "../backend.ts";
import { type Diagnosis, diagnose, type Finding } from "./diagnose.ts";

interface Shape {
  readonly numRanks: number;
  readonly ranksPerNode: number;
}

/** [R, R] microseconds, row waits for column, as one array each. */
export interface MeasuredWaits {
  readonly arrivalUs: Float32Array;
  readonly transferUs: Float32Array;
  /** Their sum: a trace's `wait_us`. */
  readonly waitUs: Float32Array;
  /** Time of the busiest rank, without the waits for arrival: what is small beside it is no fault. */
  readonly busyUs: number;
}

/** Share of the busiest rank's time that a fault costs at least. */
const SENSITIVITY = 0.2;

/** The phase in which processes wait for each other's arrival. */
export const ARRIVAL_PHASE = "agree";

/** Adds up the phases that name the rank they wait for. `phases`: of all ranks. */
export function measureWaits(phases: readonly Phase[], { numRanks, ranksPerNode }: Shape): MeasuredWaits {
  const arrivalUs = new Float32Array(numRanks * numRanks);
  for (const { rank, name, srcRank, durationUs } of phases) {
    if (name === ARRIVAL_PHASE && srcRank !== undefined) arrivalUs[rank * numRanks + srcRank] += durationUs;
  }
  const direct = new Float32Array(numRanks * numRanks);
  for (const { srcRank, rank, us } of messages(phases)) direct[rank * numRanks + srcRank] += us;
  const transferUs = Float32Array.from(direct, (us, i) => {
    const [rank, srcRank] = [Math.floor(i / numRanks), i % numRanks];
    const stop = rank - (rank % ranksPerNode) + (srcRank % ranksPerNode);
    if (rank === srcRank || Math.floor(rank / ranksPerNode) === Math.floor(srcRank / ranksPerNode)) return us;
    // Rows of other nodes come over the rail to the rank of the source's index here, then over NVLink.
    return direct[stop * numRanks + srcRank] + (stop === rank ? 0 : direct[rank * numRanks + stop]);
  });
  const busy = new Float64Array(numRanks);
  for (const { rank, name, durationUs } of phases) if (rank >= 0 && name !== ARRIVAL_PHASE) busy[rank] += durationUs;
  const waitUs = transferUs.map((us, i) => us + arrivalUs[i]);
  return { arrivalUs, transferUs, waitUs, busyUs: Math.max(...busy) };
}

interface Message {
  readonly srcRank: number;
  readonly rank: number;
  readonly us: number;
}

/**
 * How long each message was under way. Ranks exchange in the steps of a ring: in its n-th phase of a name a rank receives
 * from one and sends to another, and the phase ends when both are done. A slow message keeps both its ends in the step; one
 * that waits alone waits for a rank that came late from the step before. So a message takes what both ends have in common,
 * and the clocks of processes need not agree.
 */
function messages(phases: readonly Phase[]): Message[] {
  const durations = new Map<string, number>();
  const count = new Map<string, number>();
  const steps = phases
    .filter(({ name, srcRank }) => srcRank !== undefined && name !== ARRIVAL_PHASE)
    .sort((a, b) => a.startUs - b.startUs)
    .map(({ rank, name, srcRank, durationUs }) => {
      const n = count.get(`${rank} ${name}`) ?? 0;
      count.set(`${rank} ${name}`, n + 1);
      durations.set(`${rank} ${name} ${n}`, durationUs);
      return { rank, srcRank: srcRank as number, durationUs, atSender: `${srcRank} ${name} ${n}` };
    });
  return steps.map(({ rank, srcRank, durationUs, atSender }) => ({
    rank,
    srcRank,
    us: Math.min(durationUs, durations.get(atSender) ?? durationUs),
  }));
}

/** Which rank was late, and which rank or link slow. */
export function explainWaits(waits: MeasuredWaits, shape: Shape): Diagnosis {
  const leastUs = SENSITIVITY * waits.busyUs;
  const transfers = diagnose(waits.transferUs, { ...shape, arrivedTogether: true });
  const strongestUs = Math.max(leastUs, ...transfers.findings.map(({ excessUs }) => SENSITIVITY * excessUs));
  const slow = transfers.findings.map(({ excessUs }) => excessUs > strongestUs);
  const late = lateRanks(waits, shape.numRanks, leastUs);
  const findings: Finding[] = [
    ...late.map(({ rank, latenessUs }) => ({ kind: "late-rank" as const, rank, excessUs: latenessUs })),
    ...transfers.findings.filter((_, i) => slow[i]),
  ];
  const words = [...blocks(late).map(inWords), ...transfers.words.filter((_, i) => slow[i])];
  if (words.length === 0) {
    words.push(`no rank was late and no link slow by more than ${(strongestUs / 1e3).toFixed(2)} ms`);
  }
  return { ...transfers, findings, words };
}

function inWords({ ranks, latenessUs }: ReturnType<typeof blocks>[number]): string {
  const who = ranks.length === 1 ? `rank ${ranks[0]}` : `ranks ${ranks[0]}..${ranks.at(-1)}`;
  return `${who} came ${(latenessUs / 1e3).toFixed(1)} ms late: the others waited for that before any row moved`;
}

interface Late {
  readonly rank: number;
  readonly latenessUs: number;
}

/** Ranks later than half of the group by more than `leastUs`, and than what is usual here. */
function lateRanks({ arrivalUs }: MeasuredWaits, numRanks: number, leastUs: number): Late[] {
  const afterFirstUs = Array.from({ length: numRanks }, (_, srcRank) =>
    Math.max(...Array.from({ length: numRanks }, (_, rank) => arrivalUs[rank * numRanks + srcRank])),
  );
  const middle = (values: readonly number[]) => [...values].sort((a, b) => a - b)[(values.length - 1) >> 1];
  const usual = middle(afterFirstUs);
  const spread = middle(afterFirstUs.map((us) => Math.abs(us - usual)));
  const least = Math.max(leastUs, 6 * 1.4826 * spread);
  return afterFirstUs
    .map((us, rank) => ({ rank, latenessUs: us - usual }))
    .filter(({ latenessUs }) => latenessUs > least);
}

/** Ranks of one process are late together. */
function blocks(late: readonly Late[]): { ranks: number[]; latenessUs: number }[] {
  const found: { ranks: number[]; latenessUs: number }[] = [];
  for (const { rank, latenessUs } of late) {
    const last = found.at(-1);
    if (last !== undefined && last.latenessUs === latenessUs && last.ranks.at(-1) === rank - 1) last.ranks.push(rank);
    else found.push({ ranks: [rank], latenessUs });
  }
  return found;
}
