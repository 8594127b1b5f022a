/**
 * The golden cases on several nodes. One rank per node sums in the order of one node of all ranks, so there everything equals
 * the peers' bit for bit; with two ranks per node the oracle of the same nodes tells.
 */
import { afterAll, describe, test } from "vitest";
import type { Backend } from "../../core/backend.ts";
import { resetBuffer, resetHybridEpBuffer } from "../../core/functions/buffers.ts";
import { createOracleBackend } from "../../core/oracle/group.ts";
import { scratch } from "../cli/run.ts";
import { type Candidate, tryOpen } from "../conformance/backends.ts";
import { GOLDEN_CASES } from "./cases.ts";
import { GOLDEN_FOLDER, goldenPresent, goldenReason } from "./file.ts";
import { GOLDEN_FUNCTIONS } from "./functions.ts";
import { runCase, viaBackend } from "./run.ts";

/** Every file that has ranks, on nodes of 1 and, where there are 4 ranks, of 2. */
const CASES = GOLDEN_CASES.filter(({ prefix }) => prefix === undefined).flatMap((golden) => {
  const numRanks = Number(/_r(\d)/.exec(golden.file)?.[1]);
  return [1, 2].filter((size) => size < numRanks).map((ranksPerNode) => ({ golden, numRanks, ranksPerNode }));
});

export async function describeGolden(candidate: Candidate): Promise<void> {
  const opened = goldenPresent ? await tryOpen(candidate) : "../shared/golden is absent";
  const reason = goldenReason || (typeof opened === "string" ? ` (skipped: ${opened})` : "");
  describe.skipIf(typeof opened === "string")(`golden on several nodes: ${candidate.name}${reason}`, () => {
    const backend = opened as Backend;
    const reference = viaBackend(createOracleBackend());
    afterAll(async () => {
      resetBuffer();
      resetHybridEpBuffer();
      await backend.close();
    });
    for (const { golden, numRanks, ranksPerNode } of CASES) {
      const nodes = `${numRanks / ranksPerNode} nodes of ${ranksPerNode}`;
      test(`${golden.file}, ${nodes}`, () =>
        runCase(golden, viaBackend(backend), GOLDEN_FOLDER, scratch(), { ranksPerNode, reference }));
    }
    test.each(GOLDEN_FUNCTIONS)("%s, a node per rank", async (_, numRanks, run) => {
      const group = await backend.createGroup({ numRanks, ranksPerNode: 1 });
      await run(group);
      await group.close();
    });
  });
}
