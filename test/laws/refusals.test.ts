/** Every backend refuses the same input with the same words, before anything runs, and its group works on afterwards. */
import { afterAll, describe, expect, test } from "vitest";
import type { Backend } from "../../core/backend.ts";
import { ContractMismatch, InvalidArgument } from "../../core/errors.ts";
import { resetBuffer, resetHybridEpBuffer } from "../../core/functions/buffers.ts";
import { fusedDispatch } from "../../core/functions/wrappers.ts";
import { toHost } from "../../core/tensor.ts";
import { CANDIDATES, SPLIT_CANDIDATES, tryOpen } from "../conformance/backends.ts";
import { IDS, WEIGHTS, X } from "../unit/functions/recording.ts";
import { REFUSALS } from "../unit/functions/refusals.ts";

const ONE_OF_EACH = [
  "oracle",
  "wasm on the calling thread",
  "wasm, workers: 2",
  "webgpu",
  "cuda-emulated, devices: 2",
  "cuda-emulated, a part per rank",
  "cuda",
];

/** What only the processes together can see is a disagreement of them. */
const ACROSS_PROCESSES: Record<string, RegExp> = {
  "ranks of different dtypes": /processes disagree: dtype: \w+ on process 0, \w+ on process 1/,
};

for (const candidate of [...CANDIDATES, ...SPLIT_CANDIDATES].filter(({ name }) => ONE_OF_EACH.includes(name))) {
  const opened = await tryOpen(candidate);
  const reason = typeof opened === "string" ? ` (skipped: ${opened})` : "";
  describe.skipIf(typeof opened === "string")(`refusals on ${candidate.name}${reason}`, () => {
    const backend = opened as Backend;
    afterAll(async () => {
      resetBuffer();
      resetHybridEpBuffer();
      await backend.close();
    });
    const split = SPLIT_CANDIDATES.includes(candidate);
    test.each(REFUSALS)("$name", async ({ name, run, message }) => {
      const across = split ? ACROSS_PROCESSES[name] : undefined;
      const group = await backend.createGroup({ numRanks: 2 });
      const error = await run({ group }).then(
        () => new Error("nothing was refused"),
        (thrown: unknown) => thrown as Error,
      );
      expect(error.message).toMatch(across ?? message);
      expect(error).toBeInstanceOf(across === undefined ? InvalidArgument : ContractMismatch);
      const { recvX } = await fusedDispatch(X, IDS, WEIGHTS, 4, group);
      expect([...(await toHost(recvX[0])).data]).toEqual([1, 2, 10]);
      resetBuffer();
      resetHybridEpBuffer();
      await group.close();
    });
  });
}
