/**
 * Verifying one process's part of a group: the reference simulates the whole group from the same routing and rows, and the
 * outputs of this process's ranks are compared with its own.
 */
import type { CombineResult, DispatchRequest, DispatchResult, Group } from "../core/backend.ts";
import { encodeHandle } from "../core/handle/encode.ts";
import type { HandleData } from "../core/handle/handle.ts";
import { type AnyTensor, type Tensor, toHost } from "../core/tensor.ts";
import { compareWhole, type OutputReport, placeOfRow, type RowPlace } from "./compare.ts";
import { executeLayer, type LayerRun } from "./execute.ts";
import type { Job } from "./job.ts";
import { merge } from "./verifier.ts";

type Outputs = Map<string, readonly Tensor[]>;

const DISPATCHED = ["x", "scales", "topkIdx", "topkWeights", "probs"] as const;

/** What a layer gave, by name, on the host; of the ranks `pick` names. */
class Recorder {
  readonly outputs: Outputs = new Map();
  /** Outputs are kept, so the expert must not write over them. */
  readonly keepDispatched = true;
  data: HandleData | null = null;
  readonly progress: ((fraction: number) => void) | undefined;
  readonly #pick: (values: readonly AnyTensor[]) => readonly AnyTensor[];

  constructor(pick: (values: readonly AnyTensor[]) => readonly AnyTensor[], progress?: (fraction: number) => void) {
    this.#pick = pick;
    this.progress = progress;
  }

  async dispatched(_request: DispatchRequest, result: DispatchResult): Promise<void> {
    for (const name of DISPATCHED) await this.#keep(`dispatched ${name}`, result[name]);
    this.data = await result.handle.data();
  }

  async combined(y: readonly AnyTensor[], _request: unknown, result: CombineResult): Promise<void> {
    await this.#keep("expert output", y);
    await this.#keep("combined x", result.x);
  }

  async #keep(name: string, values: readonly AnyTensor[] | null): Promise<void> {
    if (values !== null) this.outputs.set(name, await Promise.all(this.#pick(values).map((value) => toHost(value))));
  }
}

export async function verifyOwnRanks(
  group: Group,
  reference: Group,
  job: Job,
  index: number,
  progress: (fraction: number) => void,
): Promise<{ run: LayerRun; reports: OutputReport[] }> {
  const { localRanks } = group;
  const mine = new Recorder(
    (values) => values,
    (fraction) => progress(fraction / 2),
  );
  const run = await executeLayer(group, job, index, mine);
  const its = new Recorder(
    (values) => localRanks.map((rank) => values[rank]),
    (fraction) => progress(0.5 + fraction / 2),
  );
  await executeLayer(reference, job, index, its);
  const reports: OutputReport[] = [];
  const rows = placeOfRow(run.data);
  const tokens: RowPlace = (rank, row) => ({ srcRank: rank, token: row });
  for (const [name, values] of mine.outputs) {
    const place = name.startsWith("combined") ? tokens : rows;
    reports.push(await compareWhole(name, localRanks, values, its.outputs.get(name) ?? [], place));
  }
  if (its.data !== null) reports.push(...(await compareHandles(run.data, its.data, localRanks)));
  return { run, reports };
}

async function compareHandles(mine: HandleData, its: HandleData, ranks: readonly number[]): Promise<OutputReport[]> {
  const own = { meta: { ...its.meta, localRanks: ranks }, ranks: its.ranks.filter(({ rank }) => ranks.includes(rank)) };
  const expected = encodeHandle(own);
  const reports = new Map<string, OutputReport>();
  for (const [name, value] of encodeHandle(mine)) {
    const other = expected.get(name);
    const rank = Number(/^rank(\d+)/.exec(name)?.[1] ?? 0);
    const output = name.replace(/^rank\d+\./, "");
    const report = await compareWhole(output, [rank], [value], other === undefined ? [] : [other], () => ({}));
    const before = reports.get(output);
    reports.set(output, before === undefined ? report : merge(before, report));
  }
  return [...reports.values()];
}
