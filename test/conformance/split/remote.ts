/** Parts that are real processes: a group whose calls travel to a child and back. */
import { type ChildProcess, fork } from "node:child_process";
import { join } from "node:path";
import type { NativeEmulation } from "../../../backends/cuda/index.ts";
import { packageFolder } from "../../../backends/cuda/loader.ts";
import type {
  BufferMemory,
  CombineRequest,
  CombineResult,
  DispatchRequest,
  DispatchResult,
  Group,
  GroupOptions,
  RoutingInput,
  RowOutputs,
  StreamOptions,
} from "../../../core/backend.ts";
import {
  BackendFailure,
  ContractMismatch,
  type FusedA2AError,
  InvalidArgument,
  OutOfMemory,
  Timeout,
  Unavailable,
} from "../../../core/errors.ts";
import { EventOverlap } from "../../../core/event.ts";
import { Handle, type HandleData } from "../../../core/handle/handle.ts";
import { type AnyTensor, bytesOf, type Tensor, toHost } from "../../../core/tensor.ts";
import type { Parts } from "./backend.ts";

/** By the package: compiled tests may lie elsewhere in it. */
const MEMBER = join(packageFolder(), "test/conformance/split/member.mjs");

export interface RemoteOptions {
  /** Emulated devices (the default) or GPUs; several processes may share one. */
  readonly emulated?: boolean;
  readonly emulation?: NativeEmulation;
}

/** Processes are started once and serve every group of the backend. */
export function remoteParts({ emulated = true, emulation }: RemoteOptions = {}): Parts {
  const members: Member[] = [];
  return {
    async open(index, place, options) {
      members[index] ??= new Member(index, emulated ? {} : hostVariables(index));
      const { backend, localRanks } = await members[index].call("open", place, options, { emulated, emulation });
      return new RemoteGroup(members[index], backend, options, localRanks);
    },
    async close() {
      await Promise.all(members.map((member) => member.end()));
    },
  };
}

/** NCCL takes processes with a host id of their own for hosts, and lets them share a GPU. */
function hostVariables(index: number): Record<string, string> {
  const { NCCL_SOCKET_IFNAME = "lo" } = process.env;
  return { NCCL_HOSTID: `fused-a2a-host${index}`, NCCL_SOCKET_IFNAME };
}

interface Waiter {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
}

/** A child and the calls it has not answered. */
class Member {
  readonly #child: ChildProcess;
  readonly #waiters = new Map<number, Waiter>();
  readonly #ended: Promise<void>;
  #next = 0;

  constructor(index: number, env: Readonly<Record<string, string>>) {
    this.#child = fork(MEMBER, { serialization: "advanced", execArgv: [], env: { ...process.env, ...env } });
    this.#child.on("message", (answer: { id: number; value?: never; error?: Parameters<typeof asError>[0] }) => {
      const waiter = this.#waiters.get(answer.id);
      this.#waiters.delete(answer.id);
      if (answer.error === undefined) waiter?.resolve(answer.value as never);
      else waiter?.reject(asError(answer.error));
    });
    this.#ended = new Promise((resolve) => {
      this.#child.on("exit", (status, signal) => {
        for (const { reject } of this.#waiters.values()) {
          reject(new Error(`process ${index} of the test ended: ${signal ?? status}`));
        }
        this.#waiters.clear();
        resolve();
      });
    });
  }

  // biome-ignore lint/suspicious/noExplicitAny: what a call answers is member.mjs's business
  call(name: string, ...args: unknown[]): Promise<any> {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiters.set(id, { resolve, reject });
      this.#child.send({ id, call: name, args }, (error) => error && reject(error));
    });
  }

  end(): Promise<void> {
    if (this.#child.connected) this.#child.disconnect();
    return this.#ended;
  }
}

/** `Handle.native` of a remote group: the number under which the child keeps it. */
class RemoteHandle {
  readonly member: Member;
  readonly number: number;

  constructor(member: Member, number: number) {
    this.member = member;
    this.number = number;
  }
}

let numHandles = 0;

class RemoteGroup implements Group {
  readonly backend: Group["backend"];
  readonly numRanks: number;
  readonly ranksPerNode: number;
  readonly localRanks: readonly number[];
  readonly #member: Member;
  /** Handles made elsewhere that the child has. */
  readonly #sent = new WeakMap<Handle, number>();
  #last: Promise<unknown> = Promise.resolve();

  constructor(member: Member, backend: Group["backend"], options: GroupOptions, localRanks: readonly number[]) {
    this.#member = member;
    this.backend = backend;
    this.numRanks = options.numRanks;
    this.ranksPerNode = options.ranksPerNode ?? options.numRanks;
    this.localRanks = localRanks;
  }

  async layout(routing: RoutingInput, numExperts: number) {
    const layouts = await this.#call("layout", async () => [await hostRouting(routing), numExperts]);
    return layouts.map((layout: { isTokenInRank: Uint8Array }) => ({
      ...layout,
      isTokenInRank: () => layout.isTokenInRank,
    }));
  }

  async dispatch(request: DispatchRequest): Promise<DispatchResult> {
    const number = numHandles++;
    const { meta, ...result } = await this.#call("dispatch", async () => [
      {
        kind: request.kind,
        x: await hostAll(request.x),
        scales: await hostAll(request.scales),
        routing: request.routing && (await hostRouting(request.routing)),
        settings: request.settings,
        ...(await streamOptions(request)),
      },
      request.handle && (await this.#handle(request.handle)),
      number,
    ]);
    const data = (): Promise<HandleData> => this.#member.call("handleData", number);
    const counts = (): Promise<Int32Array[]> => this.#member.call("handleCounts", number);
    const handle = request.handle ?? new Handle(meta, data, new RemoteHandle(this.#member, number), counts);
    const scales = result.scales && this.#deliver("scales", result.scales, { consume: request.consume });
    return { ...result, x: this.#deliver("x", result.x, request), scales, handle, event: new EventOverlap() };
  }

  async combine(request: CombineRequest): Promise<CombineResult> {
    const result = await this.#call("combine", async () => [
      {
        x: await hostAll(request.x),
        topkWeights: await hostAll(request.topkWeights),
        probs: await hostAll(request.probs),
        bias: await Promise.all(request.bias.map(hostAll)),
        ...(await streamOptions(request)),
      },
      await this.#handle(request.handle),
    ]);
    return { ...result, x: this.#deliver("x", result.x, request), event: new EventOverlap() };
  }

  castToFp8(x: readonly AnyTensor[]) {
    return this.#call("castToFp8", async () => [await hostAll(x)]);
  }

  castBack(x: readonly AnyTensor[], scales: readonly AnyTensor[]) {
    return this.#call("castBack", async () => [await hostAll(x), await hostAll(scales)]);
  }

  async scaleRows(x: readonly AnyTensor[], factors: readonly AnyTensor[], options: RowOutputs = {}) {
    const made = await this.#call("scaleRows", async () => [await hostAll(x), await hostAll(factors)]);
    return this.#deliver("x", made, options);
  }

  setNumSms(numSms: number): void {
    void this.#call("setNumSms", async () => [numSms]);
  }

  async allocateBuffer(bytes: number): Promise<BufferMemory> {
    const number = numHandles++;
    await this.#call("allocateBuffer", async () => [bytes, number]);
    return { bytes, free: () => void this.#call("free", async () => [number]).catch(() => {}) };
  }

  close(): Promise<void> {
    return this.#call("close", async () => []);
  }

  /** Calls leave in the order in which they were made, whatever their arguments wait for. */
  // biome-ignore lint/suspicious/noExplicitAny: what a call answers is member.mjs's business
  #call(name: string, prepare: () => Promise<unknown[]>): Promise<any> {
    const prepared = this.#last.then(prepare);
    const sent = prepared.then((args) => ({ answer: this.#member.call(name, ...args) }));
    this.#last = sent.catch(() => {});
    return sent.then(({ answer }) => answer);
  }

  async #handle(handle: Handle): Promise<{ number: number; data?: HandleData }> {
    if (handle.native instanceof RemoteHandle && handle.native.member === this.#member) return handle.native;
    const before = this.#sent.get(handle);
    if (before !== undefined) return { number: before };
    const number = numHandles++;
    this.#sent.set(handle, number);
    return { number, data: await handle.data() };
  }

  #deliver(name: "x" | "scales", made: readonly Tensor[], { out, consume }: RowOutputs): readonly Tensor[] {
    if (consume !== undefined) {
      made.forEach((value, i) => {
        const numRows = value.shape[0];
        if (numRows > 0) consume({ name, rank: this.localRanks[i], firstRow: 0, numRows, bytes: bytesOf(value) });
      });
      return [];
    }
    out?.forEach((value, i) => bytesOf(value).set(bytesOf(made[i])));
    return out ?? made;
  }
}

async function hostAll<T extends readonly AnyTensor[] | null>(values: T): Promise<T> {
  return (values && (await Promise.all(values.map((value) => toHost(value))))) as unknown as T;
}

async function hostRouting(routing: RoutingInput): Promise<RoutingInput> {
  if ("topkIdx" in routing) {
    return { topkIdx: await hostAll(routing.topkIdx), topkWeights: await hostAll(routing.topkWeights) };
  }
  return { routingMap: await hostAll(routing.routingMap), probs: await hostAll(routing.probs) };
}

/** The child works on its calls in order; an event of elsewhere is waited for here. */
async function streamOptions(options: StreamOptions): Promise<StreamOptions> {
  await options.previousEvent?.currentStreamWait();
  const { asyncFinish, allocateOnCommStream, numSms } = options;
  return { asyncFinish, allocateOnCommStream, numSms };
}

const CLASSES = {
  INVALID_ARGUMENT: InvalidArgument,
  UNAVAILABLE: Unavailable,
  OUT_OF_MEMORY: OutOfMemory,
  BACKEND_FAILURE: BackendFailure,
  CONTRACT_MISMATCH: ContractMismatch,
  TIMEOUT: Timeout,
} as const;

function asError({ code, message, problem }: { code?: string; message: string; problem?: never }): Error {
  const Class = CLASSES[code as keyof typeof CLASSES] as typeof FusedA2AError | undefined;
  if (Class === undefined) return new Error(message);
  return new (Class as unknown as new (problem: unknown) => FusedA2AError)(problem ?? message);
}
