import type { Phase } from "../../core/backend.ts";
import {
  chooseReplicas,
  type PhasePrediction,
  type PipelineResult,
  type Placement,
  rowBytes,
} from "../../core/topology/index.ts";
import type { TraceChunk, TraceHeader } from "../../core/trace/format.ts";
import { writeTrace } from "../../core/trace/write.ts";
import { createFile } from "../files.ts";
import { progressBar } from "../progress.ts";
import { version } from "../version.ts";
import { badOption } from "./options.ts";
import type { Predicted, Run } from "./run.ts";

/** Slots of one (step, layer) that the trace writer may hold at once. */
const MAX_CHUNK_SLOTS = 2 ** 28;

/** The prediction as a trace with modelled times: routing, phases per rank, and waits when events were run. */
export async function writePredictedTrace(
  file: string,
  run: Run,
  placements: readonly Placement[],
  predicted: readonly Predicted[],
): Promise<void> {
  const { source, group, setup } = run;
  const slots = Math.max(...predicted.map(({ prediction }) => prediction.numTokens)) * source.topk;
  if (slots > MAX_CHUNK_SLOTS) {
    throw badOption("trace", `layers of at most ${MAX_CHUNK_SLOTS} slots`, `${slots}`, "lower --tokens or --ranks");
  }
  const firstStep = predicted[0].prediction.step;
  const header: TraceHeader = {
    producer: `fused-a2a ${version()} simulate --machine ${setup.machine.name} --path ${setup.path.name}`,
    clock: "modelled",
    numSteps: source.numSteps - firstStep,
    numLayers: source.numLayers,
    ...group,
    numExperts: placements[0].replicas.length,
    topk: source.topk,
    hidden: setup.hidden,
    dtype: setup.rowKind === "fp8" ? "fp8e4m3" : setup.rowKind,
    rowBytes: rowBytes("dispatch", setup.hidden, setup.rowKind, setup.path),
    style: "fused",
    settings: { expertAlignment: 1, numWorstTokens: 0, padMultiple: 1, numPermutedTokens: null },
    physicalToLogical: placements.map((placement) => Array.from(placement.physicalToLogical)),
  };
  const bar = progressBar("writing the trace");
  let done = 0;
  await writeTrace(await createFile(file), header, async (step, layer) => {
    const chunk = await chunkOf(run, placements[layer], predicted, step + firstStep, layer);
    bar.update(++done / (2 * predicted.length));
    return chunk;
  });
  bar.done();
}

async function chunkOf(
  { source, options }: Run,
  placement: Placement,
  predicted: readonly Predicted[],
  step: number,
  layer: number,
): Promise<TraceChunk> {
  const topkIdx: Int32Array[] = [];
  await source.eachRank(step, layer, (rank, ids) => {
    topkIdx[rank] = new Int32Array(ids.length);
    chooseReplicas(placement, options.replicaChoice, rank, ids, source.topk, topkIdx[rank]);
  });
  const { prediction, events } = predicted.find(
    ({ prediction: p }) => p.step === step && p.layer === layer,
  ) as Predicted;
  return {
    topkIdx,
    topkWeights: null,
    phases: phasesOf(prediction.phases, events, source.numRanks),
    waitUs: events ? events[0].waitUs : null,
  };
}

/** Phase after phase, each rank's own work first and then its wait for the others. */
function phasesOf(
  phases: readonly PhasePrediction[],
  events: readonly PipelineResult[] | null,
  numRanks: number,
): Phase[] {
  const result: Phase[] = [];
  let startUs = 0;
  phases.forEach((phase, i) => {
    const ends = events?.[i];
    // What every rank pays alike: start-up, epilogue, call.
    const common = phase.timeUs - phase.rankUs.reduce((a, b) => Math.max(a, b), 0);
    const totalUs = ends ? ends.timeUs + Math.max(0, common) : phase.timeUs;
    for (let rank = 0; rank < numRanks; rank++) {
      const ready = ends ? ends.readyUs[rank] : 0;
      const own = ends ? ends.busyUs[rank] + Math.max(0, common) : phase.rankUs[rank] + Math.max(0, common);
      const durationUs = Math.min(own, totalUs - ready);
      result.push({ rank, name: phase.phase, startUs: startUs + ready, durationUs });
      const waitUs = totalUs - ready - durationUs;
      if (waitUs > 0) {
        result.push({
          rank,
          name: phase.phase,
          startUs: startUs + ready + durationUs,
          durationUs: waitUs,
          waiting: true,
        });
      }
    }
    startUs += totalUs;
  });
  return result;
}
