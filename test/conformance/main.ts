/**
 * The conformance suite and the golden cases without Vitest, for machines that have only Node:
 * node main.js BACKEND [folder of the golden cases, or -] [seconds]. Prints what fails and one closing line. BACKEND may
 * also be a candidate of backends.ts ("cuda, a process per rank"): what that cannot split is left out. With a time limit
 * every 7th test comes first, then the others, until the time is over.
 */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createBackend } from "../../backends/index.ts";
import { GOLDEN_CASES } from "../golden/cases.ts";
import { runCase, viaBackend } from "../golden/run.ts";
import { PROCESS_CANDIDATES, SPLIT_CANDIDATES } from "./backends.ts";
import { CONFORMANCE_TESTS, NODE_TESTS } from "./suite.ts";

const STRIDE = 7;

const [name = "oracle", golden = "-", seconds = "Infinity"] = process.argv.slice(2);
const candidate = [...SPLIT_CANDIDATES, ...PROCESS_CANDIDATES].find((one) => one.name === name);
const backend = await (candidate?.open() ?? createBackend(name));
const suite = [...CONFORMANCE_TESTS, ...NODE_TESTS].filter(({ shape }) => (candidate?.skips?.(shape) ?? null) === null);
const cases = (golden === "-" ? [] : GOLDEN_CASES).map((one) => ({
  name: `golden ${one.file} ${one.prefix ?? ""}`,
  run: () => runCase(one, viaBackend(backend), golden, mkdtempSync(join(tmpdir(), "fused-a2a-golden-"))),
}));
const all = [...suite, ...cases];
const limited = Number.isFinite(Number(seconds));
const order = Array.from({ length: limited ? STRIDE : 1 }, (_, first) =>
  all.filter((_, i) => !limited || i % STRIDE === first),
).flat();
const deadline = performance.now() + Number(seconds) * 1000;
let [done, failed] = [0, 0];
for (const { name: title, run } of order) {
  if (performance.now() > deadline) break;
  done++;
  try {
    await run(backend);
  } catch (error) {
    failed++;
    console.log(`FAILED ${title}: ${(error as Error).message}`);
  }
}
await backend.close();
console.log(`${done - failed} passed, ${failed} failed, of ${all.length}`);
process.exitCode = failed > 0 ? 1 : 0;
