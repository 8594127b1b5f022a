/** Real gpt-oss routing over several processes, verified by each against the references that `verify` takes by itself. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { CANDIDATES, tryOpen } from "../conformance/backends.ts";
import { freePort } from "../conformance/split/port.ts";
import { built, startCommand, whyNotBuilt } from "./start.ts";

export interface RoutingRun {
  readonly name: string;
  readonly nodes: number;
  /** A process per rank instead of one per node. */
  readonly perRank?: boolean;
  readonly args: readonly string[];
}

export const STYLES: readonly Omit<RoutingRun, "nodes">[] = [
  { name: "fused", args: ["--hidden", "160"] },
  { name: "hybrid-ep", args: ["--hidden", "160", "--style", "hybrid-ep", "--pad-multiple", "16"] },
  { name: "fused, fp8 rows", args: ["--hidden", "256", "--dtype", "fp8e4m3"] },
];

const RANKS = 8;

export async function describeRouting(file: string, runs: readonly RoutingRun[], layers: number): Promise<void> {
  const path = fileURLToPath(new URL(`../../../shared/routing/${file}`, import.meta.url));
  const webgpu = await tryOpen(CANDIDATES.filter(({ name }) => name === "webgpu")[0]);
  if (typeof webgpu !== "string") await webgpu.close();
  const missing = existsSync(path) ? (typeof webgpu === "string" ? webgpu : null) : "no routing data";
  const why = built ? (missing === null ? "" : ` (skipped: ${missing})`) : whyNotBuilt;
  describe.skipIf(!built || missing !== null)(`${file} against webgpu and the oracle${why}`, () => {
    for (const { name, nodes, perRank = false, args } of runs) {
      const processesPerNode = perRank ? RANKS / nodes : 1;
      const each = RANKS / nodes / processesPerNode;
      test(`${nodes} nodes of ${RANKS / nodes} ranks, processes of ${each}, ${name}`, async () => {
        const rendezvous = `127.0.0.1:${await freePort()}`;
        const command = ["verify", path, "--backend", "cuda-emulated", "--ranks", `${RANKS}`, "--json", ...args];
        const all = Array.from({ length: nodes * processesPerNode }, (_, process) => {
          const node = Math.floor(process / processesPerNode);
          const local = [
            "--processes-per-node",
            `${processesPerNode}`,
            "--local-process",
            `${process % processesPerNode}`,
          ];
          const where = ["--nodes", `${nodes}`, "--node-rank", `${node}`, "--rendezvous", rendezvous, ...local];
          return startCommand([...command, ...where], { lifeMs: 500_000 });
        });
        for (const { ended } of all) {
          const { status, stdout, stderr } = await ended;
          expect(stderr).toBe("");
          const report = JSON.parse(stdout);
          expect(report).toMatchObject({ ok: true, numDiffering: 0, shape: { ranksPerNode: RANKS / nodes } });
          expect(report.layers).toHaveLength(layers);
          const references = report.references.map((one: { reference: string }) => one.reference);
          expect(references.sort()).toEqual([...Array(layers).fill("oracle"), ...Array(layers).fill("webgpu")]);
          for (const { outputs } of report.references) {
            const compared = outputs.map((one: { output: string }) => one.output);
            expect(compared).toEqual(expect.arrayContaining(["dispatched x", "combined x"]));
            for (const { numElements, output } of outputs) {
              if (/ x$/.test(output)) expect(numElements, output).toBeGreaterThan(5_000);
            }
          }
          expect(status).toBe(0);
        }
      }, 600_000);
    }
  });
}
