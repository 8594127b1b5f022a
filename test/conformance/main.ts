/**
 * The conformance suite and the golden cases without Vitest, for machines that have only Node:
 * node main.js BACKEND [folder of the golden cases]. Prints what fails and one closing line.
 */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createBackend } from "../../backends/index.ts";
import { GOLDEN_CASES } from "../golden/cases.ts";
import { runCase, viaBackend } from "../golden/run.ts";
import { CONFORMANCE_TESTS } from "./suite.ts";

const [name = "oracle", golden] = process.argv.slice(2);
const backend = await createBackend(name);
const cases = (golden === undefined ? [] : GOLDEN_CASES).map((one) => ({
  name: `golden ${one.file} ${one.prefix ?? ""}`,
  run: () => runCase(one, viaBackend(backend), golden, mkdtempSync(join(tmpdir(), "fused-a2a-golden-"))),
}));
let failed = 0;
for (const { name: title, run } of [...CONFORMANCE_TESTS, ...cases]) {
  try {
    await run(backend);
  } catch (error) {
    failed++;
    console.log(`FAILED ${title}: ${(error as Error).message}`);
  }
}
await backend.close();
console.log(`${CONFORMANCE_TESTS.length + cases.length - failed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
