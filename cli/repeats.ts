/** A layer several times over: what it takes once memory is allocated. */
import { median } from "../bench/measure.ts";
import type { Group } from "../core/backend.ts";
import { executePrepared, type LayerRun, prepareLayer, type RunTimes } from "./execute.ts";
import { gather } from "./gather.ts";
import type { Job } from "./job.ts";
import { countedWire } from "./wire.ts";

/**
 * Runs a layer once, or one time more than `numRepeats`: then the times are medians of all but the first, and the rest is the
 * last run's. Every process calls it.
 */
export async function repeatLayer(
  group: Group,
  job: Job,
  index: number,
  numRepeats: number,
  progress: (fraction: number) => void,
): Promise<LayerRun> {
  const prepared = await prepareLayer(group, job, index);
  if (numRepeats === 1) return executePrepared(group, job, prepared, { progress });
  const once = async (i: number) => {
    // Nobody begins while another is still in the run before; and processes that were told different numbers say so.
    await gather(group, `--repeats ${numRepeats}`, null);
    return executePrepared(group, job, prepared, { progress: (f) => progress((i + f) / (numRepeats + 1)) });
  };
  const times: RunTimes[] = [];
  for (let i = 0; i < numRepeats; i++) times.push(runTimes(await once(i)));
  // The counters of what crossed the network are the last run's too.
  await countedWire(group);
  const last = await once(numRepeats);
  const [firstTimes, ...counted] = [...times, runTimes(last)];
  return { ...last, times: { ...last.times, ...medians(counted) }, repeats: { numRepeats, firstTimes } };
}

function runTimes({ times: { dispatchMs, expertMs, combineMs } }: LayerRun): RunTimes {
  return { dispatchMs, expertMs, combineMs };
}

function medians(times: readonly RunTimes[]): RunTimes {
  const of = (stage: keyof RunTimes) => median(times.map((one) => one[stage]));
  return { dispatchMs: of("dispatchMs"), expertMs: of("expertMs"), combineMs: of("combineMs") };
}
