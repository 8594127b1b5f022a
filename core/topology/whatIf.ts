import type { TrafficCounter } from "./count.ts";
import { type Diagnosis, diagnose } from "./diagnose.ts";
import { type PipelineInput, type PipelineResult, simulatePipeline } from "./pipeline.ts";

/** Something wrong with the group: what the events are run with. */
export interface Fault {
  readonly name: string;
  readonly change: Pick<PipelineInput, "readyUs" | "health" | "slowPair">;
}

export interface WhatIf {
  readonly fault: string;
  readonly result: PipelineResult;
  /** Time of the operation / healthy time. */
  readonly ratio: number;
  /** Of the wait matrix, less the healthy one. */
  readonly diagnosis: Diagnosis;
}

/** The usual suspects, each with one culprit: a rank that is late by the operation's own time, and halved links. */
export function usualFaults(counter: TrafficCounter, healthyUs: number, rank: number): Fault[] {
  const { numRanks, ranksPerNode } = counter.traffic;
  const at = (value: number, rest: number) =>
    Float64Array.from({ length: numRanks }, (_, r) => (r === rank ? value : rest));
  const neighbour = rank - (rank % ranksPerNode) + ((rank + 1) % ranksPerNode);
  const faults: Fault[] = [
    { name: `rank ${rank} 2x late`, change: { readyUs: at(healthyUs, 0) } },
    { name: `NVLink of rank ${rank} at half speed`, change: { health: { nvlink: at(0.5, 1) } } },
  ];
  if (numRanks > ranksPerNode) {
    faults.push({ name: `NIC of rank ${rank} at half speed`, change: { health: { nic: at(0.5, 1) } } });
  }
  if (neighbour !== rank) {
    const slowPair = { src: rank, dst: neighbour, speed: 0.05 };
    faults.push({ name: `link ${rank} -> ${neighbour} at a twentieth`, change: { slowPair } });
  }
  return faults;
}

/** Runs the healthy operation and each fault, and says what the waits look like. */
export function whatIf(
  input: PipelineInput,
  faults: readonly Fault[] | ((healthyUs: number) => readonly Fault[]),
): { healthy: PipelineResult; cases: WhatIf[] } {
  const { numRanks, ranksPerNode } = input.counter.traffic;
  const [healthy] = simulatePipeline([input]);
  const list = typeof faults === "function" ? faults(healthy.timeUs) : faults;
  const cases = list.map(({ name, change }) => {
    const [result] = simulatePipeline([{ ...input, ...change }]);
    const diagnosis = diagnose(result.waitUs, { numRanks, ranksPerNode, expectedUs: healthy.waitUs });
    return { fault: name, result, ratio: result.timeUs / healthy.timeUs, diagnosis };
  });
  return { healthy, cases };
}
