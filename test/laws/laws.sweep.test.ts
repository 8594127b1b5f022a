import { afterAll, describe, test } from "vitest";
import type { Backend } from "../../core/backend.ts";
import { CANDIDATES, SPLIT_CANDIDATES, tryOpen } from "../conformance/backends.ts";
import { checkLaw } from "./check.ts";
import { LAWS } from "./laws.ts";

for (const candidate of [...CANDIDATES, ...SPLIT_CANDIDATES]) {
  const opened = await tryOpen(candidate);
  const reason = typeof opened === "string" ? ` (skipped: ${opened})` : "";
  describe.skipIf(typeof opened === "string")(`laws at length on ${candidate.name}${reason}`, () => {
    const backend = opened as Backend;
    const numRuns = candidate.name === "oracle" ? 500 : 40;
    afterAll(() => backend.close());
    for (const seed of [2, 3]) {
      test.each(LAWS)(`$name, seed ${seed}`, (law) => checkLaw(law, backend, numRuns, seed), 600_000);
    }
  });
}
