import fc from "fast-check";
import type { Backend } from "../../core/backend.ts";
import { lawCase, Run } from "./cases.ts";
import type { Law } from "./laws.ts";

/** Runs one law on `numRuns` random cases; a broken one is shrunk and printed with its seed. */
export async function checkLaw(law: Law, backend: Backend, numRuns: number, seed: number): Promise<void> {
  await fc.assert(
    fc.asyncProperty(lawCase, async (c) => {
      const group = await backend.createGroup({ numRanks: c.numRanks, ranksPerNode: c.ranksPerNode });
      try {
        await law.check(new Run(c, group), backend);
      } finally {
        await group.close();
      }
    }),
    { numRuns, seed },
  );
}
