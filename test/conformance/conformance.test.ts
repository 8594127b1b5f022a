import { afterAll, describe, test } from "vitest";
import type { Backend } from "../../core/backend.ts";
import { CANDIDATES, tryOpen } from "./backends.ts";
import { CONFORMANCE_TESTS } from "./suite.ts";

for (const candidate of CANDIDATES) {
  const opened = await tryOpen(candidate);
  const reason = typeof opened === "string" ? ` (skipped: ${opened})` : "";
  describe.skipIf(typeof opened === "string")(`conformance of ${candidate.name}${reason}`, () => {
    const backend = opened as Backend;
    afterAll(() => backend.close());
    test.each(CONFORMANCE_TESTS)("$name", ({ run }) => run(backend));
  });
}
