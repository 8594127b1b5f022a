import { afterAll, describe, test } from "vitest";
import type { Backend } from "../../core/backend.ts";
import { CANDIDATES, SPLIT_CANDIDATES, tryOpen } from "../conformance/backends.ts";
import { checkLaw } from "./check.ts";
import { LAWS } from "./laws.ts";

/** Few cases for backends whose groups are slow to make; laws.sweep.test.ts runs many on every variant. */
const NUM_RUNS: Record<string, number> = { oracle: 120 };
const ONE_OF_EACH = [
  "oracle",
  "wasm on the calling thread",
  "wasm, workers: 2",
  "webgpu",
  "cuda-emulated, devices: 4",
  "cuda-emulated, a part per rank",
  "cuda",
];

for (const candidate of [...CANDIDATES, ...SPLIT_CANDIDATES].filter(({ name }) => ONE_OF_EACH.includes(name))) {
  const opened = await tryOpen(candidate);
  const reason = typeof opened === "string" ? ` (skipped: ${opened})` : "";
  describe.skipIf(typeof opened === "string")(`laws on ${candidate.name}${reason}`, () => {
    const backend = opened as Backend;
    afterAll(() => backend.close());
    test.each(LAWS)("$name", (law) => checkLaw(law, backend, NUM_RUNS[candidate.name] ?? 10, 1));
  });
}
