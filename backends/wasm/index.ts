/** The wasm backend in Node: kernels from the file beside this one, workers from node:worker_threads. */
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { Unavailable } from "../../core/errors.ts";
import {
  checkWasmOptions,
  compileKernels,
  type WasmBackend,
  WasmBackendImpl,
  type WasmOptions,
  withDefaults,
} from "./backend.ts";
import type { SpawnWorker } from "./workers.ts";

export type { WasmBackend, WasmOptions } from "./backend.ts";
export type { TensorSpec } from "./outputs.ts";

/** Throws Unavailable when the kernels were not built, InvalidArgument for impossible options. */
export async function createWasmBackend(options: WasmOptions = {}): Promise<WasmBackend> {
  checkWasmOptions(options);
  const numWorkers = options.workers ?? availableParallelism();
  const module = await compileKernels(await kernelFile(numWorkers > 0 ? "kernels.wasm" : "kernels-single.wasm"));
  return new WasmBackendImpl({ ...withDefaults(options), module, numWorkers, spawn: spawnNodeWorker }, null);
}

async function kernelFile(name: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await readFile(new URL(name, import.meta.url)));
  } catch (cause) {
    throw new Unavailable(`backend wasm: ${name} is not built; run npm run build (scripts/build-wasm.mjs)`, { cause });
  }
}

const spawnNodeWorker: SpawnWorker = (program, events) => {
  const source = `const { parentPort } = require("node:worker_threads");
    parentPort.on("message", ${program}((reply) => parentPort.postMessage(reply)));`;
  const worker = new Worker(source, { eval: true, execArgv: [], env: {} });
  worker.unref();
  worker.on("message", events.reply);
  worker.on("error", (error) => events.failed(error instanceof Error ? error.message : String(error)));
  worker.on("exit", (code) => events.failed(`exit code ${code}`));
  return {
    post: (message) => worker.postMessage(message),
    hold: (held) => (held ? worker.ref() : worker.unref()),
    stop: async () => {
      await worker.terminate();
    },
  };
};
