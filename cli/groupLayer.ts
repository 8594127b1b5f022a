/** What a layer was over the whole group: every process's ranks, gathered, so that every report tells the same. */
import type { Group, Phase } from "../core/backend.ts";
import { conservationOf, type Law, type RankTally, tally } from "../core/layout/conservation.ts";
import { rankLayout } from "../core/layout/counts.ts";
import { rankRouting } from "../core/layout/routing.ts";
import type { Diagnosis } from "../core/topology/diagnose.ts";
import { explainWaits, type MeasuredWaits, measureWaits, needsOneWay } from "../core/topology/measured.ts";
import { ARRIVAL_PHASE } from "../core/topology/messages.ts";
import type { LayerRun } from "./execute.ts";
import { gather } from "./gather.ts";
import type { Job } from "./job.ts";
import { type LayerNetwork, networkOf, type RowsTo } from "./network.ts";
import { measureOneWay } from "./oneWay.ts";
import { countedWire, expectedWire, wireLaws } from "./wire.ts";

export interface GroupLayer {
  /** Of all ranks, on the clock of process 0. */
  readonly phases: readonly Phase[];
  readonly laws: readonly Law[];
  readonly numCut: number;
  /** Who waited for whom; null in one process. */
  readonly waits: (MeasuredWaits & Pick<Diagnosis, "findings" | "words">) | null;
  /** How fast the network was; null in one process, and of a layer that ran once: connecting took part of its time. */
  readonly network: LayerNetwork | null;
}

/** Every process calls it after the layer. */
export async function gatherLayer(group: Group, job: Job, run: LayerRun): Promise<GroupLayer> {
  const own = { tallies: tally(run.data), phases: run.phases, wire: await countedWire(group) };
  const all = await gather(group, `layer ${run.layer.name}`, own);
  const tallies: RankTally[] = all.flatMap((one) => one.tallies);
  const routings = run.layer.topkIdx.map((ids, rank) => rankRouting(rank, ids, null, job.shape.numExperts));
  const phases = all.flatMap((one) => onClockOf(all[0].phases, one.phases));
  const numCut = tallies.reduce((total, one) => total + one.numCut, 0);
  const wire = all.flatMap((one) => one.wire);
  const rowsTo = all.length === 1 ? [] : routings.map((one) => rankLayout(one, job.shape).numTokensPerNode);
  const numRowsTo = (srcRank: number, node: number) => rowsTo[srcRank]?.[node] ?? 0;
  const crossing = all.length === 1 ? [] : wireLaws(expectedWire(job, routings), wire, numCut > 0);
  return {
    phases,
    laws: [...conservationOf(tallies, routings, run.data.meta), ...crossing],
    numCut,
    waits: all.length === 1 ? null : await explain(group, job, numRowsTo, phases),
    network: run.repeats === undefined ? null : networkOf(job, numRowsTo, phases),
  };
}

async function explain(group: Group, job: Job, numRowsTo: RowsTo, phases: readonly Phase[]) {
  const measured = measureWaits(phases, job.shape);
  // Every process sees the same phases: all of them ask, or none does.
  const oneWay = needsOneWay(measured, job.shape) ? await measureOneWay(group, job) : [];
  const { findings, words } = explainWaits(measured, job.shape, { oneWay, numRowsTo });
  return { ...measured, findings, words };
}

/** Clocks of hosts have nothing to do with each other; but all processes leave their first agreement at the same time. */
function onClockOf(first: readonly Phase[], own: readonly Phase[]): Phase[] {
  const shiftUs = leavesAgreement(first) - leavesAgreement(own);
  return own.map((phase) => ({ ...phase, startUs: phase.startUs + shiftUs }));
}

function leavesAgreement(phases: readonly Phase[]): number {
  const agrees = phases.filter(({ name }) => name === ARRIVAL_PHASE);
  if (agrees.length === 0) return 0;
  const startUs = Math.min(...agrees.map((phase) => phase.startUs));
  const those = agrees.filter((phase) => phase.startUs === startUs);
  return startUs + Math.max(...those.map((phase) => phase.durationUs));
}

/** For a trace, which has no source ranks: a rank's wait for all others' arrival is one phase, its longest. */
export function tracePhases(phases: readonly Phase[]): Phase[] {
  const longest = new Map<string, Phase>();
  const others: Phase[] = [];
  for (const phase of phases) {
    if (phase.name !== ARRIVAL_PHASE) {
      others.push(phase);
      continue;
    }
    const key = `${phase.rank} ${phase.startUs}`;
    const before = longest.get(key);
    if (before === undefined || before.durationUs < phase.durationUs) longest.set(key, phase);
  }
  return [...longest.values(), ...others].sort((a, b) => a.startUs - b.startUs);
}
