import { afterAll, describe, test } from "vitest";
import type { Backend } from "../../core/backend.ts";
import { type Candidate, tryOpen } from "./backends.ts";
import type { ConformanceTest } from "./suite.ts";

/** Tests of one backend; what it cannot run is a visible skip with its reason. */
export async function describeSuite(
  title: string,
  candidate: Candidate,
  tests: readonly ConformanceTest[],
): Promise<void> {
  const opened = await tryOpen(candidate);
  const reason = typeof opened === "string" ? ` (skipped: ${opened})` : "";
  describe.skipIf(typeof opened === "string")(`${title} of ${candidate.name}${reason}`, () => {
    const backend = opened as Backend;
    afterAll(() => backend.close());
    for (const { name, shape, run } of tests) {
      const why = candidate.skips?.(shape) ?? null;
      test.skipIf(why !== null)(why === null ? name : `${name} (skipped: ${why})`, () => run(backend));
    }
  });
}
