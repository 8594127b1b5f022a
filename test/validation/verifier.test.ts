import { expect, test } from "vitest";
import { executeLayer } from "../../cli/execute.ts";
import { type JobOptions, openJob } from "../../cli/job.ts";
import { Verifier } from "../../cli/verifier.ts";
import type { Group } from "../../core/backend.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import type { Tensor } from "../../core/tensor.ts";

const OPTIONS: JobOptions = {
  backend: "oracle",
  ranks: 4,
  workload: "uniform",
  tokens: 16,
  experts: 16,
  topk: 4,
  hidden: 8,
  dtype: "bf16",
  style: "fused",
  seed: 1,
  padMultiple: 1,
  expertAlignment: 1,
  numWorstTokens: 0,
};

/** An executor that flips one bit of one output, as a race or a wrong address would. */
async function faulty(spoil: "dispatch" | "combine", rank: number, element: number): Promise<Group> {
  const group = await createOracleBackend().createGroup({ numRanks: 4 });
  const original = group[spoil].bind(group) as (request: never) => Promise<{ x: readonly Tensor[] }>;
  group[spoil] = (async (request: never) => {
    const result = await original(request);
    (result.x[rank].data as Uint16Array)[element] ^= 1;
    return result;
  }) as never;
  return group;
}

test.each(["dispatch", "combine"] as const)("one flipped bit in %s is found and named", async (spoil) => {
  const job = await openJob(undefined, OPTIONS);
  const reference = await createOracleBackend().createGroup({ numRanks: 4 });
  const verifier = new Verifier(reference, true);
  await executeLayer(await faulty(spoil, 2, 8 * 5 + 3), job, 0, verifier);
  const wrong = verifier.reports.filter((report) => report.numDiffering > 0);
  expect(wrong.map((report) => report.output)).toEqual([spoil === "dispatch" ? "dispatched x" : "combined x"]);
  expect(wrong[0]).toMatchObject({ numDiffering: 1, first: { rank: 2, row: 5, column: 3 }, ulpHistogram: { "1": 1 } });
});

test("without a fault every output is compared and equal", async () => {
  const job = await openJob(undefined, OPTIONS);
  const group = await createOracleBackend().createGroup({ numRanks: 4 });
  const verifier = new Verifier(await createOracleBackend().createGroup({ numRanks: 4 }), true);
  await executeLayer(group, job, 0, verifier);
  expect(verifier.reports.map((report) => report.numDiffering)).toEqual(verifier.reports.map(() => 0));
  expect(verifier.reports.every((report) => report.numElements > 0 || report.output === "handle.overflow_cut")).toBe(
    true,
  );
});
