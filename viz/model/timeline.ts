import type { Phase } from "../../core/backend.ts";
import type { Frame } from "./dataset.ts";
import { maxOf, micros } from "./numbers.ts";
import type { ViewState } from "./state.ts";
import type { Table } from "./table.ts";

/** One phase over the ranks: waiting is told apart from moving; the shortest moving time is what the link needs. */
export interface PhaseStats {
  readonly name: string;
  readonly waiting: boolean;
  readonly numRanks: number;
  readonly minUs: number;
  readonly medianUs: number;
  readonly maxUs: number;
  /** The rank that took longest; -1 = all ranks together. */
  readonly slowest: number;
}

/** Which phase took how long on which rank. */
export interface TimelineModel {
  readonly clock: "measured" | "modelled" | "none";
  readonly phases: readonly Phase[];
  /** Ranks that have phases, ascending; -1 = all ranks together. */
  readonly ranks: readonly number[];
  readonly names: readonly string[];
  readonly stats: readonly PhaseStats[];
  readonly endUs: number;
  /** The rank that works longest: the others wait for it. */
  readonly lastRank: number;
  /** Selected ranks (src or dst of the selection); empty = all. */
  readonly selectedRanks: readonly number[];
}

export function timelineModel(frame: Frame, state: ViewState): TimelineModel {
  const first = frame.phases.reduce((least, { startUs }) => Math.min(least, startUs), Number.POSITIVE_INFINITY);
  const inTime = ({ startUs, durationUs }: Phase) =>
    state.time === null || (startUs <= state.time[1] && startUs + durationUs >= state.time[0]);
  const phases = frame.phases
    .map((phase) => ({ ...phase, name: nameOf(phase), startUs: phase.startUs - first }))
    .filter(inTime);
  const names = [...new Set([...phases].sort((a, b) => a.startUs - b.startUs).map(({ name }) => name))];
  const ends = phases.map(({ startUs, durationUs }) => startUs + durationUs);
  const endUs = maxOf(ends);
  return {
    clock: phases.length > 0 ? frame.header.clock : "none",
    phases,
    ranks: [...new Set(phases.map(({ rank }) => rank))].sort((a, b) => a - b),
    names,
    stats: names.map((name) => statsOf(name, phases)),
    endUs,
    lastRank: lastWorking(phases),
    selectedRanks: [...new Set([...state.src, ...state.dst])],
  };
}

function lastWorking(phases: readonly Phase[]): number {
  let last: Phase | undefined;
  for (const phase of phases) {
    if (!phase.waiting && (!last || phase.startUs + phase.durationUs > last.startUs + last.durationUs)) last = phase;
  }
  return last?.rank ?? -1;
}

/** Waiting under the name of the work it delays becomes a phase of its own, so that the two are never added up. */
function nameOf({ name, waiting }: Phase): string {
  return waiting && !/wait/i.test(name) ? `${name}.wait` : name;
}

function statsOf(name: string, phases: readonly Phase[]): PhaseStats {
  const mine = phases.filter((phase) => phase.name === name);
  const perRank = new Map<number, number>();
  for (const { rank, durationUs } of mine) perRank.set(rank, (perRank.get(rank) ?? 0) + durationUs);
  const sorted = [...perRank].sort((a, b) => a[1] - b[1]);
  const middle = (sorted.length - 1) / 2;
  return {
    name,
    waiting: mine.some((phase) => phase.waiting === true),
    numRanks: sorted.length,
    minUs: sorted[0][1],
    medianUs: (sorted[Math.floor(middle)][1] + sorted[Math.ceil(middle)][1]) / 2,
    maxUs: sorted[sorted.length - 1][1],
    slowest: sorted[sorted.length - 1][0],
  };
}

export function timelineTable(model: TimelineModel): Table {
  return {
    title: `Timeline (${model.clock} times)`,
    columns: ["phase", "kind", "ranks", "min us", "median us", "max us", "slowest rank"],
    rows: model.stats.map((s) => [
      s.name,
      s.waiting ? "waiting" : "working",
      s.numRanks,
      s.minUs,
      s.medianUs,
      s.maxUs,
      s.slowest < 0 ? "all" : s.slowest,
    ]),
    numKeys: 2,
  };
}

export function describeTimeline(model: TimelineModel): string {
  if (model.phases.length === 0) return "This file holds no phase times for this layer.";
  const longest = model.stats.reduce((a, b) => (b.maxUs > a.maxUs ? b : a));
  const last = model.lastRank < 0 ? "" : `; rank ${model.lastRank} is last`;
  const clock =
    model.clock === "measured"
      ? "Times were measured; ranks of different hosts have no common clock."
      : "Times are modelled, not measured.";
  return `${model.names.length} phases over ${micros(model.endUs)}${last}. Longest: ${longest.name}, up to ${micros(longest.maxUs)}. ${clock}`;
}
