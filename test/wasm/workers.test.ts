/** Threads: a lost worker is an error and not a hang, the next operation works, idle workers do not hold the process. */
import { readFile } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { WasmBackendImpl } from "../../backends/wasm/backend.ts";
import { createWasmBackend } from "../../backends/wasm/index.ts";
import { type PortEvents, type SpawnWorker, WORKER_PROGRAM, type WorkerMessage } from "../../backends/wasm/workers.ts";
import { BackendFailure } from "../../core/errors.ts";
import { digests, randomRows } from "./data.ts";

const module = await WebAssembly.compile(
  new Uint8Array(await readFile(new URL("../../backends/wasm/kernels.wasm", import.meta.url))),
);

/** Threads as in Node, whose n-th starts run `sabotage` instead of the program. */
function spawner(sabotage: readonly (string | null)[], held: boolean[] = []): SpawnWorker & { workers: Worker[] } {
  let started = 0;
  const workers: Worker[] = [];
  const spawn = (program: string, events: PortEvents) => {
    const source = `const { parentPort } = require("node:worker_threads");
      parentPort.on("message", ${sabotage[started++] ?? program}((reply) => parentPort.postMessage(reply)));`;
    const worker = new Worker(source, { eval: true });
    workers.push(worker);
    worker.on("message", events.reply);
    worker.on("error", (error) => events.failed((error as Error).message));
    worker.on("exit", (code) => events.failed(`exit code ${code}`));
    return {
      post: (message: WorkerMessage) => worker.postMessage(message),
      hold: (hold: boolean) => {
        held.push(hold);
        if (hold) worker.ref();
        else worker.unref();
      },
      stop: async () => {
        await worker.terminate();
      },
    };
  };
  return Object.assign(spawn, { workers });
}

async function backendWith(spawn: SpawnWorker) {
  const options = { module, numWorkers: 2, spawn, maxMemoryBytes: Number.POSITIVE_INFINITY, smallBytes: 0 };
  const backend = new WasmBackendImpl(options, null);
  return { backend, group: await backend.createGroup({ numRanks: 1 }) };
}

const x = [randomRows("bf16", [64, 256], 1)];

test.each([
  ["exits", `((post) => (message) => { if (message.kind === "task") process.exit(3); })`, /exit code/],
  [
    "throws outside a kernel",
    `((post) => (message) => { if (message.kind === "task") throw new Error("lost"); })`,
    /lost/,
  ],
])("a worker that %s fails the operation; the next one starts new workers", async (_, program, reason) => {
  const { backend, group } = await backendWith(spawner([null, program]));
  const failed = await group.castToFp8(x).catch((error) => error);
  expect(failed).toBeInstanceOf(BackendFailure);
  expect(failed.message).toMatch(reason);
  const reference = await (await createWasmBackend({ workers: 0 })).createGroup({ numRanks: 1 });
  const bytes = async (cast: ReturnType<typeof group.castToFp8>) => digests((await cast).x);
  expect(await bytes(group.castToFp8(x))).toEqual(await bytes(reference.castToFp8(x)));
  await backend.close();
});

test("a kernel that traps is an error of its operation only", async () => {
  const trap = `((post) => {
    const real = ${WORKER_PROGRAM}(post);
    let first = true;
    return (message) => {
      if (message.kind !== "task" || !first) return real(message);
      first = false;
      real({ ...message, task: { ...message.task, op: "zero", out: { slab: 99 } } });
    };
  })`;
  const { backend, group } = await backendWith(spawner([trap, trap]));
  await expect(group.castToFp8(x)).rejects.toThrow(/wasm: a kernel failed on a worker: TypeError/);
  expect((await group.castToFp8(x)).x[0].shape).toEqual([64, 256]);
  await backend.close();
});

test("workers start once, with the first operation that needs them, and hold the process only while they work", async () => {
  const held: boolean[] = [];
  const spawn = spawner([], held);
  const { backend, group } = await backendWith(spawn);
  expect(spawn.workers.length).toBe(0);
  await group.castToFp8(x);
  await group.castToFp8(x);
  expect(spawn.workers.length).toBe(2);
  expect(held.at(-1)).toBe(false);
  expect(held).toContain(true);
  const exits = spawn.workers.map((worker) => new Promise((resolve) => worker.once("exit", resolve)));
  await backend.close();
  await Promise.all(exits);
});

test("small operations start no worker", async () => {
  const spawn = spawner([]);
  const options = { module, numWorkers: 2, spawn, maxMemoryBytes: Number.POSITIVE_INFINITY, smallBytes: 1 << 20 };
  const backend = new WasmBackendImpl(options, null);
  await (await backend.createGroup({ numRanks: 1 })).castToFp8(x);
  expect(spawn.workers.length).toBe(0);
  await backend.close();
});
