/**
 * The worker threads. They start on the first operation that is worth it and stay; while none works they do not keep the
 * process alive. A worker that dies fails what is running (BackendFailure) and all are started anew for the next operation.
 */
import { BackendFailure } from "../../core/errors.ts";
import { makeExecutor, type SlabInfo, type Task } from "./executor.ts";

/** One thread, in Node or in the browser. */
export interface WorkerPort {
  post(message: WorkerMessage): void;
  /** Whether the thread keeps the process alive. */
  hold(held: boolean): void;
  stop(): Promise<void>;
}

export interface PortEvents {
  reply(reply: WorkerReply): void;
  failed(reason: string): void;
}

export type SpawnWorker = (program: string, events: PortEvents) => WorkerPort;

export type WorkerMessage =
  | { readonly kind: "start"; readonly module: WebAssembly.Module; readonly lane: number }
  | { readonly kind: "slab"; readonly slab: SlabInfo }
  | { readonly kind: "drop"; readonly id: number }
  | { readonly kind: "control"; readonly control: Int32Array }
  | { readonly kind: "task"; readonly seq: number; readonly task: Task };

export interface WorkerReply {
  readonly seq: number;
  readonly error: string | null;
}

interface Pending {
  remaining: number;
  error: string | null;
  resolve(): void;
  reject(error: Error): void;
}

/** What a worker does with its messages. Sent as text together with makeExecutor: refers to nothing outside itself. */
function serve(make: typeof makeExecutor, post: (reply: WorkerReply) => void): (message: WorkerMessage) => void {
  let executor: ReturnType<typeof make>;
  return (message) => {
    if (message.kind === "start") executor = make(message.module, message.lane);
    else if (message.kind === "slab") executor.addSlab(message.slab);
    else if (message.kind === "drop") executor.dropSlab(message.id);
    else if (message.kind === "control") executor.setControl(message.control);
    else {
      let error: string | null = null;
      try {
        executor.run(message.task);
      } catch (cause) {
        error = String(cause);
      }
      post({ seq: message.seq, error });
    }
  };
}

/**
 * The program of a worker as one expression: a function of `post` that returns the message handler. Text, because then
 * there is no second file to be found in dist, in a bundle or under the test runner.
 */
export const WORKER_PROGRAM = `((post) => (${serve.toString()})(${makeExecutor.toString()}, post))`;

export class Workers {
  readonly size: number;
  readonly #spawn: SpawnWorker;
  readonly #module: WebAssembly.Module;
  readonly #state: () => { slabs: Iterable<SlabInfo>; control: Int32Array };
  readonly #pending = new Map<number, Pending>();
  #ports: WorkerPort[] | null = null;
  #stopping: Promise<unknown> = Promise.resolve();
  #seq = 0;

  /** `state` says what a worker that starts late has to know. */
  constructor(
    size: number,
    module: WebAssembly.Module,
    spawn: SpawnWorker,
    state: () => { slabs: Iterable<SlabInfo>; control: Int32Array },
  ) {
    this.size = size;
    this.#spawn = spawn;
    this.#module = module;
    this.#state = state;
  }

  /** Sends a message to the workers that run already. */
  tell(message: WorkerMessage): void {
    for (const port of this.#ports ?? []) port.post(message);
  }

  async start(): Promise<void> {
    await this.#stopping;
    if (this.#ports !== null) return;
    const ports: WorkerPort[] = [];
    const events: PortEvents = {
      reply: (reply) => this.#reply(reply),
      failed: (reason) => {
        if (this.#ports === ports) this.#fail(reason);
      },
    };
    this.#ports = ports;
    for (let i = 0; i < this.size; i++) {
      const port = this.#spawn(WORKER_PROGRAM, events);
      ports.push(port);
      // Lane 0 is the calling thread.
      port.post({ kind: "start", module: this.#module, lane: i + 1 });
      const { slabs, control } = this.#state();
      for (const { id, memory, scratchOffset } of slabs)
        port.post({ kind: "slab", slab: { id, memory, scratchOffset } });
      port.post({ kind: "control", control });
      port.hold(this.#pending.size > 0);
    }
  }

  /** Runs a task on the first `count` workers; resolves when all of them are through. Call start() first. */
  run(task: Task, count: number): Promise<void> {
    const ports = (this.#ports ?? []).slice(0, count);
    if (ports.length === 0) return Promise.reject(new BackendFailure("wasm: the workers are not running; try again"));
    const seq = this.#seq++;
    if (this.#pending.size === 0) this.#hold(true);
    const done = new Promise<void>((resolve, reject) => {
      this.#pending.set(seq, { remaining: ports.length, error: null, resolve, reject });
    });
    for (const port of ports) port.post({ kind: "task", seq, task });
    return done;
  }

  async close(): Promise<void> {
    this.#fail("the backend was closed");
    await this.#stopping;
  }

  #reply({ seq, error }: WorkerReply): void {
    const pending = this.#pending.get(seq);
    if (pending === undefined) return;
    pending.error ??= error;
    if (--pending.remaining > 0) return;
    this.#pending.delete(seq);
    if (this.#pending.size === 0) this.#hold(false);
    if (pending.error === null) pending.resolve();
    else pending.reject(new BackendFailure(`wasm: a kernel failed on a worker: ${pending.error}`));
  }

  /** A lost worker may have left anything half done: all stop, then everything in flight is rejected. */
  #fail(reason: string): void {
    const ports = this.#ports ?? [];
    this.#ports = null;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    this.#stopping = Promise.allSettled(ports.map((port) => port.stop())).then(() => {
      for (const { reject } of pending) {
        reject(
          new BackendFailure(
            `wasm: a worker stopped while it was at work (${reason}); its outputs are incomplete; later operations start new workers`,
          ),
        );
      }
    });
  }

  #hold(held: boolean): void {
    for (const port of this.#ports ?? []) port.hold(held);
  }
}
