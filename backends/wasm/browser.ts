/** The wasm backend in the browser: Web Workers over shared memory, or one thread where the page is not isolated. */
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

export interface BrowserWasmOptions extends WasmOptions {
  /** Where kernels.wasm and kernels-single.wasm are served from; default beside this module. */
  readonly kernelUrl?: (name: "kernels.wasm" | "kernels-single.wasm") => string | URL;
}

export async function createWasmBackend(options: BrowserWasmOptions = {}): Promise<WasmBackend> {
  checkWasmOptions(options);
  const wanted = options.workers ?? navigator.hardwareConcurrency;
  const note = wanted > 0 && !globalThis.crossOriginIsolated ? NOT_ISOLATED : null;
  const numWorkers = note === null ? wanted : 0;
  const [shared, single] = [new URL("kernels.wasm", import.meta.url), new URL("kernels-single.wasm", import.meta.url)];
  const name = numWorkers > 0 ? "kernels.wasm" : "kernels-single.wasm";
  const url = options.kernelUrl?.(name) ?? (numWorkers > 0 ? shared : single);
  const module = await compileKernels(await (await fetch(url)).arrayBuffer());
  return new WasmBackendImpl({ ...withDefaults(options), module, numWorkers, spawn: spawnWebWorker }, note);
}

const NOT_ISOLATED =
  "one thread: this page is not cross-origin isolated, so workers cannot share memory with it " +
  "(serve it with Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp)";

const spawnWebWorker: SpawnWorker = (program, events) => {
  const source = `const handle = ${program}((reply) => postMessage(reply)); onmessage = ({ data }) => handle(data);`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url);
  worker.onmessage = ({ data }) => events.reply(data);
  worker.onerror = (event) => {
    event.preventDefault();
    events.failed(event.message ?? "the worker could not start");
  };
  return {
    post: (message) => worker.postMessage(message),
    hold: () => {},
    stop: async () => {
      worker.terminate();
      URL.revokeObjectURL(url);
    },
  };
};
