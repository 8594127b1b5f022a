/** The golden files through the API on every backend. */
import { afterAll, describe, test } from "vitest";
import type { Backend } from "../../core/backend.ts";
import { resetBuffer, resetHybridEpBuffer } from "../../core/functions/buffers.ts";
import { CANDIDATES, tryOpen } from "../conformance/backends.ts";
import { goldenPresent, goldenReason } from "./file.ts";
import { GOLDEN_FUNCTIONS } from "./functions.ts";

for (const candidate of CANDIDATES) {
  const opened = goldenPresent ? await tryOpen(candidate) : "../shared/golden is absent";
  const reason = goldenReason || (typeof opened === "string" ? ` (skipped: ${opened})` : "");
  describe.skipIf(typeof opened === "string")(`golden functions on ${candidate.name}${reason}`, () => {
    const backend = opened as Backend;
    afterAll(async () => {
      resetBuffer();
      resetHybridEpBuffer();
      await backend.close();
    });
    test.each(GOLDEN_FUNCTIONS)("%s", async (_, numRanks, run) => {
      const group = await backend.createGroup({ numRanks });
      await run(group);
      await group.close();
    });
  });
}
