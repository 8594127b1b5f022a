/** Two parts of a group in this process, one of which cannot be made after the other has begun to meet it over NCCL. */
import { expect, test } from "vitest";
import { createCudaBackend } from "../../backends/cuda/index.ts";
import { freePort } from "../conformance/split/port.ts";
import { built, whyNotBuilt } from "./start.ts";

test.skipIf(!built)(`who meets in vain over NCCL hears why, not that a connection broke${whyNotBuilt}`, async () => {
  // Eleven tables of eleven addresses: on device 1 the table of its rank then takes the last byte, its rail gets no stream.
  const emulation = { deviceBytes: 11 * 11 * 8 + 4 * 8 };
  const full = await createCudaBackend({ emulated: true, devices: Array(11).fill(1), emulation });
  await full.createGroup({ numRanks: 11 });
  for (let turn = 0; turn < 20; turn++) {
    const port = await freePort();
    const began = performance.now();
    const outcomes = await Promise.allSettled(
      [
        [0, 1],
        [2, 3],
      ].map(async (devices, processRank) => {
        const place = { launcher: "by hand", numProcesses: 2, processRank, host: "127.0.0.1", port };
        const cluster = { place, timeoutMs: 5000, deadlineMs: 5000 };
        const backend = await createCudaBackend({ emulated: true, devices, emulation, cluster });
        return backend.createGroup({ numRanks: 4, ranksPerNode: 2 });
      }),
    );
    const messages = outcomes.map((one) => (one.status === "rejected" ? one.reason.message : "made"));
    // Nothing stays behind that waits for its deadline: turns after the fourth would wait for a thread of Node's pool.
    expect(performance.now() - began).toBeLessThan(2500);
    expect(messages[0]).toMatch(/^cudaStreamCreate: expected room on device 1 for a stream/);
    expect(messages[1]).toMatch(/^process 0 gave up: cudaStreamCreate: expected room on device 1 for a stream/);
  }
  await full.close();
});
